"""What goes through an ONNX file's layers: between which numbers it lies, and its means, taken from images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image

LAYERS = ("Conv", "Gemm")
# What stands behind a layer and needs no arithmetic of its own: a limit to what comes out.
_LIMITS = ("Relu", "Clip")
_PASSED_ON = ("MaxPool", "Resize")
SUMS = ("Add",)
# Over which axes a layer's input is averaged, so that its channels are left.
_AXES = {"Conv": (0, 2, 3), "Gemm": (0,)}


@dataclass(frozen=True)
class Observed:
    """What goes through the layers, over images.

    Attributes:
        ranges: of a value's name its least and largest number, 0 among them, in each image: (images, 2).
        means: of the name of what goes into a layer the mean of each channel: (C,); 0 where nothing went in.
    """

    ranges: Mapping[str, NDArray[np.float32]]
    means: Mapping[str, NDArray[np.float64]]


def eight_bit_nodes(nodes: Sequence[onnx.NodeProto], left: Iterable[str]) -> list[onnx.NodeProto]:
    """Of a graph's nodes, in its order, those that can work with 8 bits where some layers do not.

    Layers with weights; what limits their results (in the range before it most of 256 steps would be beyond it); sums,
    poolings and enlargements of those.

    Args:
        nodes: of `fold_norms`.
        left: names of layers and sums that stay float32.
    """
    left, chosen = frozenset(left), []
    known: set[str] = set()
    uses = Counter(name for node in nodes for name in node.input)
    for node in nodes:
        first = node.input[0] if node.input else ""
        if node.name in left:
            continue
        limit = node.op_type in _LIMITS and first in known and uses[first] == 1
        passed_on = node.op_type in _PASSED_ON and first in known
        summed = node.op_type in SUMS and known.issuperset(node.input)
        if node.op_type in LAYERS or limit or passed_on or summed:
            chosen.append(node)
            known.add(node.output[0])
    return chosen


def observe(folded: Path, images: Iterable[Image.Image]) -> Observed:
    """What goes through all that could work with 8 bits.

    Args:
        folded: of `fold_norms`.
        images: RGB.
    """
    model = onnx.load(folded)
    graph = model.graph
    constants = {value.name for value in graph.initializer}
    chosen = eight_bit_nodes(graph.node, ())
    names = [*dict.fromkeys(name for node in chosen for name in (node.input[0], *node.output) if name not in constants)]
    axes = {node.input[0]: _AXES[node.op_type] for node in chosen if node.op_type in LAYERS}
    graph.initializer.extend(
        [
            helper.make_tensor("observed/flat", TensorProto.INT64, [1], [-1]),
            helper.make_tensor("observed/zero", TensorProto.FLOAT, [1], [0.0]),
        ]
    )
    del graph.output[:]
    for number, name in enumerate(names):
        _give_limits(graph, name, f"observed/{number}")
    for number, (name, each) in enumerate(axes.items()):
        _give_sums(graph, name, each, f"observed/means/{number}")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = [session.run(None, {"images": np.array(image)[None]}) for image in images]
    last = 2 * len(names)
    whole = np.array([each[:last] for each in found], dtype=np.float32).reshape(len(found), len(names), 2)
    sums = [[np.asarray(each[last + place], np.float64) for each in found] for place in range(2 * len(axes))]
    return Observed(
        {name: whole[:, number] for number, name in enumerate(names)},
        {
            name: sum(sums[2 * number]) / max(sum(shape[list(axes[name])].prod() for shape in sums[2 * number + 1]), 1)
            for number, name in enumerate(axes)
        },
    )


def _give_limits(graph: onnx.GraphProto, name: str, prefix: str) -> None:
    """Give out a value's least and largest number; 0 is one of them, since there may be no RoIs in an image."""
    flat, more, least, most = (f"{prefix}/{what}" for what in ("flat", "more", "least", "most"))
    graph.node.extend(
        [
            helper.make_node("Reshape", [name, "observed/flat"], [flat]),
            helper.make_node("Concat", [flat, "observed/zero"], [more], axis=0),
            helper.make_node("ReduceMin", [more], [least], keepdims=0),
            helper.make_node("ReduceMax", [more], [most], keepdims=0),
        ]
    )
    graph.output.extend(helper.make_tensor_value_info(each, TensorProto.FLOAT, []) for each in (least, most))


def _give_sums(graph: onnx.GraphProto, name: str, axes: Sequence[int], prefix: str) -> None:
    """Give out the sum of each channel, and the value's shape."""
    over, total, shape = (f"{prefix}/{what}" for what in ("over", "sum", "shape"))
    graph.initializer.append(helper.make_tensor(over, TensorProto.INT64, [len(axes)], axes))
    graph.node.extend(
        [
            helper.make_node("ReduceSum", [name, over], [total], keepdims=0),
            helper.make_node("Shape", [name], [shape]),
        ]
    )
    graph.output.append(helper.make_tensor_value_info(total, TensorProto.FLOAT, ["c"]))
    graph.output.append(helper.make_tensor_value_info(shape, TensorProto.INT64, ["n"]))
