"""The folder of a report while it is made: beside its place, kept when the work is stopped, renamed when it is done."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fpn.data.formats.writer import refuse_filled
from fpn.errors import OutputError
from fpn.files import write_text

_KEY = "draft.json"
_STEP = "step-{}.json"


@dataclass(frozen=True)
class Draft:
    """A report that is being made.

    Attributes:
        folder: what is written so far.
        output: where it goes.
        taken_up: whether an earlier, stopped run with the same model, images and settings left something.
    """

    folder: Path
    output: Path
    taken_up: bool

    @classmethod
    def begin(cls, output: Path, key: Mapping[str, Any]) -> Draft:
        """Take up what a stopped run left, if it is of the same things; else begin anew.

        Args:
            output: a new or empty folder.
            key: what decides the figures, JSON-able.

        Raises:
            OutputError: it is neither new nor empty, or can't be written.
        """
        refuse_filled(output)
        folder = Path(os.path.abspath(output))  # noqa: PTH100  # resolve() would follow a link in its place
        folder = folder.parent / f".{folder.name}.fpn-report"
        written = json.loads(json.dumps(key))
        same = _read(folder / _KEY) == written
        try:
            if folder.exists() and not same:
                shutil.rmtree(folder)
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder}: can't write there ({error.strerror}). Choose another --output.") from error
        write_text(folder / _KEY, json.dumps(written) + "\n")
        return cls(folder, output, same)

    def step(self, name: str, work: Callable[[], Any]) -> Any:
        """The JSON-able result of a long step: what a stopped run kept, or what `work` gives, which is then kept.

        Files that `work` writes into the folder must be there before it returns.
        """
        path = self.folder / _STEP.format(name)
        kept = _read(path)
        if kept is not None:
            return kept["result"]
        result = work()
        text = json.dumps({"result": result})
        write_text(path, text + "\n")
        # As it would be read again, so that a report that was stopped is no other.
        return json.loads(text)["result"]

    def leave(self) -> bool:
        """The work ends early: keep what may be used again, else nothing; whether anything is kept."""
        halves = any(self.folder.glob("*/*"))  # of steps that keep what they have themselves
        kept = halves or any(self.folder.glob(_STEP.format("*")))
        if not kept:
            shutil.rmtree(self.folder, ignore_errors=True)
        return kept

    def finish(self) -> Path:
        """Move the report to its place.

        Raises:
            OutputError: it can't be, as something is there by now.
        """
        for path in (self.folder / _KEY, *self.folder.glob(_STEP.format("*"))):
            path.unlink()
        try:
            if self.output.is_dir():
                self.output.rmdir()
            self.folder.rename(self.output)
        except OSError as error:
            raise OutputError(
                f"{self.output}: can't be written ({error.strerror}). The report is complete in {self.folder}: move it."
            ) from error
        return self.output


def _read(path: Path) -> Any:
    """A JSON file; None: there is none, or it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
