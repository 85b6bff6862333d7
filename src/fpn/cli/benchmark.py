"""`fpn benchmark`: this machine, side by side with torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from fpn.cli import bounds, paths
from fpn.cli.terminal import errors, say
from fpn.errors import ConfigError, OutputError
from fpn.training.config import DetectorName

if TYPE_CHECKING:
    from fpn.shapes import Size
    from fpn.studies.benchmark.exported_files import FilesReport
    from fpn.studies.benchmark.running import BenchmarkReport, BenchmarkSettings


def run(
    *,
    detector: DetectorName = "faster_rcnn",
    backbone: str = "resnet50",
    weights: Annotated[str | None, paths.weights("--weights")] = None,
    size: str = "1066x800",
    batch_sizes: Annotated[tuple[int, ...], bounds.FROM_1] = (),
    parts: tuple[Literal["inference", "training", "pooling", "memory"], ...] = (
        "inference",
        "training",
        "pooling",
        "memory",
    ),
    repeats: Annotated[int, bounds.FROM_1] = 5,
    rois: Annotated[int, bounds.FROM_1] = 2048,
    classes: Annotated[int, bounds.FROM_1] = 90,
    channels: Annotated[int, bounds.FROM_1] = 256,
    head_width: Annotated[int, bounds.FROM_1] = 1024,
    compile: bool | None = None,
    threads: Annotated[int | None, bounds.FROM_1] = None,
    device: str | None = None,
    exported: Annotated[tuple[Path, ...], paths.file("--exported")] = (),
    images: Annotated[tuple[str, ...], paths.image_words("--images")] = (),
    output: Path | None = None,
) -> None:
    """Measure speed on this machine: fpn and torchvision in turns, with the same weights and images.

    Inference goes from a JPEG file to boxes in its pixels, with the time of each stage; outputs are compared. Times
    are medians. Everything runs in this process, except that memory on a CPU is measured in a process for each side.

    With --exported, a model and what fpn export made of it are measured instead, on the CPU, and the fastest is named:

    fpn benchmark --exported best.safetensors best.onnx best.xml best.int8.onnx --size 1066x800

    Args:
        detector: Kind of detector; torchvision's of the same name is the other side. Of kinds that it does not have, a
            model is measured alone: --exported MODEL.safetensors.
        backbone: Name of a timm model with four levels, such as tf_efficientnet_lite0.
        weights: Of the backbone: imagenet, offline or a file. None: random.
        size: Of the images, width x height.
        batch_sizes: Images that go through the network together. None: 1; on a GPU 1, 8 and 32.
        parts: What to measure.
        repeats: Turns of each measurement.
        rois: RoIs to pool.
        classes: Of the detectors; of keypoint_rcnn it is always one.
        channels: Width of our pyramid's maps; torchvision's are 256 wide, and only then detections can be compared.
        head_width: Width of our box head's two layers; torchvision's are 1024 wide.
        compile: Also measure torch.compile, on a GPU with CUDA graphs as well. None: on a GPU.
        threads: Of torch on a CPU. None: as torch chooses.
        device: Where to run: cpu, cuda, cuda:1 and so on. None: the GPU if there is one, else the CPU.
        exported: Files of one model, the model itself (which is optimized) first; of the other options --images,
            --size, --batch-sizes (one number), --repeats, --threads and --output go with it.
        images: With --exported, what is measured on: files, folders or globs, of which the first 20 are taken. None:
            noise is drawn.
        output: Also write all figures to this JSON file, and the rows as a table to a .csv beside it. A file that is
            there is replaced only if an earlier `fpn benchmark` wrote it.
    """
    import torch

    from fpn.cli.devices import check_device
    from fpn.studies.benchmark.running import BenchmarkSettings
    from fpn.studies.explain.geometry import read_size

    asked = read_size(size)
    if asked is None:
        raise ConfigError(f"--size {size!r}: expected width x height in pixels, such as 1066x800")
    _refuse_place(output)
    if threads is not None:
        torch.set_num_threads(threads)
    if exported:
        _refuse_others(detector, backbone, weights, parts, rois, classes, channels, head_width, compile, device)
        _run_files(exported, images, asked, batch_sizes, repeats=repeats, output=output)
        return
    _refuse_images(images)
    where = check_device(device) or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    settings = BenchmarkSettings(
        detector=detector,
        backbone=backbone,
        weights=weights,
        size=asked,
        device=where,
        batches=batch_sizes or ((1, 8, 32) if where.type == "cuda" else (1,)),
        repeats=repeats,
        parts=parts,
        compile=compile,
        rois=rois,
        classes=classes,
        channels=channels,
        head_width=head_width,
    )
    _run_pair(settings, output)


def _run_pair(settings: BenchmarkSettings, output: Path | None) -> None:
    from fpn.studies.benchmark.report import text_tables
    from fpn.studies.benchmark.running import run_benchmark

    report = run_benchmark(settings, progress=lambda what: errors().print(f"measuring: {what}"))
    for number, table in enumerate(text_tables(report)):
        if number:
            say()
        say(table.rich())
    if output is not None:
        _save(report, output)


# The values of options that say which detector is made, where none is said.
_OF_PAIRS = (
    "faster_rcnn",
    "resnet50",
    None,
    ("inference", "training", "pooling", "memory"),
    2048,
    90,
    256,
    1024,
    None,
    None,
)
_MOST_IMAGES = 20


def _refuse_others(*values: object) -> None:
    """Stop where an option says another detector than the files do."""
    if values != _OF_PAIRS:
        raise ConfigError("--exported: the files say which detector it is; of the other options see --help")


def _refuse_images(images: tuple[str, ...]) -> None:
    if images:
        raise ConfigError("--images: goes with --exported; detectors with random weights are measured on noise")


def _run_files(
    files: tuple[Path, ...],
    images: tuple[str, ...],
    size: Size,
    batches: tuple[int, ...],
    *,
    repeats: int,
    output: Path | None,
) -> None:
    from fpn.cli.inputs import find_images
    from fpn.studies.benchmark.exported_files import compare_files

    if len(batches) > 1:
        raise ConfigError(f"--batch-sizes {' '.join(map(str, batches))}: one with --exported")
    report = compare_files(
        files,
        images=[source.path for source in find_images(images, own=frozenset())][:_MOST_IMAGES] if images else [],
        size=size,
        batch=batches[0] if batches else 1,
        repeats=repeats,
        progress=lambda what: errors().print(f"measuring: {what}"),
    )
    say(report.table().rich())
    if output is not None:
        _save(report, output)


def _refuse_place(output: Path | None) -> None:
    from fpn.spreadsheets import refuse_others

    refuse_others(output, "fpn benchmark")
    if output is not None and not output.parent.is_dir():
        raise OutputError(f"{output}: its folder does not exist. Make it first.")


def _save(report: BenchmarkReport | FilesReport, output: Path) -> None:
    from fpn.files import write_figures
    from fpn.spreadsheets import beside, write_csv

    write_figures(output, "fpn benchmark", report.to_dict())
    write_csv(beside(output), [{k: v for k, v in vars(row).items() if k != "turns"} for row in report.rows])
    say(f"figures: {output} and {beside(output).name}")
