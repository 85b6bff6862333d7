"""The folder of a study that takes long: each part's outcome is kept, so that a study that was stopped goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from fpn.data.dataset import Dataset
from fpn.errors import ConfigError, OutputError
from fpn.files import refuse_unwritable, taken, write_text
from fpn.training.run_record import fingerprint

_SETTINGS = "settings.json"


class StudyFolder:
    """A study's output folder: `settings.json`, and a file for each part.

    Every file is written atomically, and only when its part is complete: what is there can be counted on.

    Attributes:
        root: the folder.
        settings: all that decides the outcomes but which part it is, as JSON has it.
        verb, part: the command that makes the study, and what messages call a part of it.
    """

    verb: ClassVar[str]
    part: ClassVar[str]

    def __init__(self, root: Path, settings: Mapping[str, Any]) -> None:
        """Take a new folder, or one that a study with the same settings began.

        Args:
            root: the folder.
            settings: JSON-able.

        Raises:
            ConfigError: it was begun with other settings.
            OutputError: it holds something else, or can't be written to.
        """
        self.root = root
        self.settings = json.loads(json.dumps(settings))  # tuples become lists, as in the file
        self._digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()[:16]
        self._claim()

    def keep(self, path: Path, values: Mapping[str, Any]) -> None:
        """Write what a part came to."""
        write_text(path, json.dumps({"settings": self._digest, **values}, indent=2) + "\n")

    def kept(self, path: Path) -> dict[str, Any] | None:
        """What a part came to; None: it is not complete yet.

        Raises:
            ConfigError: it was measured under other settings.
            OutputError: the file is damaged.
        """
        if not path.exists():
            return None
        values = _load(path)
        if values.get("settings") != self._digest:
            raise ConfigError(
                f"{path}: was measured under other settings than {self.root / _SETTINGS} says, so it can't stand "
                f"in the same table. Remove it, and its {self.part} is measured again."
            )
        return values

    @classmethod
    def refuse_foreign(cls, root: Path) -> None:
        """Stop before any work if a folder is neither new, nor empty, nor begun by a study.

        Raises:
            OutputError: so it is, or nothing can be written there.
        """
        begun = (root / _SETTINGS).exists()
        if not begun and root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise taken(root, "folder", by=cls.verb)
        refuse_unwritable(root)

    def _claim(self) -> None:
        path = self.root / _SETTINGS
        if path.exists():
            before = _load(path)
            if self.settings and not before.keys() & self.settings.keys():
                raise taken(self.root, "folder", by=self.verb)  # another program's file of this name
            if before != self.settings:
                raise ConfigError(_other_settings(self.root, before, self.settings, self.part))
            return
        self.refuse_foreign(self.root)
        write_text(path, json.dumps(self.settings, indent=2) + "\n")


def about_dataset(dataset: Dataset) -> dict[str, Any]:
    """For the settings: which images and labels it has."""
    return {"name": dataset.name, "images": len(dataset), "fingerprint": fingerprint(dataset)}


def _load(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(f"{path}: can't be read ({error}). Remove it, and it is made again.") from error
    if not isinstance(values, dict):
        raise OutputError(f"{path}: is not what a study wrote. Remove it, and it is made again.")
    return values


def _other_settings(root: Path, before: Mapping[str, Any], now: Mapping[str, Any], part: str) -> str:
    old, new = _flat(before), _flat(now)
    changed = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
    more = f", and {len(changed) - 1} more settings differ" if len(changed) > 1 else ""
    return (
        f"{root}: was begun with {changed[0]} {old.get(changed[0])!r}, now it is {new.get(changed[0])!r}{more}. "
        f"{part.capitalize()}s measured under different settings can't be compared. Repeat the old ones, or choose "
        "another --output."
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
