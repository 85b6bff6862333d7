"""`fpn export`: a model as a file for other runtimes, or in another toolkit's form."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from rich.text import Text

from fpn.cli import bounds, paths
from fpn.cli.terminal import errors, say, say_warning
from fpn.errors import ConfigError
from fpn.wording import counted

if TYPE_CHECKING:
    from fpn.detectors import Detector
    from fpn.export.header import ExportFormat
    from fpn.interop.exporting import WeightsFormat

# Of a folder so many images are compared.
_MOST_IMAGES = 20
# So many are quantization's ranges taken from.
_MOST_CALIBRATION = 64


def run(
    model: Annotated[Path, paths.MODEL],
    /,
    *,
    format: Literal["onnx", "openvino", "torch", "torchvision", "detectron2"],
    output: Path,
    images: Annotated[tuple[str, ...], paths.image_words("--images")] = (),
    bare: Annotated[bool, Parameter(negative=())] = False,
    int8: Annotated[Path | None, paths.dataset("--int8")] = None,
    split: str | None = None,
    max_detections: Annotated[int | None, bounds.FROM_1] = None,
    allow_inexact: Annotated[bool, Parameter(negative=())] = False,
    overwrite: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Write a model for ONNX Runtime, OpenVINO or PyTorch alone, or its weights for torchvision or Detectron2.

    A file for a runtime (extras export, openvino; none for torch) is run at once beside the model, and is refused where
    it finds something else; what was measured stands in it and in a .certificate.json beside it. Batch, height and
    width are open: uint8 RGB images (N, H, W, 3) go in, boxes in their pixels, scores, labels and counts come out. fpn
    predict, fpn evaluate and fpn benchmark --exported take it as they take a model.

    Weights for a toolkit come with what it has to be told; settings that it does not have are named and refused.
    torchvision's own detector is compared live. For example:

    fpn export runs/first/best.safetensors --format onnx --output cells.onnx

    fpn export runs/first/best.safetensors --format torchvision --output cells.pth > cells.py

    Args:
        model: A model file.
        format: onnx: one .onnx file. openvino: an .xml, and a .bin beside it. torch: a .pt2 of torch.export,
            for processes that import fpn. torchvision, detectron2: weights under its names.
        output: The file to write; weights: .pth, as torch.save writes a dict of tensors, or .safetensors.
        images: Images for the comparison: files, folders or globs, of which the first 20 are taken. None: scenes are
            drawn.
        bare: Leave the preprocessor out: pixels as fpn prepares them (N, 3, H, W) and sizes (N, 2) go in, and boxes
            come out in these pixels.
        int8: A labelled set (COCO, VOC, YOLO or LabelMe): layers of an .onnx or of OpenVINO's file work with 8-bit
            whole numbers. Ranges are taken from half of its images, at most 64, and AP is measured on the others
            before and after. Layers go back to float32, group after group, until at most 0.5 AP is lost.
        split: Of that set. None: the images that training held out, else one that it was not trained on.
        max_detections: Most detections of an image that the file gives, which can't be changed later. None: the model's
            own setting.
        allow_inexact: Write the file even where it finds something else than the model; the certificate says so.
        overwrite: Replace a file that is there.
    """
    from fpn.detectors import load
    from fpn.export.loading import RUNTIMES

    if model.suffix in RUNTIMES:
        raise ConfigError(f"{model}: is an exported file. Export the model that it was made of.")
    loaded = partial(load, model, device="cpu", max_detections=max_detections)
    if int8 is not None:
        if (format != "onnx" and format != "openvino") or bare or images:
            raise ConfigError("--int8: goes with --format onnx or openvino, without --bare and --images")
        _export_int8(model, loaded, format, output, int8, split, allow_inexact=allow_inexact, replace=overwrite)
        return
    if split is not None:
        raise ConfigError("--split: goes with --int8")
    if format == "onnx" or format == "openvino" or format == "torch":
        _export_graph(loaded, format, output, images, bare=bare, allow_inexact=allow_inexact, replace=overwrite)
        return
    if images or bare or allow_inexact:
        raise ConfigError(f"--images, --bare, --allow-inexact: weights for {format} have no graph. Leave them out.")
    from fpn.interop.exporting import check_output

    check_output(output, replace=overwrite)
    _export_weights(loaded(), format, output, replace=overwrite)


