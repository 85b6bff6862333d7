"""Between which numbers the values of an ONNX file's layers lie, taken from images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper
from PIL import Image

# Of a value's name: its least and largest number, 0 among them, in each image.
Ranges: TypeAlias = Mapping[str, NDArray[np.float32]]
LAYERS = ("Conv", "Gemm")
# What stands behind a layer and needs no arithmetic of its own: a limit to what comes out.
_LIMITS = ("Relu", "Clip")
_PASSED_ON = ("MaxPool", "Resize")
SUMS = ("Add",)


def eight_bit_nodes(nodes: Sequence[onnx.NodeProto], left: Iterable[str]) -> list[onnx.NodeProto]:
    """Of a graph's nodes, in its order, those that can work with 8 bits where some layers do not.

    Layers with weights; what limits their results (in the range before it most of 256 steps would be beyond it); sums,
    poolings and enlargements of those.

    Args:
        nodes: of `fold_norms`.
        left: names of layers and sums that stay float32.
    """
    left, known, chosen = frozenset(left), set(), []
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


def find_ranges(folded: Path, images: Iterable[Image.Image]) -> Ranges:
    """The ranges of all that could work with 8 bits, (number of images, 2) each.

    Args:
        folded: of `fold_norms`.
        images: RGB.
    """
    model = onnx.load(folded)
    graph = model.graph
    constants = {value.name for value in graph.initializer}
    chosen = eight_bit_nodes(graph.node, ())
    names = [*dict.fromkeys(name for node in chosen for name in (node.input[0], *node.output) if name not in constants)]
    graph.initializer.extend(
        [
            helper.make_tensor("ranges/flat", onnx.TensorProto.INT64, [1], [-1]),
            helper.make_tensor("ranges/zero", onnx.TensorProto.FLOAT, [1], [0.0]),
        ]
    )
    del graph.output[:]
    for number, name in enumerate(names):
        _measure(graph, name, f"ranges/{number}")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = [session.run(None, {"images": np.array(image)[None]}) for image in images]
    whole = np.array(found, dtype=np.float32).reshape(len(found), len(names), 2)
    return {name: whole[:, number] for number, name in enumerate(names)}


def _measure(graph: onnx.GraphProto, name: str, prefix: str) -> None:
    """Give out a value's least and largest number; 0 is one of them, since there may be no RoIs in an image."""
    flat, more = f"{prefix}/flat", f"{prefix}/more"
    nodes = [
        helper.make_node("Reshape", [name, "ranges/flat"], [flat]),
        helper.make_node("Concat", [flat, "ranges/zero"], [more], axis=0),
        helper.make_node("ReduceMin", [more], [f"{prefix}/least"], keepdims=0),
        helper.make_node("ReduceMax", [more], [f"{prefix}/most"], keepdims=0),
    ]
    graph.node.extend(nodes)
    outputs: list[Any] = [node.output[0] for node in nodes[2:]]
    graph.output.extend(helper.make_tensor_value_info(each, onnx.TensorProto.FLOAT, []) for each in outputs)
