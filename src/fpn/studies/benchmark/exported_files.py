"""A model and what was exported of it, timed in turns on the same files: from a file to boxes in its pixels."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fpn.detectors import Detector
from fpn.detectors.dialect import TwoStageDialect
from fpn.errors import ConfigError
from fpn.export import load
from fpn.export.exported import ExportedDetector
from fpn.export.loading import load_exported
from fpn.inference.optimize import OptimizedDetector, optimize
from fpn.interop import convert_weights
from fpn.preprocessing.resizing import network_frame
from fpn.runtime.device import has_fast_bf16
from fpn.shapes import Size
from fpn.structures import Detections
from fpn.studies.benchmark.agreement import share_with_twin
from fpn.studies.benchmark.images import draw_noise, refuse_too_little, write_jpegs
from fpn.studies.benchmark.inference import our_detections, their_detections
from fpn.studies.benchmark.machine import describe_machine
from fpn.studies.benchmark.their_models import PAIRED
from fpn.studies.benchmark.torchvision_pair import build_pair
from fpn.studies.benchmark.turns import Side, in_turns
from fpn.studies.tables import TextTable
from fpn.wording import counted

_THEIR_NAME, _IN_BF16 = "torchvision", " --precision bf16"
# Drawn images, where none are given.
DRAWN, DRAWN_SIZE = 4, Size(800, 1066)


@dataclass(frozen=True)
class FileRow:
    """One way to the same detections.

    Attributes:
        name: the file, with " --precision bf16" where it works so; or "torchvision".
        works: what runs it, and how.
        seconds: an image, median of the turns.
        ratio: how many times as fast as the first file.
        their_ratio: how many times as fast as torchvision; None: it was not measured.
        agreement: of the first file's sure detections, the share that it has too; None: it has other weights.
        turns: seconds an image of each turn.
    """

    name: str
    works: str
    seconds: float
    ratio: float
    their_ratio: float | None
    agreement: float | None
    turns: tuple[float, ...]


@dataclass(frozen=True)
class FilesReport:
    """What was measured of several files.

    Attributes:
        machine: date, hardware, versions.
        images: how many, and whose.
        batch: images that go through the network together.
        rows: the files, in the order in which they were named, and torchvision.
        recommended: the name of the fastest row of a file.
        notes: what is absent, and why.
    """

    machine: Mapping[str, object]
    images: str
    batch: int
    rows: tuple[FileRow, ...]
    recommended: str
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        return asdict(self)

    def table(self) -> TextTable:
        """For the terminal."""
        rows = tuple(
            (
                row.name,
                row.works,
                f"{row.seconds * 1e3:.1f} ms",
                f"{row.ratio:.2f}",
                "" if row.their_ratio is None else f"{row.their_ratio:.2f}",
                "" if row.agreement is None else f"{100 * row.agreement:.1f} %",
            )
            for row in self.rows
        )
        turns = len(self.rows[0].turns)
        machine = ", ".join(str(self.machine[name]) for name in ("processor", "vector_instructions"))
        count = self.machine["threads"]
        threads = f"{count} thread{'' if count == 1 else 's'}, load {self.machine.get('load', 'unknown')}"
        told = (
            f"From a file to boxes, {self.images}, {self.batch} at a time; medians of {counted(turns, 'turn')}.",
            f"{machine}, {threads}.",
            f"ratio: how many times as fast as {self.rows[0].name}; twins: of its sure detections, the share that the "
            "other has too, of the same class with IoU > 0.9.",
            f"Fastest here: {self.recommended}.",
        )
        return TextTable(
            title="Exported files",
            columns=("file", "runs as", ">an image", ">ratio", ">to torchvision", ">twins"),
            rows=rows,
            notes=(*told, *self.notes),
        )


def compare_files(
    files: Sequence[Path],
    *,
    images: Sequence[Path] = (),
    size: Size = DRAWN_SIZE,
    batch: int = 1,
    repeats: int = 5,
    progress: Callable[[str], None] = lambda _: None,
) -> FilesReport:
    """Time model files of any kind on the CPU, and torchvision's detector of the first one's kind.

    Args:
        files: of one model; what was not exported is optimized.
        images: files; none: noise is drawn.
        size: of what is drawn.
        batch: images that go through the network together.
        repeats: turns.
        progress: told what comes next.

    Raises:
        ConfigError: the files are not of one model, or a number is below 1.
        DataNotFoundError, ModelFileError, MissingExtraError: as `fpn.load`.
    """
    refuse_too_little(size, repeats=repeats, batch_sizes=batch)
    loaded = {str(path): load(path, device="cpu") for path in files}
    _check_one_model(loaded)
    theirs, notes = _torchvision(next(iter(loaded.values())), size)
    with tempfile.TemporaryDirectory() as folder:
        shown = counted(len(images), "image")
        if not images:
            images = write_jpegs(draw_noise(max(batch, DRAWN), size), Path(folder))
            shown = f"{len(images)} drawn images {size.width}x{size.height}"
        chunks = [images[begin : begin + batch] for begin in range(0, len(images), batch)]
        ways = {name: _way(detector, chunks) for name, detector in loaded.items()}
        ways |= {f"{name}{_IN_BF16}": _way(detector, chunks) for name, detector in _in_bf16(loaded).items()}
        ours = [*ways]
        if theirs is not None:
            ways[_THEIR_NAME] = _Way(partial(_their_way, theirs, chunks), "eager, float32 on cpu")
        progress(f"{', '.join(ways)}: {counted(len(images), 'image')}, {counted(repeats, 'turn')}")
        sides = in_turns({name: way.work for name, way in ways.items()}, repeats=repeats)
    rows = _rows(sides, ways, len(images), apart=_THEIR_NAME if notes else "")
    return FilesReport(
        machine=describe_machine(),
        images=shown,
        batch=batch,
        rows=tuple(rows),
        recommended=min(ours, key=lambda name: sides[name].seconds),
        notes=notes,
    )


@dataclass(frozen=True)
class _Way:
    work: Callable[[], list[Detections]]
    runs_as: str


@dataclass(frozen=True)
class _Theirs:
    model: nn.Module
    first_label: int


def _check_one_model(loaded: Mapping[str, Detector]) -> None:
    (first, one), *others = loaded.items()
    for name, other in others:
        if (other.recipe.kind, other.recipe.classes) != (one.recipe.kind, one.recipe.classes):
            raise ConfigError(
                f"{name} is a {other.recipe.kind} of {len(other.classes)} classes, {first} a {one.recipe.kind} of "
                f"{len(one.classes)}, or of others: name files of one model"
            )


def _in_bf16(loaded: Mapping[str, Detector]) -> dict[str, ExportedDetector | OptimizedDetector]:
    """Those that work in bf16, too, where the processor has it."""
    if not has_fast_bf16(torch.device("cpu")):
        return {}
    found: dict[str, ExportedDetector | OptimizedDetector] = {}
    for name, detector in loaded.items():
        if not isinstance(detector, ExportedDetector):
            found[name] = optimize(detector, "bf16")
        elif name.endswith(".xml"):
            found[name] = load_exported(Path(name), precision="bf16")
    return found


def _way(detector: Detector, chunks: Sequence[Sequence[Path]]) -> _Way:
    quick = detector if isinstance(detector, ExportedDetector | OptimizedDetector) else optimize(detector)
    return _Way(lambda: [found for chunk in chunks for found in our_detections(quick, chunk)], str(quick.info))


def _their_way(theirs: _Theirs, chunks: Sequence[Sequence[Path]]) -> list[Detections]:
    found = [each for chunk in chunks for each in their_detections(theirs.model, chunk)]
    return [Detections(each["boxes"], each["scores"], each["labels"] - theirs.first_label) for each in found]


def _torchvision(detector: Detector, size: Size) -> tuple[_Theirs | None, tuple[str, ...]]:
    """torchvision's detector with the same weights; or of the same kind and backbone, and a note of what differs."""
    kind, first = detector.recipe.kind, 1 if isinstance(detector.recipe.dialect, TwoStageDialect) else 0
    if kind not in PAIRED:
        return None, (f"torchvision has no {kind} to measure beside.",)
    model = None if isinstance(detector, ExportedDetector) else _with_weights(detector)
    if model is not None:
        return _Theirs(model.eval(), first), ()
    inside = network_frame(size, **detector.preprocessor.config.sizing).network
    try:
        pair = build_pair(detector.recipe.backbone, inside, kind=kind, num_classes=len(detector.classes))
    except ConfigError as error:
        return None, (f"torchvision was not measured: {str(error).splitlines()[0]}",)
    said = "torchvision's detector is of the same kind and backbone, with random weights: compare its times alone."
    return _Theirs(pair.theirs.eval(), first), (said,)


def _with_weights(detector: Detector) -> nn.Module | None:
    """torchvision's detector that finds the same; None: there is none."""
    try:
        exported = convert_weights(detector, format="torchvision")
    except ConfigError:
        return None
    assert exported.model is not None, "of torchvision there is one"
    model: nn.Module = exported.model.build()
    model.load_state_dict(dict(exported.tensors))
    return model


def _rows(sides: Mapping[str, Side], ways: Mapping[str, _Way], count: int, *, apart: str) -> list[FileRow]:
    """Of each way; `apart` has other weights, so that its outputs say nothing."""
    first = next(iter(sides.values()))
    wanted = [{"boxes": each.boxes, "scores": each.scores, "labels": each.labels} for each in first.outcome]
    theirs = sides.get(_THEIR_NAME)
    return [
        FileRow(
            name=name,
            works=ways[name].runs_as,
            seconds=side.seconds / count,
            ratio=first.seconds / side.seconds,
            their_ratio=None if theirs is None else theirs.seconds / side.seconds,
            agreement=None if name == apart else share_with_twin(side.outcome, wanted, first_label=0),
            turns=tuple(each / count for each in side.wall),
        )
        for name, side in sides.items()
    ]