def _export_graph(
    loaded: Callable[[], Detector],
    format: ExportFormat,
    output: Path,
    images: tuple[str, ...],
    *,
    bare: bool,
    allow_inexact: bool,
    replace: bool,
) -> None:
    from fpn.cli.inputs import find_images
    from fpn.export.exporting import check_extras, check_place, export_model

    check_place(output, format, replace=replace)
    check_extras(format)
    chosen = [source.path for source in find_images(images, own=frozenset())][:_MOST_IMAGES] if images else []
    detector = loaded()
    errors().print("tracing, converting and comparing: this takes a minute or two")
    exported = export_model(
        detector, output, format=format, bare=bare, images=chosen, allow_inexact=allow_inexact, replace=replace
    )
    say(f"{output}: {exported.what_goes_in}; gives {', '.join(exported.info.outputs)}")
    say(str(exported.certificate))
    if not exported.certificate.exact:
        say_warning(f"{output} finds something else than the model, and was allowed to (--allow-inexact)")
    if exported.certificate.empty:
        say_warning(
            "neither finds anything in these images, which proves little: "
            "compare them on yours that show objects (--images, --overwrite)"
        )
    say(f"certificate: {exported.certificate_path}")
    say(f"It takes the model's place: fpn predict {output} IMAGES --output FOLDER")


def _export_int8(
    model: Path,
    loaded: Callable[[], Detector],
    format: Literal["onnx", "openvino"],
    output: Path,
    data: Path,
    split: str | None,
    *,
    allow_inexact: bool,
    replace: bool,
) -> None:
    from fpn.cli.measuring import open_for
    from fpn.evaluation import evaluate
    from fpn.export.exporting import check_extras, check_place

    check_place(output, format, replace=replace)
    check_extras(format)
    from fpn.export.int8 import PROCESSORS, export_int8

    dataset, _ = open_for(
        (model,), data, split, {"images": None, "drop_invalid": True}, doing="calibrating and measuring"
    )
    if len(dataset) < 2:
        found = counted(len(dataset), "image")
        raise ConfigError(
            f"--int8 {data}: {found}, but one is for ranges and another to be measured. Give some dozens."
        )
    detector = loaded()
    first, others = dataset.subset(range(0, len(dataset), 2)), dataset.subset(range(1, len(dataset), 2))
    calibration = [first.image(number) for number in range(min(len(first), _MOST_CALIBRATION))]

    def measure(one: Detector) -> dict[str, float]:
        metrics = evaluate(one, others, workers=0).metrics
        return {name: metrics[name] for name in ("ap", "mask_ap", "keypoint_ap") if name in metrics}

    errors().print(f"ranges from {len(calibration)} images, AP on {len(others)} others: this takes minutes")
    exported = export_int8(
        detector,
        output,
        calibration=calibration,
        measure=measure,
        format=format,
        allow_inexact=allow_inexact,
        replace=replace,
        progress=lambda what: errors().print(what),
    )
    before = ", ".join(f"{name} {value:.4f}" for name, value in exported.before.items())
    say(f"{output}: takes images, uint8 RGB (N, H, W, 3) of any size; gives {', '.join(exported.info.outputs)}")
    say(f"the model: {before}")
    say(str(exported.trials[-1]))
    say(PROCESSORS[format])
    say(str(exported.certificate))
    say(f"certificate: {exported.certificate_path}")


def _export_weights(detector: Detector, format: WeightsFormat, output: Path, *, replace: bool) -> None:
    from fpn.interop import export_weights
    from fpn.interop.proof import compare_live

    exported = export_weights(detector, output, format=format, replace=replace)
    # Comments in both languages, so that all of it can go into a file.
    say(f"# {output}: {len(exported.tensors)} arrays for {exported.format}'s {exported.receiver}")
    if exported.model is not None:
        theirs = exported.model.build()
        theirs.load_state_dict(exported.tensors)
        say(f"# {compare_live(detector, theirs, exported.model.first_label)}")
    say(Text(exported.instructions, no_wrap=True, overflow="ignore"))
    for remark in exported.remarks:
        say_warning(remark)
