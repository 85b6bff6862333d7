"""A file whose layers work with 8-bit whole numbers, as near to the model's AP as is asked for.

ONNX Runtime's static quantization: ranges of what goes through the network are taken from images, weights are rounded
channel by channel to seven bits, so that sums of sixteen bits do not overflow on processors without VNNI. OpenVINO
reads the same file and finds its own 8-bit layers in it.
Preprocessing, the heads' last layers, NMS and RoIAlign stay float32, and so does what costs too much AP, one group of
layers after the other.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from PIL import Image

from fpn.detectors.detector import Detector
from fpn.errors import ConfigError, ModelFileError
from fpn.export.certificate import Certificate, certify
from fpn.export.exported import ExportedDetector
from fpn.export.exporting import ENDINGS, certificate_path, check_openvino, check_place, put
from fpn.export.header import ExportFormat, GraphInfo
from fpn.export.loading import RUNTIMES
from fpn.export.onnx_file import build_onnx, save_onnx
from fpn.export.openvino_file import save_openvino
from fpn.export.ranges import LAYERS, Observed, eight_bit_nodes, observe
from fpn.export.rounded_weights import depthwise, make_up
from fpn.files import write_text

# Of AP, 0..1, so much may be lost.
MOST_LOST = 0.005
# What such files say of themselves: 8-bit weights would be right on the first of these alone.
PROCESSORS: Mapping[ExportFormat, str] = {
    "onnx": "weights of 7 bits (depthwise: 8): right with VNNI, with AVX2 or AVX-512 alone, and on ARM",
    "openvino": "weights of 7 bits (depthwise: 8): measured with VNNI; elsewhere fpn evaluate tells",
}
_LAST_LAYERS = ("scores", "deltas", "objectness", "quality", "logits")
_DEPTHWISE = "conv_dw"
# In the names of timm's networks. What is lost here goes through all that follows.
_STEM, _FIRST = (".conv_stem.", ".blocks.0.", ".net.conv1."), (".blocks.1.", ".blocks.2.", ".net.layer1.")
# What is left in float32, the least first; told by a weight's name, as the graph has it. Each has the one before in it.
_GROUPS: Mapping[str, Callable[[str], bool]] = {
    "the last layers of the heads": lambda weight: any(f".{last}." in weight for last in _LAST_LAYERS),
    "the backbone's stem": lambda weight: any(part in weight for part in _STEM),
    "its first stages": lambda weight: any(part in weight for part in _FIRST),
    "depthwise convolutions": lambda weight: _DEPTHWISE in weight,
    "the heads": lambda weight: ".features." not in weight,
    "the neck": lambda weight: ".features.neck." in weight,
}
Measure = Callable[[Detector], Mapping[str, float]]


@dataclass(frozen=True)
class Int8Trial:
    """What came of leaving some layers in float32.

    Attributes:
        left: which ones, in words.
        layers: how many work with 8 bits.
        of: how many there are.
        ap: AP by what is found, such as "ap" and "mask_ap", 0..1.
        lost: the largest loss of those, 0..1; below 0 it is a gain.
    """

    left: str
    layers: int
    of: int
    ap: Mapping[str, float]
    lost: float

    def __str__(self) -> str:
        found = ", ".join(f"{name} {value:.4f}" for name, value in self.ap.items())
        said = f"{self.layers} of {self.of} layers in int8, left in float32: {self.left}"
        return f"{said}: {found}; {100 * self.lost:.2f} AP are lost"


@dataclass(frozen=True)
class Int8File:
    """What `export_int8` has written.

    Attributes:
        path: the file.
        info: what is in it.
        before: AP of the model, as `Int8Trial.ap`.
        trials: what was tried, the last of them is in the file.
        certificate: how near single detections come; by its tolerances no int8 file is exact.
        certificate_path: where all of this is written, too.
    """

    path: Path
    info: GraphInfo
    before: Mapping[str, float]
    trials: tuple[Int8Trial, ...]
    certificate: Certificate
    certificate_path: Path


def export_int8(
    detector: Detector,
    output: str | os.PathLike[str],
    *,
    calibration: Sequence[Image.Image],
    measure: Measure,
    format: Literal["onnx", "openvino"] = "onnx",
    most_lost: float = MOST_LOST,
    allow_inexact: bool = False,
    replace: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Int8File:
    """Write a detector as a file in int8, once its AP has been measured and is near enough to the model's.

    Args:
        detector: as it was trained, on the CPU.
        output: an `.onnx`; of OpenVINO an `.xml`, whose weights go to a `.bin` beside it.
        calibration: RGB images, which the ranges are taken from: a few dozen as those that the file will see.
        measure: AP of a detector on other images than those, by what is found, 0..1.
        format: which form.
        most_lost: so much of any of them may be lost, 0..1.
        allow_inexact: write the last trial even where more is lost.
        replace: put it in place of a file that is there.
        progress: told what each trial gave.

    Raises:
        ConfigError: a kind or a setting that can't be exported, or no images.
        ModelFileError: more is lost, whatever is left in float32.
        OutputError: as `export_model`.
    """
    path = Path(output)
    check_place(path, format, replace=replace)
    if not calibration:
        raise ConfigError("int8: ranges are taken from images, and there are none")
    if format == "openvino":
        check_openvino(detector, bare=False)
    model, info = build_onnx(detector, bare=False)
    header = {**info.header(detector), "precision": "int8"}
    before, trials = dict(measure(detector)), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_onnx(model, header, folder / "whole.onnx")
        fold_norms(folder / "whole.onnx", folder / "folded.onnx")
        layers = weights_of(folder / "folded.onnx")
        observed = observe(folder / "folded.onnx", calibration)
        for number, (left, kept) in enumerate(choices(layers)):
            quantize(folder / "folded.onnx", folder / "int8.onnx", observed, kept, format=format)
            # OpenVINO maps its weights: what one trial runs can't be written over by the next.
            trial = folder / f"trial{number}{ENDINGS[format]}"
            _write(folder / "int8.onnx", header, trial)
            exported = ExportedDetector(RUNTIMES[trial.suffix](trial, str(path)), header, where=str(path))
            found = dict(measure(exported))
            lost = max(before[key] - found[key] for key in before)
            trials.append(Int8Trial(left, len(layers) - len(kept), len(layers), found, lost))
            progress(str(trials[-1]))
            if trials[-1].lost <= most_lost:
                break
        if trials[-1].lost > most_lost and not allow_inexact:
            raise ModelFileError(
                f"{path}: not written, since int8 loses more than {100 * most_lost:g} AP whatever is left in float32: "
                f"{trials[-1]}. Write it all the same with --allow-inexact, or calibrate on images more like those "
                "that are measured."
            )
        certificate = certify(detector, exported, exported.info.runtime)
        told = {
            "before": before,
            "trials": [asdict(each) for each in trials],
            "images": len(calibration),
            "good_for": PROCESSORS[format],
        }
        header["certificate"] = {**certificate.to_json(), "int8": told}
        written = folder / f"written{ENDINGS[format]}"
        _write(folder / "int8.onnx", header, written)
        put(written, path)
    beside = certificate_path(path)
    write_text(beside, json.dumps(header["certificate"], indent=1) + "\n")
    return Int8File(path, info, before, tuple(trials), certificate, beside)


def _write(quantized: Path, header: Mapping[str, Any], target: Path) -> None:
    """An 8-bit ONNX file with what it shall say about itself, in the form that the target's ending says."""
    if target.suffix == ".xml":
        save_openvino(quantized.read_bytes(), header, target)
    else:
        save_onnx(onnx.load(quantized), header, target)


