"""What rounding a layer's weights changes in its mean result, and a bias that makes up for it.

A channel's few weights (nine of a depthwise convolution) are not rounded up as often as down, and what goes in is
mostly above 0: its result moves as a whole, layer after layer.

Source: Nagel et al. 2019, arXiv:1906.04721, section 4.2; means are taken from images, as in its appendix D.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from fpn.export.ranges import LAYERS


def make_up(model: onnx.ModelProto, rounded: onnx.ModelProto, means: Mapping[str, NDArray[np.float64]]) -> None:
    """Change a model's biases, so that it gives its own mean results once its weights are rounded.

    Args:
        model: in float32; it is changed.
        rounded: what quantization makes of it.
        means: of what goes into its layers, see `Observed`.
    """
    values = {value.name: value for value in model.graph.initializer}
    theirs = {value.name: value for value in rounded.graph.initializer}
    shifts: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    for node in model.graph.node:
        if node.op_type not in LAYERS or len(node.input) < 3 or f"{node.input[1]}_quantized" not in theirs:
            continue
        weight = numpy_helper.to_array(values[node.input[1]])
        steps, scale = (numpy_helper.to_array(theirs[f"{node.input[1]}_{part}"]) for part in ("quantized", "scale"))
        lost = weight - steps * scale.reshape(-1, *[1] * (weight.ndim - 1)).astype(np.float64)
        shifts[node.input[2]].append(mean_change(lost, means[node.input[0]]))
    for name, each in shifts.items():  # several, where levels share a layer
        bias = numpy_helper.to_array(values[name]) + np.mean(each, axis=0)
        values[name].CopyFrom(numpy_helper.from_array(bias.astype(np.float32), name))


def mean_change(lost: NDArray[np.float64], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """By how much a layer's mean result changes where its weights do.

    Args:
        lost: (out, in, ...) of the weights; of a convolution in groups, `in` are those of one group.
        mean: (all in,) of what goes in.
    """
    outputs, inputs = lost.shape[:2]
    by_channel = lost.reshape(outputs, inputs, -1).sum(axis=2)
    groups = mean.reshape(-1, inputs)
    own = groups[np.arange(outputs) // (outputs // len(groups))]
    changed: NDArray[np.float64] = (by_channel * own).sum(axis=1)
    return changed


def depthwise(nodes: Iterable[onnx.NodeProto], values: Mapping[str, onnx.TensorProto]) -> list[Any]:
    """Names of the weights of convolutions that read one channel each."""
    return [node.input[1] for node in nodes if node.op_type == "Conv" and values[node.input[1]].dims[1] == 1]
