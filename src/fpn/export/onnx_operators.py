"""`operators` in ONNX's own words.

Source: https://onnx.ai/onnx/operators, opset 18, which PyTorch's own translations are written in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from onnxscript import BOOL, FLOAT, INT64, script
from onnxscript import opset18 as op

from fpn.export.operators import NEVER

OPSET = 18


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """What `torch.onnx.export` takes as `custom_translation_table`."""
    return {
        torch.ops.fpn.best.default: _best,
        torch.ops.fpn.nms_mask.default: _nms_mask,
        torch.ops.fpn.soft_nms.default: _soft_nms,
        torch.ops.fpn.keypoint_peaks.default: _keypoint_peaks,
    }


def _best(scores: Any, count: int) -> tuple[Any, Any]:
    """(B, n) -> (B, count), (B, count): with padding behind the scores there are always so many."""
    wanted = op.Constant(value_ints=[count])
    shape = op.Concat(op.Shape(scores, start=0, end=1), wanted, axis=0)
    filled = op.Concat(scores, op.Expand(op.Constant(value_float=NEVER), shape), axis=1)
    values, place = op.TopK(filled, wanted, axis=1)
    return values, op.Min(place, op.Sub(op.Shape(scores, start=1, end=2), op.Constant(value_ints=[1])))


def _nms_mask(boxes: Any, scores: Any, threshold: float, least: float) -> Any:
    """(G, M, 4), (G, C, M) -> (G, C, M) bool: what is selected is written as ones into zeros."""
    most = op.Constant(value_ints=[2**31 - 1])
    selected = op.NonMaxSuppression(
        boxes, scores, most, op.Constant(value_floats=[_not_above(threshold)]), op.Constant(value_floats=[least])
    )
    zeros = op.ConstantOfShape(op.Shape(scores))
    first = op.Gather(selected, op.Constant(value_int=0), axis=1)
    ones = op.Add(op.Cast(op.Mul(first, op.Constant(value_int=0)), to=1), op.Constant(value_float=1.0))
    return op.Cast(op.ScatterND(zeros, selected, ones), to=9)


def _not_above(threshold: float) -> float:
    """As float32 has it, or the number before: an IoU is above 0.6 where it is 0.6 in float32, which is 0.60000002."""
    nearest = np.float32(threshold)
    return float(nearest if float(nearest) <= threshold else np.nextafter(nearest, np.float32(-np.inf)))


def _soft_nms(
    boxes: Any,
    scores: Any,
    labels: Any,
    gaussian: bool,
    threshold: float,
    sigma: float,
    lowest: float,
    limit: int,
    plus_one: bool,
) -> Any:
    """As `operators.soft_nms_picks`; what takes no part is left out first, so that the loop's steps are small."""
    chosen = op.Cast(op.GreaterOrEqual(scores, op.Constant(value_float=0.0)), to=7)
    counts = op.ReduceSum(chosen, op.Constant(value_ints=[1]), keepdims=0)
    most = op.Max(op.ReduceMax(counts, keepdims=1), op.Constant(value_ints=[1]))
    left, place = op.TopK(scores, most, axis=1)
    spread = op.Add(op.Unsqueeze(place, op.Constant(value_ints=[2])), op.Constant(value_ints=[0, 0, 0, 0]))
    boxes = op.GatherElements(boxes, spread, axis=1)
    labels = op.GatherElements(labels, place, axis=1)
    numbers = [op.Constant(value_float=each) for each in (float(plus_one), threshold, sigma, lowest)]
    decay, count = op.Cast(op.Constant(value_int=int(gaussian)), to=9), op.Constant(value_int=limit)
    picks, kept = _soft_nms_loop(boxes, left, labels, decay, *numbers, count)
    return op.GatherElements(place, picks, axis=1), kept


