"""Complaints about settings, by what a person wrote: the option, or the file and its line."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from fpn.sections import flat_name

# A setting's name within what stands before a message's colon; not a part of a path, a value or an option.
_NAME = re.compile(r"(?<![\w./'\"=-])[a-z][a-z0-9]*(?:[._][a-z0-9]+)*(?![\w/=-])")
_UNKNOWN = re.compile(r"unknown setting '([^']+)'")
_INDEX = re.compile(r"(\.\d+)+$")


def of_options(message: str, words: Sequence[str]) -> str:
    """A complaint that says `--batch-size 0` where it said `batch_size 0`, if that option is among the words.

    Args:
        message: settings first, then what is wrong, mostly after a colon, as `fpn.sections` writes it.
        words: of the command.
    """
    given = {_setting(word) for word in words if word.startswith("--")}
    if (unknown := _UNKNOWN.match(message)) and any(word.startswith(f"{unknown[1]}=") for word in words):
        return f"--set: {message}"

    def option(found: re.Match[str]) -> str:
        if any(word.startswith(f"{found[0]}=") for word in words):
            return f"--set {found[0]}"
        name = given_name(found[0], given)
        return found[0] if name is None else f"--{name.replace('_', '-')}"

    settings, colon, rest = message.partition(": ")
    if colon:
        return f"{_NAME.sub(option, settings)}{colon}{rest}"
    first = _NAME.match(message)
    return message if first is None else f"{option(first)}{message[first.end() :]}"


def of_file(message: str, file: Path, names: Collection[str]) -> str:
    """A complaint with the file, and the line where the setting stands.

    Args:
        message: see `of_options`.
        file: TOML or YAML, which is there.
        names: of the settings that it has.
    """
    found = _UNKNOWN.match(message) or _NAME.match(message)
    if found is None:
        return f"{file}: {message}"
    setting = found[found.re.groups]
    line = line_of(file, setting) or line_of(file, given_name(setting, names) or setting)
    return f"{file}: {message}" if line is None else f"{file}, line {line}: {message}"


def given_name(setting: str, given: Collection[str]) -> str | None:
    """Under which of the names that were given a setting was set; None: under none of them.

    Args:
        setting: as a message has it, such as "tracker.0", "pixels.short_side" or "anchors.sizes".
        given: such as "tracker", "short_side", "anchor_sizes".
    """
    from fpn.training.config import MODEL_SETTINGS

    path = _INDEX.sub("", setting)
    for name in (flat_name(path), path.rpartition(".")[2]):
        if name in given:
            return name
    kinds = MODEL_SETTINGS.values()
    return next((name for name in sorted(given) if any(flat_name(path) in kind.get(name, ()) for kind in kinds)), None)


def line_of(file: Path, setting: str) -> int | None:
    """The line of a file at which a setting stands, from 1 on; a path's parts stand one after the other."""
    lines = file.read_text(encoding="utf-8-sig", errors="replace").splitlines()  # of a file that is no text, too
    at = 0
    for part in _INDEX.sub("", setting).split("."):
        name = re.escape(part).replace("_", "[_-]")
        written = re.compile(rf"\s*(\[[\"']?{name}[\"']?\]|[\"']?{name}[\"']?\s*[=:.])")
        found = next((number for number, line in enumerate(lines[at:], start=at) if written.match(line)), None)
        if found is None:
            return None
        at = found
    return at + 1


def _setting(option: str) -> str:
    return option.partition("=")[0].removeprefix("--").removeprefix("no-").replace("-", "_")
