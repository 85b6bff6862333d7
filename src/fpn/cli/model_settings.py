"""The model's settings from a file and from options, where each may be named in two ways: `--max-detections 300` and
`--set box.limit=300`, or `[box]` in a file, are the same one.

Within a file, and among options, a setting has one value. Between the two, the option wins.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fpn.errors import ConfigError
from fpn.sections import flat_name
from fpn.training.config import DETECTORS, MODEL_SETTINGS, anchor_levels


def kind_of(values: Mapping[str, Any]) -> str:
    """Which kind of detector the settings are for: that of the model to begin with, else as asked, else the default.

    Raises:
        ModelFileError: the model to begin with is damaged.
        ConfigError: it is of another kind than asked for.
    """
    asked, model = values.get("detector"), values.get("init")
    if isinstance(model, str | Path) and Path(model).is_file():
        from fpn.detectors.model_file import read_header, recipe_of

        kind = recipe_of(read_header(model), str(model)).kind
        if asked not in (None, kind):
            raise ConfigError(f"detector {asked!r}: the model to begin with is a {kind}. Leave it out.")
        return kind
    return str(asked) if asked in DETECTORS else DETECTORS[0]


def combine(file: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Names and values of the group, `set` among them, from both; options win.

    Raises:
        ConfigError: a file, or the options, give one setting two values.
    """
    kind = kind_of({**file, **options})
    ours, theirs = _Named(options, kind), _Named(file, kind)
    kept = {path: value for path, value in theirs.assigned.items() if flat_name(path) not in ours.settings}
    named = dict(theirs.named)
    for name, value in theirs.named.items():
        settings = MODEL_SETTINGS[kind].get(name, ())
        if any(setting in ours.settings for setting in settings) and name not in ours.named:
            del named[name]
            left = [each for each in settings if each not in ours.settings and value is not None]
            kept |= {each: _plain(name, value, kind) for each in left}
    together = {**named, **ours.named}
    assigned = {**kept, **ours.assigned}
    return {**together, "set": as_texts(assigned)} if assigned else together


def read_assignments(texts: Iterable[str]) -> dict[str, Any]:
    """ "roi.sampler=pool" as a setting's path and its value: as JSON writes it, or else a text.

    Raises:
        ConfigError: there is no "=", or one setting has two values.
    """
    found: dict[str, Any] = {}
    keys: dict[str, str] = {}
    for text in texts:
        path, equals, written = text.partition("=")
        if not equals:
            raise ConfigError(f"--set {text!r}: expected a setting and its value, such as roi.sampler=pool")
        for inner, value in _flat(path.strip(), _value(written)):
            before = keys.setdefault(flat_name(inner), inner)
            _refuse_two(inner, found.get(before, value), value)
            found[before] = value
    return found


class _Named:
    """What one source says: by name of an option, and by path of a setting."""

    def __init__(self, values: Mapping[str, Any], kind: str) -> None:
        texts = values.get("set") or ()
        if isinstance(texts, str):
            raise ConfigError(f"set {texts!r}: expected a list, such as [{texts!r}]")
        self.assigned = read_assignments(texts)
        self.named = {name: value for name, value in values.items() if name != "set"}
        by_key = {flat_name(path): (path, value) for path, value in self.assigned.items()}
        self.settings = set(by_key)
        for name, value in self.named.items():
            for setting in MODEL_SETTINGS[kind].get(name, ()) if value is not None else ():
                self.settings.add(setting)
                if setting in by_key:
                    path, other = by_key[setting]
                    _refuse_two(f"{name} and {path}", _plain(name, value, kind), other)
                    del self.assigned[path]


def _refuse_two(what: str, one: Any, other: Any) -> None:
    if _as_json(one) != _as_json(other):
        raise ConfigError(f"{what}: {json.dumps(one)} and {json.dumps(other)} are two values of one setting. Keep one.")


def _plain(name: str, value: Any, kind: str) -> Any:
    """As JSON has it. Anchor sizes are one a level among the options, and a list a level among the settings."""
    return _as_json(anchor_levels(kind, value) if name == "anchor_sizes" else value)


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _value(written: str) -> Any:
    try:
        return json.loads(written)
    except ValueError:
        return written.strip()


def _flat(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """A table's entries, tables within too."""
    if not isinstance(value, Mapping):
        yield path, value
        return
    for name, inner in value.items():
        yield from _flat(f"{path}.{name}", inner)


def as_texts(assigned: Mapping[str, Any]) -> list[str]:
    """As `read_assignments` reads them again: a text that looks like a number stays a text."""
    return [f"{path}={value if _value(str(value)) == value else json.dumps(value)}" for path, value in assigned.items()]
