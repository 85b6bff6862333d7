"""Where numbers are equal OpenVINO decides otherwise than the model, ONNX Runtime and PyTorch's files; here it doesn't.

Its top-k leaves open which of equal scores it takes, and in which order; its stable form takes 200 ms for 1000 of
40 800 scores, 2 s for 1000 of 163 200. So the highest scores are taken as they come, and where two of them are equal,
or one that was left out equals the last, they are taken once more: every score above the last is among the best, of
those equal to it the first ones. Where there are none that takes 0.02 to 0.07 ms a level, where there are some 0.2 to
0.8 ms (one thread, AVX-512).

Its NMS drops a box whose IoU with a better one is the threshold, not only above it: the threshold is the next number.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpn.errors import ConfigError
from fpn.export.operators import LOWEST
from fpn.export.runtimes import TAKEN_AGAIN


def decide_alike(model: Any, openvino: Any) -> None:
    """Change each top-k and NMS of an OpenVINO model, in place.

    Top-k of one alone, which come of ArgMax, take the first as they are; those of the lowest put RoIs in the order in
    which they are read, which nothing depends on.

    Args:
        model: read from ONNX. Its top-k of the highest are of (B, n) float32, best first.
        openvino: the package.

    Raises:
        ConfigError: a top-k takes more than can be told apart in 31 bits.
    """
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        if kind == "NonMaxSuppression":
            threshold = openvino.opset13.constant(_next(node.input_value(3).get_node().data))
            node.input(3).replace_source_output(threshold.output(0))
        elif kind == "TopK" and node.get_attributes()["mode"] == "max" and node.get_output_partial_shape(0)[-1] != 1:
            uses = [output.get_target_inputs() for output in node.outputs()]
            for inputs, output in zip(uses, _either(openvino, node), strict=True):
                for each in inputs:
                    each.replace_source_output(output)
    model.validate_nodes_and_infer_types()


def _next(threshold: NDArray[np.float32]) -> NDArray[np.float32]:
    """The next number; a normal one, as smaller ones can count as 0."""
    above = np.nextafter(threshold, np.float32(np.inf), dtype=np.float32)
    return np.asarray(np.maximum(above, np.finfo(np.float32).tiny))


def _either(openvino: Any, top_k: Any) -> tuple[Any, Any]:
    """Scores and places: as they were taken, or once more where some are equal."""
    op, attributes = openvino.opset13, top_k.get_attributes()
    scores, count = (top_k.input_value(number) for number in (0, 1))
    values, places = top_k.outputs()
    assert (attributes["sort"], attributes["axis"]) == ("value", 1), "best first, of a row"
    kinds = [(scores, [-1, -1]), (values, values.get_partial_shape()), (count, [])]
    again = [op.parameter(shape, each.get_element_type()) for each, shape in kinds]
    there = [op.parameter(each.get_partial_shape(), each.get_element_type()) for each in (values, places)]
    taken = _taken_again(op, *again, kind=places.get_element_type(), many=_takes_many(top_k))
    bodies = [
        openvino.Model([op.result(each) for each in taken], again, "equal"),
        openvino.Model([op.result(each) for each in there], there, "different"),
    ]
    choice = op.if_op(_some_equal(op, scores, values, count).output(0))
    choice.set_friendly_name(f"{top_k.get_friendly_name()}{TAKEN_AGAIN}")
    choice.set_then_body(bodies[0])
    choice.set_else_body(bodies[1])
    # In this order, which `runtimes` reads.
    choice.set_input(scores, again[0], None)
    choice.set_input(values, again[1], there[0])
    choice.set_input(count, again[2], None)
    choice.set_input(places, None, there[1])
    made = [choice.set_output(*pair) for pair in zip(*(body.results for body in bodies), strict=True)]
    # OpenVINO (2026.4) settles shapes ahead, up to where one depends on values, and takes that of the run before for
    # what an If gives. So all rows are cut out of it, as many as a value says.
    rows, start, step = op.shape_of(values), op.constant(np.array([0, 0])), op.constant(np.array([1, 1]))
    first, second = (op.slice(each, start, rows, step).output(0) for each in made)
    return first, second


def _takes_many(top_k: Any) -> bool:
    """Whether it may take more than `_MOST_IN_A_KEY`: also where that is open."""
    lengths = [each.get_partial_shape()[1].get_max_length() for each in (top_k.output(0), top_k.input_value(0))]
    most = min((each for each in lengths if each >= 0), default=_MOST)
    if most > _MOST:
        raise ConfigError(
            f"{most} scores are taken at once: an .xml takes at most {_MOST}. Export to ONNX, or with a lower limit: "
            "rpn.before_nms, dense.before_nms or, with Soft-NMS, rpn.after_nms"
        )
    return most > _MOST_IN_A_KEY


def _some_equal(op: Any, scores: Any, values: Any, count: Any) -> Any:
    """Whether two of (B, k) values are equal, or more of (B, n) scores reach the last one; in any row.

    What is no candidate does not count: padding would always be equal.
    """
    lowest = op.constant(np.float32(LOWEST))
    later = _columns(op, values, 1, _END)
    same = op.logical_and(op.equal(_columns(op, values, 0, -1), later), op.greater(later, lowest))
    last = op.reduce_min(values, _axis(op), True)
    reaching = op.reduce_sum(_whole(op, op.greater_equal(scores, last)), _axis(op), True)
    more = op.logical_and(op.greater(reaching, _whole(op, count)), op.greater(last, lowest))
    return op.logical_or(*(op.reduce_logical_or(each, op.constant(np.array([0, 1])), False) for each in (same, more)))


def _taken_again(op: Any, scores: Any, values: Any, count: Any, *, kind: Any, many: bool) -> tuple[Any, Any]:
    """(B, k) scores and places of the highest of (B, n) scores, which are `values`; of equal ones the earlier.

    `many`: there may be more than `_MOST_IN_A_KEY`.
    """
    last = op.reduce_min(values, _axis(op), True)
    above, level = op.greater(scores, last), op.equal(scores, last)
    room = op.subtract(_whole(op, count), op.reduce_sum(_whole(op, above), _axis(op), True))
    number = op.cumsum(_whole(op, level), op.constant(1))
    kept = op.logical_or(above, op.logical_and(level, op.less_equal(number, room)))
    # Their places, rising: whole numbers, none twice. Were scores no numbers, there would still be so many.
    length = op.gather(op.shape_of(scores, "i32"), op.constant(1), op.constant(0))
    place = op.range(op.constant(np.int32(0)), length, op.constant(np.int32(1)), "i32")
    places = _top_k(op, op.select(kept, place, op.add(place, length)), count, "min").output(1)
    values = op.gather_elements(scores, places, 1)
    best = _top_k(op, values, count, "max")
    # Equal ones lie together now, in any order: a number for each group of them, and within it the earlier first.
    falls = op.less(_columns(op, best.output(0), 1, _END), _columns(op, best.output(0), 0, -1))
    first = _columns(op, best.output(1), 0, 1)
    group = op.cumsum(op.concat([op.subtract(first, first), _whole(op, falls)], 1), op.constant(1))
    order = (_by_group if many else _by_key)(op, group, best.output(1), count)
    return op.gather_elements(values, order, 1), op.convert(op.gather_elements(places, order, 1), kind)


# OpenVINO's whole numbers have 31 bits on a CPU. Up to so many scores, a group and a number make one key; else a digit
# of the group and a number do, which takes 0.02 to 0.3 ms more of 1000 (one thread).
_MOST_IN_A_KEY = 46_340
_DIGIT, _DIGITS = 2**8, 3
_MOST = 2**23


def _by_key(op: Any, group: Any, number: Any, count: Any) -> Any:
    """(B, k) numbers below k, each once, by their groups, which lie together, and within a group rising."""
    key = op.add(op.multiply(group, _whole(op, count)), number)
    return op.gather_elements(number, _top_k(op, key, count, "min").output(1), 1)


def _by_group(op: Any, group: Any, number: Any, count: Any) -> Any:
    """The same: rising, then by the last digit of their groups, by the one before it and the first, as they were."""
    rising = _top_k(op, number, count, "min").output(1)
    order, group = op.gather_elements(number, rising, 1), op.gather_elements(group, rising, 1)
    place, digit = order, op.constant(np.int32(_DIGIT))  # place is 0, 1, 2, ...
    for _ in range(_DIGITS):
        upper = op.divide(group, digit)
        last = op.gather_elements(op.subtract(group, op.multiply(upper, digit)), order, 1)
        key = op.add(op.multiply(last, _whole(op, count)), place)
        order, group = op.gather_elements(order, _top_k(op, key, count, "min").output(1), 1), upper
    return order


_END = 2**31 - 1


def _top_k(op: Any, values: Any, count: Any, mode: str) -> Any:
    return op.topk(values, count, 1, mode, "value", "i32")


def _columns(op: Any, values: Any, start: int, stop: int) -> Any:
    """Of (B, k) those from one to before another."""
    return op.slice(values, *(op.constant(np.array([each])) for each in (start, stop, 1, 1)))


def _whole(op: Any, values: Any) -> Any:
    return op.convert(values, "i32")


def _axis(op: Any) -> Any:
    return op.constant(np.array([1]))
