"""That types and shapes are checked while tests run: else every signature could lie."""

from __future__ import annotations

import pytest
import torch
from beartype.roar import BeartypeCallHintParamViolation, BeartypeCallHintReturnViolation
from checked_types import check_shapes, check_types
from jaxtyping import Float, TypeCheckError
from torch import Tensor

from fpn.ops.boxes import paired_iou, pairwise_iou
from fpn.shapes import in_pixels
from fpn.structures import Classes


def test_shapes_are_checked_and_a_letter_is_one_number_throughout_a_call() -> None:
    two, three = torch.zeros(2, 4), torch.zeros(3, 4)
    assert pairwise_iou(two, three).shape == (2, 3)
    with pytest.raises(TypeCheckError, match="others"):
        paired_iou(two, three)
    with pytest.raises(TypeCheckError, match="boxes"):
        pairwise_iou(torch.zeros(2, 5), three)


def test_a_shape_of_a_result_is_checked() -> None:
    def double(values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        return torch.cat([values, values])

    with pytest.raises(TypeCheckError, match="return value"):
        check_shapes(double)(torch.zeros(2))


def test_types_of_arguments_and_results_are_checked() -> None:
    def lie() -> int:
        return "three"  # type: ignore[return-value]

    with pytest.raises(BeartypeCallHintParamViolation, match="count"):
        in_pixels("many")  # type: ignore[arg-type]
    with pytest.raises(BeartypeCallHintReturnViolation):
        check_types(lie)()


def test_fields_of_dataclasses_are_checked() -> None:
    with pytest.raises(BeartypeCallHintParamViolation, match="names"):
        Classes(["nut"], (1,))  # type: ignore[arg-type]
