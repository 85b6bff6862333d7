"""A model file's recipe, checked before anything is built from it: the file may come from anyone."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from fpn.detectors.dialect import Dialect

# Far beyond any detector; numbers above cost memory or time, or are typing errors.
_LARGEST = 1e7
_MAX_CLASSES = 100_000
# Numbers of a dialect that divide or count, so that 0 and less make no sense.
_POSITIVE = (
    "value_range", "std", "short_side", "long_side", "size_multiple", "norm_epsilon", "pyramid_channels",
    "output_channels", "anchor_sizes", "anchor_ratios", "anchor_strides", "proposal_weights", "box_weights",
    "proposal_channels", "proposals_before_nms", "proposals_after_nms", "anchor_samples", "level_canonical_size",
    "pooled_size", "roi_samples", "detections_limit",
)  # fmt: skip
# An anchor is at least a channel of a layer, a cell of a pooled RoI a few thousand weights.
_MAX_ANCHORS, _MAX_POOLED = 1000, 64

_Name = Annotated[str, Field(max_length=200)]


class Recipe(BaseModel):
    """What a model file says its detector is made of."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    kind: Literal["faster_rcnn"]
    backbone: _Name
    frozen_stages: int = Field(ge=0, le=5)
    frozen_norm: bool
    head_width: int = Field(default=1024, ge=1, le=_LARGEST)
    features: _Name = "fpn"
    classes: tuple[str, ...] = Field(min_length=1, max_length=_MAX_CLASSES)
    category_ids: tuple[int, ...]
    dialect: Dialect


def read_recipe(values: Any) -> Recipe:
    """Check a recipe.

    Raises:
        ValueError: something in it is missing, of another type, or out of range; the message says what.
    """
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'recipe'}: {first['msg']}") from None
    _check_numbers(recipe.dialect)
    return recipe


def _check_numbers(dialect: Dialect) -> None:
    for name, value in asdict(dialect).items():
        for number in _numbers(value):
            if not math.isfinite(number) or abs(number) > _LARGEST or (name in _POSITIVE and number <= 0):
                raise ValueError(f"dialect.{name}: {number!r} is out of range")
    anchors = sum(map(len, dialect.anchor_sizes)) * len(dialect.anchor_ratios)
    if not 0 < anchors <= _MAX_ANCHORS or dialect.pooled_size > _MAX_POOLED:
        raise ValueError(f"dialect: {anchors} anchors and a pooled size of {dialect.pooled_size} are out of range")


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, tuple):
        for each in value:
            yield from _numbers(each)
    elif isinstance(value, int | float):
        yield value


def known_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a dialect among `values`: a newer file may have more."""
    known = {field.name for field in fields(Dialect)}
    return {name: value for name, value in values.items() if name in known}


@contextmanager
def parameter_limit(numbers: int) -> Iterator[None]:
    """Stop building with a ValueError when modules have registered more than `numbers` weights and buffers.

    A layer reserves its memory, is registered, and only then filled: what is too large never really takes its memory.
    """
    builder, total = threading.get_ident(), 0

    def count(_module: nn.Module, _name: str, tensor: Tensor | None) -> None:
        nonlocal total
        if tensor is None or threading.get_ident() != builder:
            return
        total += tensor.numel()
        if total > numbers:
            raise ValueError("its recipe describes a larger detector than it has weights for")

    hooks = [
        register(count)
        for register in (register_module_parameter_registration_hook, register_module_buffer_registration_hook)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
