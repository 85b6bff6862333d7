from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder

from fpn.ops.box_coding import decode, encode
from fpn.ops.boxes import clip
from ops.given_boxes import QUICK, box_tables

REFERENCE = torch.tensor([[10.0, 20.0, 30.0, 60.0]])  # 20 x 40 around (20, 40)


def test_deltas_are_shifts_in_widths_and_logarithms_of_growth() -> None:
    box = torch.tensor([[15.0, 20.0, 55.0, 60.0]])  # 40 x 40 around (35, 40)
    expected = torch.tensor([[15 / 20, 0.0, math.log(2), 0.0]])
    torch.testing.assert_close(encode(box, REFERENCE), expected)
    torch.testing.assert_close(decode(expected, REFERENCE), box)


def test_weights_multiply_deltas() -> None:
    box = torch.tensor([[15.0, 20.0, 55.0, 60.0]])
    weights = (10.0, 20.0, 5.0, 3.0)
    expected = torch.tensor([[7.5, 0.0, 5 * math.log(2), 0.0]])
    torch.testing.assert_close(encode(box, REFERENCE, weights=weights), expected)
    torch.testing.assert_close(decode(expected, REFERENCE, weights=weights), box)


def test_legacy_counts_the_last_pixel_and_grows_by_one() -> None:
    # The reference is 21 x 41 around (20.5, 40.5), the box 42 x 41 around (36, 40.5).
    box = torch.tensor([[15.0, 20.0, 56.0, 60.0]])
    expected = torch.tensor([[15.5 / 21, 0.0, math.log(2), 0.0]])
    torch.testing.assert_close(encode(box, REFERENCE, legacy_plus_one=True), expected)
    unchanged = decode(torch.zeros(1, 4), REFERENCE, legacy_plus_one=True)
    assert unchanged.tolist() == [[10.0, 20.0, 31.0, 61.0]]


def test_clamp_limits_growth() -> None:
    deltas = torch.tensor([[0.0, 0.0, 9.0, 9.0]])
    grown = decode(deltas, torch.tensor([[-8.0, -8.0, 8.0, 8.0]]))
    torch.testing.assert_close(grown, torch.tensor([[-500.0, -500.0, 500.0, 500.0]]))
    free = decode(deltas, torch.tensor([[-8.0, -8.0, 8.0, 8.0]]), clamp=None)
    torch.testing.assert_close(free[0, 2], torch.tensor(8 * math.exp(9)))
    tight = decode(deltas, torch.tensor([[-8.0, -8.0, 8.0, 8.0]]), clamp=math.log(2))
    torch.testing.assert_close(tight[0, 3], torch.tensor(16.0))


def test_clamp_is_of_unweighted_deltas() -> None:
    deltas = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    grown = decode(deltas, torch.tensor([[-8.0, -8.0, 8.0, 8.0]]), weights=(1.0, 1.0, 10.0, 10.0))
    torch.testing.assert_close(grown[0, 2], torch.tensor(8 * math.e))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("clamp", [None, math.log(1000 / 16)])
def test_huge_deltas_and_empty_references_never_become_nan(clamp: float | None, legacy: bool) -> None:
    references = torch.tensor([[5.0, 5.0, 5.0, 5.0], [0.0, 0.0, 1000.0, 1000.0]])
    for huge in (1e4, -1e4, 3e38, -3e38):
        boxes = decode(torch.full((2, 4), huge), references, clamp=clamp, legacy_plus_one=legacy)
        assert not boxes.isnan().any()
        assert clip(boxes, 100, 100).isfinite().all()


@pytest.mark.parametrize("legacy", [False, True])
def test_boxes_and_references_without_area_have_finite_deltas_and_gradients(legacy: bool) -> None:
    point = torch.tensor([[5.0, 5.0, 5.0, 5.0]], requires_grad=True)
    for deltas in (encode(point, REFERENCE, legacy_plus_one=legacy), encode(REFERENCE, point, legacy_plus_one=legacy)):
        assert deltas.isfinite().all()
        assert torch.autograd.grad(deltas.sum(), point)[0].isfinite().all()


def test_half_precision_is_widened() -> None:
    box = torch.tensor([[1000.0, 1000.0, 1010.0, 1010.0]])  # bfloat16 has steps of 8 and 4 there
    deltas = torch.zeros(1, 4, dtype=torch.bfloat16)
    assert decode(deltas, box).tolist() == box.tolist()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert decode(deltas, box).dtype == torch.float32
        assert encode(box, box + 1).dtype == torch.float32
        assert encode(box + 1, box).tolist() == [[pytest.approx(0.1), pytest.approx(0.1), 0.0, 0.0]]


def test_nothing_to_code_gives_nothing() -> None:
    none = torch.zeros(0, 4)
    assert encode(none, none).shape == (0, 4)
    assert decode(none, none, weights=(10.0, 10.0, 5.0, 5.0)).shape == (0, 4)
    assert decode(torch.zeros(2, 0, 4), torch.zeros(2, 0, 4)).shape == (2, 0, 4)


WEIGHTS = st.sampled_from([(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)])


@QUICK
@given(box_tables(smallest=1.0), box_tables(smallest=1.0), WEIGHTS)
def test_decode_after_encode_is_the_box(boxes: Tensor, references: Tensor, weights: tuple[float, ...]) -> None:
    n = min(len(boxes), len(references))
    deltas = encode(boxes[:n], references[:n], weights=weights)
    again = decode(deltas, references[:n], weights=weights, clamp=None)
    # Relative to the larger of both: float32 holds 7 digits of a shift of a thousand widths.
    torch.testing.assert_close(again, boxes[:n], rtol=1e-5, atol=5e-3)


@QUICK
@given(box_tables(smallest=1.0), box_tables(smallest=1.0))
def test_legacy_decode_after_encode_is_the_box_plus_one(boxes: Tensor, references: Tensor) -> None:
    n = min(len(boxes), len(references))
    deltas = encode(boxes[:n], references[:n], legacy_plus_one=True)
    again = decode(deltas, references[:n], clamp=None, legacy_plus_one=True)
    torch.testing.assert_close(again - torch.tensor([0.0, 0.0, 1.0, 1.0]), boxes[:n], rtol=1e-5, atol=5e-3)


@QUICK
@given(box_tables(smallest=1.0), box_tables(smallest=1.0), WEIGHTS, st.integers(0, 2**31))
def test_coding_equals_torchvisions(boxes: Tensor, references: Tensor, weights: tuple[float, ...], seed: int) -> None:
    n = min(len(boxes), len(references))
    coder = BoxCoder(weights)
    expected = coder.encode_single(boxes[:n], references[:n])
    torch.testing.assert_close(encode(boxes[:n], references[:n], weights=weights), expected, rtol=1e-5, atol=1e-5)
    deltas = torch.randn(n, 4, generator=torch.Generator().manual_seed(seed)) * 3
    expected = coder.decode_single(deltas, references[:n])
    torch.testing.assert_close(decode(deltas, references[:n], weights=weights), expected, rtol=1e-5, atol=1e-3)
