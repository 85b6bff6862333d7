"""All parts of `fpn benchmark`, one after the other."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from fpn.detectors import Detector
from fpn.detectors.builder import refuse_unfit_parts
from fpn.detectors.presets import DIALECTS_OF
from fpn.errors import ConfigError
from fpn.features.necks.designs import FPN
from fpn.inference.optimize import Precision, optimize
from fpn.runtime.device import has_fast_bf16
from fpn.shapes import Size
from fpn.studies.benchmark import inference, pooling, training
from fpn.studies.benchmark.images import draw_noise, refuse_too_little, write_jpegs
from fpn.studies.benchmark.machine import describe_machine, matmul_rates
from fpn.studies.benchmark.memory import peak_mebibytes
from fpn.studies.benchmark.their_models import PAIRED
from fpn.studies.benchmark.torchvision_pair import Pair, build_pair
from fpn.studies.benchmark.training import StepPrecision
from fpn.studies.benchmark.turns import Side
from fpn.training.config import takes

BenchmarkPart = Literal["inference", "training", "pooling", "memory"]
PARTS: tuple[BenchmarkPart, ...] = ("inference", "training", "pooling", "memory")


@dataclass(frozen=True, kw_only=True)
class BenchmarkSettings:
    """What to measure.

    Attributes:
        detector: kind of detector, one of `PAIRED`.
        backbone: name of a timm model.
        weights: of the backbone; None: random.
        size: of the images.
        device: where.
        batches: images that go through the network together, several to be measured one after the other.
        repeats: turns; medians are reported.
        parts: of `PARTS`.
        compile: also measure what torch.compile makes of it, on a GPU with CUDA graphs as well. None: on a GPU.
        rois: RoIs of the pooling part.
        classes: number of classes.
        channels: width of our pyramid; torchvision's is 256.
        head_width: of our box head; torchvision's is 1024.
    """

    detector: str = "faster_rcnn"
    backbone: str = "resnet50"
    weights: str | None = None
    size: Size = field(default_factory=lambda: Size(800, 1066))
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    batches: tuple[int, ...] = (1,)
    repeats: int = 5
    parts: tuple[BenchmarkPart, ...] = PARTS
    compile: bool | None = None
    rois: int = 2048
    classes: int = 90
    channels: int = 256
    head_width: int = 1024

    def __post_init__(self) -> None:
        if self.detector not in PAIRED:
            known = ", ".join(PAIRED)
            raise ConfigError(
                f"detector {self.detector!r}: torchvision has none such to measure beside; known: {known}. A model of "
                "another kind is measured alone with --exported MODEL.safetensors"
            )
        if self.head_width != 1024 and not takes(self.detector, "head_width"):
            raise ConfigError(f"head_width {self.head_width}: {self.detector} has no such part. Leave it out.")
        counts = {name: getattr(self, name) for name in ("repeats", "rois", "classes", "channels", "head_width")}
        refuse_too_little(self.size, **counts, batch_sizes=min(self.batches, default=0))
        if (self.channels, self.head_width) != (256, 1024) and "inference" in self.parts:
            raise ConfigError(
                f"channels {self.channels}, head_width {self.head_width}: torchvision's are 256 and 1024, so that the "
                "detections could not be compared. Measure other widths without inference: --parts training memory."
            )

    @property
    def compiles(self) -> bool:
        """Whether compiled code is measured too."""
        return self.device.type == "cuda" if self.compile is None else self.compile

    @property
    def pools(self) -> bool:
        """Whether the detector reads RoIs."""
        return takes(self.detector, "roi_samples")


@dataclass(frozen=True)
class Row:
    """Ours against torchvision's.

    Attributes:
        work: what was timed.
        seconds: ours, median.
        their_seconds: torchvision's in float32 unless `work` says otherwise, median.
        ratio: theirs over ours.
        busy_ratio: the same by processor time; on a GPU it says little.
        agreement: how the outputs compare, in words.
        turns: all single times.
    """

    work: str
    seconds: float
    their_seconds: float
    ratio: float
    busy_ratio: float
    agreement: str
    turns: dict[str, list[float]]


@dataclass
class BenchmarkReport:
    """All that was found; `to_dict` is JSON-able.

    Attributes:
        machine: date, hardware, versions.
        settings: what was asked for.
        rates: GFLOP/s of a matrix product, by precision.
        rows: ours against torchvision's.
        stages: seconds by side and stage; of the first batch size.
        gigaflops: by stage.
        memory: MiB by work and side.
        notes: what is absent, and why.
    """

    machine: dict[str, object]
    settings: dict[str, object]
    rates: dict[str, float]
    rows: list[Row] = field(default_factory=list)
    stages: dict[str, dict[str, float]] = field(default_factory=dict)
    gigaflops: dict[str, float] = field(default_factory=dict)
    memory: dict[str, dict[str, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        return asdict(self)


def run_benchmark(settings: BenchmarkSettings, *, progress: Callable[[str], None] = lambda _: None) -> BenchmarkReport:
    """Measure the parts that are asked for.

    Args:
        settings: what.
        progress: told what comes next.

    Raises:
        ConfigError: there is no such backbone, or not with the levels that a pyramid reads.
    """
    refuse_unfit_parts(settings.backbone, FPN, DIALECTS_OF[settings.detector]["torchvision"].neck, settings.weights)
    progress("matrix products")
    about = asdict(settings) | {"device": str(settings.device), "size": list(settings.size)}
    report = BenchmarkReport(describe_machine(settings.device), about, matmul_rates(settings.device))
    report.notes += _absent(settings)
    steps = {"inference": _infer, "training": _train, "pooling": _pool, "memory": _weigh}
    for part in PARTS:
        if part in settings.parts and (part != "pooling" or settings.pools):
            steps[part](settings, report, progress)
    return report


def _absent(settings: BenchmarkSettings) -> list[str]:
    notes = []
    if "pooling" in settings.parts and not settings.pools:
        notes.append(f"No rows of RoI pooling: a {settings.detector} has no RoIs.")
    if settings.device.type != "cuda":
        notes.append("No GPU was used: the rows of CUDA (compile, CUDA graphs, deterministic algorithms) are absent.")
    if not has_fast_bf16(settings.device):
        notes.append(
            "No bf16 rows but those of pooling: this device has no bf16 instructions, as its matrix products show."
        )
    return notes


def precisions(device: torch.device) -> tuple[StepPrecision, ...]:
    """Those that are worth measuring."""
    return ("float32", "bf16") if has_fast_bf16(device) else ("float32",)


def ways(pair: Pair, settings: BenchmarkSettings) -> dict[str, Detector]:
    """Ours, unchanged and optimized in all ways that suit the device; one of them only detects as it is."""
    ours = pair.ours.eval()
    found: dict[str, Detector] = {"eager": ours}
    for precision in precisions(settings.device):
        found[f"optimized, {precision}"] = optimize(ours, precision)
        if settings.compiles:
            found[f"compiled, {precision}"] = optimize(ours, precision, compile=True)
        if settings.compiles and settings.device.type == "cuda":
            found[f"CUDA graphs, {precision}"] = optimize(ours, precision, compile=True, cuda_graphs=True)
    return found


def make_pair(settings: BenchmarkSettings) -> Pair:
    """Both sides on the device."""
    pair = build_pair(
        settings.backbone,
        settings.size,
        kind=settings.detector,
        weights=settings.weights,
        num_classes=settings.classes,
        channels=settings.channels,
        head_width=settings.head_width,
    )
    return Pair(pair.ours.to(settings.device), pair.theirs.to(settings.device), pair.equal)


def _infer(settings: BenchmarkSettings, report: BenchmarkReport, progress: Callable[[str], None]) -> None:
    pair = make_pair(settings)
    pair.theirs.eval()
    ours = ways(pair, settings)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_jpegs(draw_noise(max(settings.batches), settings.size), Path(folder))
        for batch in settings.batches:
            progress(f"inference, batch {batch}")
            with _as_memory_permits(report, f"inference x{batch}"):
                found = inference.time_detection(
                    ours, pair.theirs, paths[:batch], repeats=settings.repeats, first_label=pair.first_label
                )
                for name in ours:
                    agreement = f"{100 * found.agreement[name]:.1f} % twins"
                    work = f"inference x{batch}, {name}"
                    report.rows.append(_row(work, found.sides[name], found.sides["torchvision"], agreement))
                if not report.stages:
                    report.stages, report.gigaflops = found.stages, found.gigaflops


@contextmanager
def _as_memory_permits(report: BenchmarkReport, work: str) -> Iterator[None]:
    """What a GPU has no room for leaves a note, and what was measured before is kept."""
    try:
        yield
    except torch.OutOfMemoryError:
        report.notes.append(f"No rows of {work}: it needs more than the GPU's memory.")
    else:
        return
    torch.cuda.empty_cache()  # here, not above: while an error is dealt with, its frames hold what filled the memory


def _train(settings: BenchmarkSettings, report: BenchmarkReport, progress: Callable[[str], None]) -> None:
    choices = (False, True) if settings.device.type == "cuda" else (False,)
    for batch in settings.batches:
        for precision in precisions(settings.device):
            for deterministic in choices:
                name = f"training x{batch}, {precision}" + (", deterministic" if deterministic else "")
                progress(name)
                with _as_memory_permits(report, name):
                    sides = training.time_steps(
                        make_pair(settings),
                        settings.size,
                        batch=batch,
                        precision=precision,
                        repeats=settings.repeats,
                        deterministic=deterministic,
                    )
                    losses = " / ".join(f"{float(sides[side].outcome):.3g}" for side in ("fpn", "torchvision"))
                    report.rows.append(_row(name, sides["fpn"], sides["torchvision"], f"losses {losses}"))


def _pool(settings: BenchmarkSettings, report: BenchmarkReport, progress: Callable[[str], None]) -> None:
    rois = pooling.draw_rois(settings.rois, settings.device)
    # On a GPU ours is torchvision's kernel, level by level; the bag is measured beside it.
    chosen = {"": pooling.ours} if settings.device.type == "cpu" else {"kernel, ": pooling.ours, "bag, ": pooling.bags}
    # Pooling multiplies no matrices: bf16 halves its traffic on any device.
    for dtype, (way, pool) in product((torch.float32, torch.bfloat16), chosen.items()):
        for work, last in product(pooling.WORKS, (True, False)):
            progress(f"RoI pooling, {way}{work}")
            row = pooling.compare(
                work, dtype, rois, channels=256, repeats=settings.repeats, channels_last=last, pool=pool
            )
            name = f"pooling {settings.rois} RoIs, {way}{work}, {row.dtype}, {row.maps}"
            report.rows.append(_row(name, row.ours, row.theirs, f"difference {row.difference:.0e}"))


def _weigh(settings: BenchmarkSettings, report: BenchmarkReport, progress: Callable[[str], None]) -> None:
    wanted = [part for part in ("inference", "training") if part in settings.parts]
    for part in wanted:
        report.memory[part] = {}
        for side in ("fpn", "torchvision"):
            progress(f"memory of {part}, {side}")
            with _as_memory_permits(report, f"memory of {part}"):
                report.memory[part][side] = peak_mebibytes(settings.device, _once, settings, part, side)


def _once(settings: BenchmarkSettings, part: str, side: str) -> None:
    """Build one side, and of the other nothing that stays, and let it work once, for its memory."""
    if part == "training":
        _train_once(settings, side)
    else:
        detect_once(settings, side)


def _train_once(settings: BenchmarkSettings, side: str) -> None:
    pair = make_pair(settings)
    chosen = precisions(settings.device)[-1]
    loss = training.make_losses(pair, settings.size, batch=settings.batches[0], precision=chosen)[side]
    step = training.make_step({"fpn": pair.ours.train(), "torchvision": pair.theirs.train()}[side], loss)
    del pair
    step()
    step()  # the optimizer's own memory exists from the first step on


def detect_once(settings: BenchmarkSettings, side: str, precision: Precision = "auto") -> None:
    """Build one side and let it detect, for its memory.

    Of ours the optimized detector alone, as `fpn predict` has it: the one that it is a copy of is gone.

    Args:
        settings: whose first batch size it takes.
        side: "fpn" or "torchvision".
        precision: of ours.
    """
    theirs, ours = _one_side(settings, side)
    ours = None if ours is None else optimize(ours, precision)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_jpegs(draw_noise(settings.batches[0], settings.size), Path(folder))
        for _ in range(3):  # the second batch of a size finds weights put in order for it, and all that the first left
            if ours is not None:
                inference.our_detections(ours, paths)
            elif theirs is not None:
                inference.their_detections(theirs, paths)


def _one_side(settings: BenchmarkSettings, side: str) -> tuple[nn.Module | None, Detector | None]:
    """Theirs, or ours; the other one is gone."""
    pair = make_pair(settings)
    return (pair.theirs.eval(), None) if side == "torchvision" else (None, pair.ours)


def _row(work: str, ours: Side, theirs: Side, agreement: str) -> Row:
    busy = theirs.busy_seconds / max(ours.busy_seconds, 1e-9)
    turns = {"fpn": ours.wall, "torchvision": theirs.wall}
    return Row(work, ours.seconds, theirs.seconds, theirs.seconds / ours.seconds, busy, agreement, turns)