@script()  # type: ignore[untyped-decorator]
def _soft_nms_loop(
    boxes: FLOAT[...],
    scores: FLOAT[...],
    labels: FLOAT[...],
    gaussian: BOOL,
    more: FLOAT,
    threshold: FLOAT,
    sigma: FLOAT,
    lowest: FLOAT,
    limit: INT64,
) -> tuple[INT64[...], FLOAT[...]]:
    """One pick after the other; all others of its class lose by their overlap with it."""
    zero, one, nothing = op.Constant(value_float=0.0), op.Constant(value_float=1.0), op.Constant(value_float=-1.0)
    smallest = op.Constant(value_float=1e-30)
    axis, four = op.Constant(value_ints=[2]), op.Constant(value_ints=[0, 0, 0, 0])
    columns = op.Range(op.Constant(value_int=0), op.Squeeze(op.Shape(scores, start=1, end=2)), op.Constant(value_int=1))
    places = op.Range(op.Constant(value_int=0), limit, op.Constant(value_int=1))
    whole = op.Concat(op.Shape(scores, start=0, end=1), op.Reshape(limit, op.Constant(value_ints=[1])), axis=0)
    x1, y1, x2, y2 = op.Split(boxes, axis=2, num_outputs=4)
    areas = op.Max(x2 - x1 + more, zero) * op.Max(y2 - y1 + more, zero)
    picks = op.Expand(op.Constant(value_ints=[0]), whole)
    kept = op.Cast(picks, to=1) + nothing
    left = op.Identity(scores)
    for i in range(limit):
        best = op.ArgMax(left, axis=1, keepdims=1)
        score = op.GatherElements(left, best, axis=1)
        u1, v1, u2, v2 = op.Split(
            op.GatherElements(boxes, op.Unsqueeze(best, axis) + four, axis=1), axis=2, num_outputs=4
        )
        width = op.Max(op.Min(x2, u2) - op.Max(x1, u1) + more, zero)
        height = op.Max(op.Min(y2, v2) - op.Max(y1, v1) + more, zero)
        shared = width * height
        area = op.Max(u2 - u1 + more, zero) * op.Max(v2 - v1 + more, zero)
        overlap = op.Squeeze(shared / op.Max(area + areas - shared, smallest), axis)
        steep = op.Exp(op.Neg(overlap * overlap / sigma))
        straight = op.Where(overlap < threshold, one, one - overlap)
        factor = op.Where(labels == op.GatherElements(labels, best, axis=1), op.Where(gaussian, steep, straight), one)
        lowered = left * factor
        picks = op.Where(places == i, best, picks)
        kept = op.Where(places == i, score, kept)
        left = op.Where(op.Or(lowered < lowest, columns == best), nothing, lowered)
        over = op.Not(op.ReduceMax(left, keepdims=0) > nothing)
        if over:
            break
    return picks, kept


def _keypoint_peaks(maps: Any, boxes: Any, probability: bool) -> Any:
    """(R, J, S, S), (R, 4) -> (R, J, 3)."""
    return _peaks_loop(maps, boxes, op.Cast(op.Constant(value_int=int(probability)), to=9))


@script()  # type: ignore[untyped-decorator]
def _peaks_loop(maps: FLOAT[...], boxes: FLOAT[...], probability: BOOL) -> FLOAT[...]:
    """Box after box: its maps as fine as its pixels (bicubic), and the largest value's place; as `ops.heatmaps`."""
    one, half = op.Constant(value_float=1.0), op.Constant(value_float=0.5)
    first, second, last = op.Constant(value_ints=[0]), op.Constant(value_ints=[1]), op.Constant(value_ints=[-1])
    count = op.Squeeze(op.Shape(boxes, start=0, end=1))
    numbers = op.Reshape(
        op.Range(op.Constant(value_int=0), count, op.Constant(value_int=1)), op.Constant(value_ints=[-1, 1, 1])
    )
    shape = op.Concat(op.Shape(maps, start=0, end=2), op.Constant(value_ints=[3]), axis=0)
    points = op.Expand(op.Constant(value_float=0.0), shape)
    for i in range(count):
        box = op.Gather(boxes, i, axis=0)
        side = op.Max(
            op.Slice(box, op.Constant(value_ints=[2]), op.Constant(value_ints=[4]))
            - op.Slice(box, first, op.Constant(value_ints=[2])),
            one,
        )
        cells = op.Ceil(side)
        width, height = op.Split(op.Cast(cells, to=7), axis=0, num_outputs=2)
        own = op.Gather(maps, i, axis=0)
        joints = op.Shape(own, start=0, end=1)
        fine = op.Resize(
            op.Unsqueeze(own, first),
            None,
            None,
            op.Concat(second, joints, height, width, axis=0),
            mode="cubic",
            cubic_coeff_a=-0.75,
            coordinate_transformation_mode="half_pixel",
        )
        flat = op.Reshape(fine, op.Concat(joints, last, axis=0))
        best = op.ArgMax(flat, axis=1, keepdims=1)
        largest = op.GatherElements(flat, best, axis=1)
        column, row = op.Cast(best - (best / width) * width, to=1), op.Cast(best / width, to=1)
        place = op.Concat(column, row, axis=1) + half
        place = place * (side / cells) + op.Slice(box, first, op.Constant(value_ints=[2]))
        told = op.Reciprocal(
            op.ReduceSum(op.Exp(op.Reshape(own, op.Concat(joints, last, axis=0)) - largest), second, keepdims=1)
        )
        found = op.Concat(place, op.Where(probability, told, largest), axis=1)
        points = op.Where(numbers == i, found, points)
    return points