def fold_norms(source: Path, target: Path) -> None:
    """Write a model with norms folded into convolutions and constants computed, which does the same in float32."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    model = onnx.load(target)
    # It names every set of operators that it knows, some twice, which the quantizer refuses.
    used = {node.domain for node in model.graph.node} | {""}
    versions = {each.domain: each.version for each in model.opset_import if each.domain in used}
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(domain, version) for domain, version in versions.items())
    onnx.save(model, target)


def weights_of(folded: Path) -> dict[str, str]:
    """The layers that can work with 8 bits, and the names of their weights."""
    nodes = onnx.load(folded, load_external_data=False).graph.node
    return {node.name: node.input[1] for node in nodes if node.op_type in LAYERS}


def choices(layers: Mapping[str, str]) -> Iterator[tuple[str, list[str]]]:
    """What may be left in float32, in words and as layers, always more; groups that a network has not are passed over.

    Args:
        layers: see `weights_of`.
    """
    words: list[str] = []
    kept: list[str] = []
    for name, belongs in _GROUPS.items():
        more = [layer for layer, weight in layers.items() if layer in kept or belongs(weight)]
        if len(more) > len(kept):
            words, kept = [*words, name], more
            yield ", ".join(words), kept


def quantize(
    source: Path, target: Path, observed: Observed, kept: Sequence[str], *, format: Literal["onnx", "openvino"] = "onnx"
) -> None:
    """Write a folded model in int8.

    Args:
        source: of `fold_norms`.
        target: the file.
        observed: of `observe`.
        kept: layers that stay float32.
        format: what the file is for.
    """
    model = onnx.shape_inference.infer_shapes(onnx.load(source))
    made_up = onnx.ModelProto()
    made_up.CopyFrom(model)
    make_up(made_up, _rounded(model, observed, kept), observed.means)
    quantized = _rounded(made_up, observed, kept)
    round_before_reshaping(quantized.graph)
    if format == "openvino":
        add_unrounded(quantized.graph)
    onnx.save(quantized, target)


def add_unrounded(graph: onnx.GraphProto) -> None:
    """Sums take what convolutions give before it is rounded.

    OpenVINO (2026.4, AVX-512) computes a convolution together with the sum behind it, and in 8 bits wrongly where it
    has 24 or 40 channels: an EfficientNet-Lite0 found next to nothing so.
    """
    makers = _makers(graph)

    def made_by(name: str, operator: str) -> onnx.NodeProto | None:
        node = makers.get(name)
        return node if node is not None and node.op_type == operator else None

    for node in graph.node:
        for number, name in enumerate(node.input if node.op_type == "Add" else ()):
            back = made_by(name, "DequantizeLinear")
            rounding = None if back is None else made_by(back.input[0], "QuantizeLinear")
            if rounding is not None and made_by(rounding.input[0], "Conv") is not None:
                node.input[number] = rounding.input[0]


def round_before_reshaping(graph: onnx.GraphProto) -> None:
    """What was read of RoIs is rounded as it comes: OpenVINO puts it from channels-last in order with 8 bits then.

    With Lite0 at 320 pixels this took 16 of 88 ms in float32.
    """
    makers = _makers(graph)
    uses: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            uses.setdefault(name, []).append(node)
    behind: dict[str, onnx.NodeProto] = {}
    for rounding in graph.node:
        shaping = makers.get(rounding.input[0]) if rounding.op_type == "QuantizeLinear" else None
        if shaping is None or shaping.op_type != "Reshape" or len(uses[shaping.output[0]]) > 1:
            continue
        (back, *others) = uses[rounding.output[0]]
        if others or back.op_type != "DequantizeLinear":
            continue
        rounding.input[0], shaping.output[0] = shaping.input[0], back.output[0]
        back.output[0] = shaping.input[0] = f"{back.output[0]}/flat"
        behind[back.name] = shaping
    moved = {node.name for node in behind.values()}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.name not in moved:
            nodes += [node, *([behind[node.name]] if node.name in behind else [])]
    del graph.node[:]
    graph.node.extend(nodes)


def _makers(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    """By a value's name what gives it."""
    return {name: node for node in graph.node for name in node.output}


def _rounded(model: onnx.ModelProto, observed: Observed, kept: Sequence[str]) -> onnx.ModelProto:
    """In int8; the model itself is used up."""
    nodes = eight_bit_nodes(model.graph.node, kept)
    # The mean of the images' own limits: the furthest value of all images is one of a kind, and coarsens all others.
    limits = {name: tuple(each.mean(axis=0)) for name, each in observed.ranges.items()}
    values = {value.name: value for value in model.graph.initializer}
    # ONNX Runtime has a kernel of its own for these, whose sums do not overflow.
    whole = {name: [{"axis": 0, "reduce_range": False}] for name in depthwise(nodes, values)}
    quantizer = QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=True,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, limits),
        nodes_to_quantize=[node.name for node in nodes],
        nodes_to_exclude=[],
        op_types_to_quantize=sorted({node.op_type for node in nodes}),
        extra_options={"TensorQuantOverrides": whole},
    )
    quantizer.quantize_model()
    made: onnx.ModelProto = quantizer.model.model
    return made
