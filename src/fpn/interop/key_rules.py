"""Small ordered tables that turn a toolkit's names into ours, and the loading that checks them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from fpn.errors import ModelFileError
from fpn.interop.imported import State

# Pattern of a whole name -> its new name, tried in order; None: known, and not needed.
Rules = Sequence[tuple[str, str | None]]


def rename(state: State, rules: Rules) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Names and values that a rule renames, and the names that are left over."""
    renamed: dict[str, Tensor] = {}
    leftover: list[str] = []
    for name, value in state.items():
        new = new_name(name, rules)
        if new is None:
            leftover.append(name)
        else:
            renamed[new] = value
    return renamed, tuple(leftover)


def new_name(name: str, rules: Rules) -> str | None:
    """What the first rule that fits a name makes of it; None: nothing, or no rule fits."""
    for pattern, replacement in rules:
        found = re.fullmatch(pattern, name)
        if found:
            return None if replacement is None else found.expand(replacement)
    return None


# What the patterns of rules are made of: an optional group, a group, an escaped character, any other.
_PIECES = re.compile(r"\(\?:(.+?)\)\?|\(([^()]+)\)|\\(.)|(.)")
_REFERENCE = re.compile(r"\\(\d)")


def inverted(rules: Rules) -> Rules:
    """Rules that turn names back, in the same order. What is optional in a pattern is written.

    Patterns may have plain text, groups that are not nested, and optional groups that don't count.
    """
    return tuple(_inverse(pattern, replacement) for pattern, replacement in rules if replacement is not None)


def _inverse(pattern: str, replacement: str) -> tuple[str, str]:
    groups = [found[2] for found in _PIECES.finditer(pattern) if found[2]]
    pieces = _REFERENCE.split(replacement)  # text, number of a group, text, ...
    back = "".join(f"({groups[int(piece) - 1]})" if k % 2 else re.escape(piece) for k, piece in enumerate(pieces))
    places = {int(number): place for place, number in enumerate(pieces[1::2], 1)}
    counted = iter(range(1, len(groups) + 1))

    def written(found: re.Match[str]) -> str:
        optional, group, escaped, plain = found.groups()
        if group:
            return rf"\{places[next(counted)]}"
        return re.sub(r"\\(.)", r"\1", optional) if optional else str(escaped or plain)

    return back, _PIECES.sub(written, pattern)


def mark_normed(state: State) -> dict[str, Tensor]:
    """Tell convolutions that carry a norm, in Detectron2's names: beside `stem.norm.weight`, `stem.weight` becomes
    `stem.normed.weight`, so that a rule can send the two into one sequence."""
    stems = {name.rpartition(".norm.")[0] for name in state if ".norm." in name}
    marked: dict[str, Tensor] = {}
    for name, value in state.items():
        stem, _, leaf = name.rpartition(".")
        marked[f"{stem}.normed.{leaf}" if stem in stems else name] = value
    return marked


def unmarked(names: Iterable[str]) -> tuple[str, ...]:
    """Names as they were before `mark_normed`."""
    return tuple(name.replace(".normed.", ".") for name in names)


# Where weights that are missing are noted, while that is no error.
_missing: ContextVar[list[str] | None] = ContextVar("_missing", default=None)


@contextmanager
def noting_missing(*, allowed: bool) -> Iterator[list[str]]:
    """Inside, `fill_module` leaves weights that are missing as they are, and notes their names; or not at all."""
    names: list[str] = []
    token = _missing.set(names if allowed else None)
    try:
        yield names
    finally:
        _missing.reset(token)


def fill_module(module: nn.Module, state: State, *, toolkit: str) -> None:
    """Put weights into a module, all of them and into all of it.

    Raises:
        ModelFileError: a weight is missing, has another shape, or is one too many.
    """
    own = module.state_dict()
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    noted = _missing.get()
    if noted is not None:
        noted += missing
    elif missing:
        raise ModelFileError(f"{toolkit} weights: nothing for {_some(missing)}. Is the file whole?")
    unknown = [name for name in state if name not in own]
    if unknown:
        raise ModelFileError(f"{toolkit} weights: no place for {_some(unknown)}. This variant is not supported.")
    for name, value in state.items():
        if own[name].shape != value.shape:
            raise ModelFileError(
                f"{toolkit} weights: {name} has shape {tuple(value.shape)}, expected {tuple(own[name].shape)}. "
                "This variant is not supported."
            )
        if value.is_floating_point() and not value.is_meta and not bool(value.isfinite().all()):
            raise ModelFileError(f"{toolkit} weights: {name} holds numbers that are not finite. Is the file whole?")
    with torch.no_grad():
        for name, value in state.items():
            own[name].copy_(value)


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
