"""A detector's graph as ONNX."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fpn.detectors.detector import Detector
from fpn.errors import MissingExtraError
from fpn.export.graph import DetectorGraph
from fpn.export.header import GraphInfo
from fpn.export.inside import InsidePreprocessor
from fpn.version import __version__

try:
    import onnx
    import onnxscript  # noqa: F401
except ImportError as error:  # pragma: no cover - where the extra is
    raise MissingExtraError(
        f"exporting needs the extra `export` ({error.name} is not installed). Get it with: pip install 'fpn[export]'"
    ) from error
from onnx import compose, helper, inliner

from fpn.export.onnx_operators import OPSET, translations

_PREFIX = "preprocessor/"


def build_onnx(detector: Detector, *, bare: bool) -> tuple[onnx.ModelProto, GraphInfo]:
    """The detector as an ONNX model, in memory.

    Args:
        detector: as it was trained.
        bare: without the preprocessor: network pixels and sizes go in, and boxes are in network pixels.

    Raises:
        ConfigError: a kind or a setting that can't be exported.
    """
    first = None if bare else _preparing(InsidePreprocessor(detector.preprocessor))
    graph = DetectorGraph(detector)
    model = _converted(graph.trace(), ["pixels", "sizes"], list(graph.outputs))
    if first is not None:
        model = _joined(first, model, list(graph.outputs))
    model.producer_name, model.producer_version = "fpn", __version__
    return model, GraphInfo("network" if bare else "original", graph.outputs)


def write_header(model: onnx.ModelProto, header: Mapping[str, Any]) -> None:
    """Write a header into a model, in place of an earlier one."""
    helper.set_model_props(model, {"fpn": json.dumps(header)})


def save_onnx(model: onnx.ModelProto, header: Mapping[str, Any], target: Path) -> None:
    """Write a model with what it shall say about itself to an `.onnx`."""
    write_header(model, header)
    target.write_bytes(model.SerializeToString())


def _preparing(inside: InsidePreprocessor) -> onnx.ModelProto:
    from torch.export import Dim

    images = torch.zeros(2, 50, 70, 3, dtype=torch.uint8)
    shapes = ({0: Dim("batch"), 1: Dim("height"), 2: Dim("width")},)
    with torch.no_grad():
        program = torch.export.export(inside, (images,), dynamic_shapes=shapes, strict=False)
    return _converted(program, ["images"], ["pixels", "sizes", "scales", "limits", "point_scales"])


def _converted(program: torch.export.ExportedProgram, inputs: list[str], outputs: list[str]) -> onnx.ModelProto:
    made = torch.onnx.export(
        program,
        dynamo=True,
        custom_translation_table=translations(),
        opset_version=OPSET,
        input_names=inputs,
        output_names=outputs,
        verbose=False,
        optimize=True,  # OpenVINO does not read what has not had its constants folded
    )
    assert made is not None, "a program gives a model"
    model: onnx.ModelProto = inliner.inline_local_functions(made.model_proto)
    _put_constants_last(model.graph)
    _measure_behind_norms(model.graph)
    _centre(model.graph)
    return model


def _put_constants_last(graph: onnx.GraphProto) -> None:
    """Of sums and products; ONNX Runtime makes a convolution's bias and weights of them in this order alone."""
    known = {value.name for value in graph.initializer}
    for node in graph.node:
        inputs = [name for name in node.input if name]
        loops = any(attribute.HasField("g") for attribute in node.attribute)
        if node.op_type == "Constant" or (inputs and not loops and known.issuperset(inputs)):
            known.update(node.output)
        elif node.op_type in ("Add", "Mul") and node.input[0] in known:
            node.input[:] = [node.input[1], node.input[0]]


