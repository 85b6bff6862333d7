"""What of a graph works with 8 bits, and between which numbers its values lie."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnxruntime", reason="needs the extra export")
import onnx
from onnx import TensorProto, helper, numpy_helper

from fpn.export.ranges import eight_bit_nodes, observe


def _node(kind: str, name: str, inputs: list[str], **attributes: object) -> onnx.NodeProto:
    """Whose result has its name."""
    return helper.make_node(kind, inputs, [name], name=name, **attributes)


NODES = [
    _node("Cast", "numbers", ["images"], to=TensorProto.FLOAT),
    _node("Transpose", "pixels", ["numbers"], perm=[0, 3, 1, 2]),
    _node("Conv", "first", ["pixels", "weight", "bias"]),
    _node("Clip", "limited", ["first", "zero", "six"]),
    _node("Conv", "second", ["limited", "square", "none"]),
    _node("Add", "sum", ["second", "limited"]),
    _node("Relu", "above", ["sum"]),
    _node("MaxPool", "pooled", ["above"], kernel_shape=[1, 1], strides=[2, 2]),
    _node("Sigmoid", "sure", ["pooled"]),
    _node("Add", "more", ["sure", "zero"]),
]


def _names(left: list[str]) -> list[str]:
    return [node.name for node in eight_bit_nodes(NODES, left)]


def test_what_follows_layers_works_with_8_bits_and_what_has_other_arithmetic_does_not():
    assert _names([]) == ["first", "limited", "second", "sum", "above", "pooled"]
    assert _names(["sum"]) == ["first", "limited", "second"]
    assert _names(["first"]) == ["second"]  # the sum has one part of two


def test_a_limit_stays_where_what_is_before_it_is_used_elsewhere():
    nodes = [*NODES, _node("Sigmoid", "again", ["first"])]
    assert [node.name for node in eight_bit_nodes(nodes, [])] == ["first", "second"]


def _graph() -> onnx.ModelProto:
    one = np.ones((2, 3, 1, 1), np.float32)
    square = np.eye(2, dtype=np.float32)[:, :, None, None]
    values = {
        "weight": one,
        "bias": np.array([-10, 0], np.float32),
        "square": square,
        "none": np.zeros(2, np.float32),
        "zero": np.float32(0),
        "six": np.float32(6),
    }
    return helper.make_model(
        helper.make_graph(
            NODES,
            "tests",
            [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", "h", "w", 3])],
            [helper.make_tensor_value_info("more", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )


def test_ranges_are_those_of_each_image_and_hold_0_and_means_are_of_all(tmp_path):
    onnx.save(_graph(), tmp_path / "a.onnx")
    images = [Image.new("RGB", (3, 2), (1, 1, 1)), Image.new("RGB", (2, 2), (1, 2, 5))]
    found = observe(tmp_path / "a.onnx", images)
    assert list(found.ranges) == ["pixels", "first", "limited", "second", "sum", "above", "pooled"]
    assert found.ranges["pixels"].tolist() == [[0, 1], [0, 5]]
    assert found.ranges["first"].tolist() == [[-7, 3], [-2, 8]]  # 3 - 10 and 3; 8 - 10 and 8
    assert found.ranges["limited"].tolist() == [[0, 3], [0, 6]]
    assert found.ranges["sum"].tolist() == [[0, 6], [0, 12]]
    assert found.means["pixels"].tolist() == pytest.approx([1, 1.4, 2.6])  # of 6 and 4 pixels
    assert found.means["limited"].tolist() == pytest.approx([0, 4.2])
