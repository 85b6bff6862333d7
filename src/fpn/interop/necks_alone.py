"""Weights of a neck without a backbone: the widths of the maps that it reads are told by its own weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from fpn.detectors.dialect import TwoStageDialect
from fpn.detectors.presets import adapt_dialect
from fpn.features.extractor import Neck
from fpn.interop.imported import ImportedWeights
from fpn.interop.key_rules import fill_module
from fpn.structures import Level


def incoming_levels(channels: Mapping[int, int]) -> tuple[Level, ...]:
    """Bottom-up levels by their numbers, of these widths."""
    return tuple(Level(f"c{number}", width, 2**number, number) for number, width in sorted(channels.items()))


def fill_neck(
    kind: Callable[..., Neck],
    state: Mapping[str, Tensor],
    levels: Sequence[Level],
    dialect: TwoStageDialect,
    leftover: tuple[str, ...],
    conventions: Mapping[str, Any],
) -> ImportedWeights:
    """A neck with its weights inside.

    Args:
        kind: class of the neck.
        state: our names within the neck.
        levels: of the maps that it reads.
        dialect: conventions, its `neck` among them.
        leftover: names that found no place.
        conventions: fields of the dialect that are not as usual.

    Raises:
        ModelFileError: a weight is missing, has another shape, or is one too many.
    """
    spoken = adapt_dialect(dialect, **conventions)
    neck = kind(levels, config=spoken.neck)
    fill_module(neck, state, toolkit=dialect.name)
    return ImportedWeights(neck.eval(), spoken, leftover)
