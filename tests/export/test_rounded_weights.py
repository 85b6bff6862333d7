"""A bias makes up for what rounding weights changes in the mean."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="needs the extra export")
import onnx
from onnx import helper, numpy_helper

from fpn.export.rounded_weights import depthwise, make_up, mean_change


def test_a_mean_changes_by_what_weights_lose_times_what_goes_in():
    full = np.array([[[[0.5, 0.25]], [[0.0, -0.25]]]])  # one output of two inputs, a kernel of 1x2
    assert mean_change(full, np.array([2.0, 4.0])).tolist() == [0.75 * 2 - 0.25 * 4]
    each = np.array([[[[0.5]]], [[[0.25]]]])  # two channels, each of its own
    assert mean_change(each, np.array([2.0, 4.0])).tolist() == [1, 1]
    layer = np.array([[0.5, 0.25]])
    assert mean_change(layer, np.array([2.0, 4.0])).tolist() == [2]


def _model(values: dict[str, np.ndarray]) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["fine", "weight", "bias"], ["a"]),
        helper.make_node("Conv", ["coarse", "weight", "bias"], ["b"]),
        helper.make_node("Conv", ["fine", "other"], ["c"]),
    ]
    tensors = [numpy_helper.from_array(value, name) for name, value in values.items()]
    return helper.make_model(helper.make_graph(nodes, "tests", [], [], tensors))


def test_layers_that_share_a_bias_share_the_mean_of_what_each_would_need():
    own = {
        "weight": np.array([[[[1.25]]]], np.float32),
        "bias": np.array([10], np.float32),
        "other": np.array([[[[3]]]], np.float32),
    }
    model = _model(own)
    rounded = _model({"weight_quantized": np.array([[[[2]]]], np.int8), "weight_scale": np.array([0.5], np.float32)})
    make_up(model, rounded, {"fine": np.array([2.0]), "coarse": np.array([6.0])})
    biases = {value.name: numpy_helper.to_array(value).tolist() for value in model.graph.initializer}
    assert biases["bias"] == [11]  # 1.25 has become 1: 0.25 * 2 and 0.25 * 6 are lost, 1 in the mean
    assert biases["weight"] == [[[[1.25]]]]


def test_depthwise_convolutions_read_one_channel_each():
    values = {"weight": np.zeros((4, 1, 3, 3), np.float32), "other": np.zeros((4, 2, 1, 1), np.float32)}
    model = _model(values)
    names = {value.name: value for value in model.graph.initializer}
    assert set(depthwise(model.graph.node, names)) == {"weight"}