def _measure_behind_norms(graph: onnx.GraphProto) -> None:
    """A map's shape is read behind the norm: one that is read before it keeps norm and convolution two."""
    of_channels = {value.name for value in graph.initializer if tuple(value.dims[-2:]) == (1, 1)}
    behind: dict[str, str] = {}
    maps: set[str] = set()
    for node in graph.node:
        if node.op_type == "Conv":
            maps.add(node.output[0])
        elif node.op_type in ("Mul", "Add") and node.input[0] in maps and node.input[1] in of_channels:
            behind.setdefault(node.input[0], node.output[0])
            maps.add(node.output[0])
        elif node.op_type == "Shape":
            while node.input[0] in behind:
                node.input[0] = behind[node.input[0]]


def _centre(graph: onnx.GraphProto) -> None:
    """Take the mean away before a layer norm, which changes nothing but rounding.

    ONNX Runtime has the variance as mean of squares less square of the mean: in even parts of an image, where channels
    are nearly equal, little is left of its digits.
    """
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type == "LayerNormalization":
            name = f"{node.output[0]}/centred"
            over = range(helper.get_node_attr_value(node, "axis"), 0)  # counted from the end
            axes, mean = f"{name}/axes", f"{name}/mean"
            graph.initializer.append(helper.make_tensor(axes, onnx.TensorProto.INT64, [len(over)], [*over]))
            nodes.append(helper.make_node("ReduceMean", [node.input[0], axes], [mean], name=mean))
            nodes.append(helper.make_node("Sub", [node.input[0], mean], [name], name=name))
            node.input[0] = name
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _joined(first: onnx.ModelProto, second: onnx.ModelProto, outputs: list[str]) -> onnx.ModelProto:
    """The preprocessor, then the detector, then boxes brought back to original pixels."""
    # Only of the first: the second one's loops read values from around them, which a prefix would not reach.
    first = compose.add_prefix(first, _PREFIX)
    _prefix_dimensions(first.graph)
    first.ir_version = second.ir_version = min(first.ir_version, second.ir_version)
    links = [(f"{_PREFIX}{name}", name) for name in ("pixels", "sizes")]
    frames = [f"{_PREFIX}{name}" for name in ("scales", "limits", "point_scales")]
    whole = compose.merge_models(first, second, io_map=links, outputs=[*outputs, *frames])
    graph = whole.graph
    told = {value.name: value for value in graph.output}
    del graph.output[:]
    graph.output.extend(told[name] for name in outputs)
    _rename(graph, f"{_PREFIX}images", "images")
    # Boxes divided by the scales and cut off at the image's rim, as `Preprocessor.restore` does.
    _rename(graph, "boxes", "network_boxes", values=False)
    graph.initializer.append(helper.make_tensor(f"{_PREFIX}zero", onnx.TensorProto.FLOAT, [], [0.0]))
    graph.node.extend(
        [
            helper.make_node("Div", ["network_boxes", f"{_PREFIX}scales"], ["scaled_boxes"]),
            helper.make_node("Max", ["scaled_boxes", f"{_PREFIX}zero"], ["inside_boxes"]),
            helper.make_node("Min", ["inside_boxes", f"{_PREFIX}limits"], ["boxes"]),
        ]
    )
    if "keypoints" in outputs:
        _rename(graph, "keypoints", "network_keypoints", values=False)
        graph.node.append(helper.make_node("Div", ["network_keypoints", f"{_PREFIX}point_scales"], ["keypoints"]))
    return whole


def _prefix_dimensions(graph: onnx.GraphProto) -> None:
    """Names of open dimensions are numbered in each graph anew: ONNX Runtime takes those of one name to be equal."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param:
                dimension.dim_param = f"{_PREFIX}{dimension.dim_param}"
    for dimension, name in zip(graph.input[0].type.tensor_type.shape.dim, ("batch", "height", "width"), strict=False):
        dimension.dim_param = name


def _rename(graph: onnx.GraphProto, old: str, new: str, *, values: bool = True) -> None:
    """A value by another name; with `values` also where it enters or leaves the graph."""
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    for value in (*graph.input, *graph.output) if values else ():
        if value.name == old:
            value.name = new
