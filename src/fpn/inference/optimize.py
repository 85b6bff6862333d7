"""A detector for inference alone: the same detections, sooner."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from fpn.detectors.detector import Detector, Precision
from fpn.detectors.prediction import TaskName
from fpn.detectors.two_stage import FasterRCNN
from fpn.errors import ConfigError
from fpn.heads.box import TwoLayerTrunk
from fpn.inference.folding import folded
from fpn.inference.fused_convolution import FusedConvolution, plain_convolution
from fpn.runtime.device import has_fast_bf16, no_compiler
from fpn.structures import Detections, Features, ImageBatch, LossTerms, Proposals, Targets

if TYPE_CHECKING:
    from torch._dynamo.exc import TorchDynamoException

# Compiled code is made for one size: images are padded to a multiple of this, so that a dataset has about ten.
COMPILED_MULTIPLE = 128

T = TypeVar("T")

_MAX_COMPILED_SIZES = 32
_REWRITING = threading.Lock()


@dataclass(frozen=True)
class OptimizationInfo:
    """How an optimized detector works; `str` of it is one short line.

    Attributes:
        precision: of the network's arithmetic; boxes are always float32.
        device: where it is.
        folded: norms, sums and activations are inside the convolutions of the bottom-up path.
        compiled: the part from pixels to raw predictions is compiled.
        notes: what was asked for and could not be had, and why.
    """

    precision: Literal["float32", "bf16"]
    device: str
    folded: bool
    compiled: bool
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"{self.precision} on {self.device}", "channels-last"]
        parts += ["norms folded"] if self.folded else []
        parts += ["compiled"] if self.compiled else []
        return "; ".join([", ".join(parts), *self.notes])


class OptimizedDetector(Detector):
    """What `optimize` gives: it detects, and can be neither trained nor saved; the original can.

    Attributes:
        info: how it works.
    """

    def __init__(self, inner: FasterRCNN, info: OptimizationInfo) -> None:
        super().__init__(classes=inner.classes, preprocessor=inner.preprocessor, recipe=inner.recipe)
        self.training_record = inner.training_record
        self.inner = inner
        self.info = info
        self.bucket = COMPILED_MULTIPLE if info.compiled else self.bucket
        self.eval()

    @property
    def tasks(self) -> tuple[TaskName, ...]:
        """See `Detector.tasks`."""
        return self.inner.tasks

    def losses(
        self,
        images: ImageBatch,
        targets: Sequence[Targets],
        *,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
    ) -> LossTerms:
        """Not of an optimized detector.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("an optimized detector can't be trained: its norms are gone. Train the original.")

    def detect(self, images: ImageBatch) -> list[Detections]:
        """See `Detector.detect`."""
        return self._try(self.inner.detect, images)

    def proposals(self, images: ImageBatch) -> list[Proposals]:
        """See `Detector.proposals`."""
        return self._try(self.inner.proposals, images)

    def optimize(
        self, precision: Precision = "float32", *, compile: bool = False, cuda_graphs: bool = False
    ) -> OptimizedDetector:
        """Refused: the original weights are gone.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("this detector is optimized already: optimize the original another way instead")

    def train(self, mode: bool = True) -> OptimizedDetector:
        """It stays in eval mode."""
        super().train(False)
        return self

    @torch.inference_mode()
    def _try(self, verb: Callable[[ImageBatch], T], images: ImageBatch) -> T:
        """Do it, without compiled code if that can't be made."""
        if self.inner.tensor_part is None:
            return self._do(verb, images)
        from torch._dynamo.exc import TorchDynamoException  # takes longer than `import torch` itself

        try:
            return self._do(verb, images)
        except TorchDynamoException as error:
            self._do_without_compiling(error)
        return self._do(verb, images)

    def _do_without_compiling(self, error: TorchDynamoException) -> None:
        """From now on. Of several threads that come here, the first one says so."""
        note = f"not compiled, because compiling failed ({type(error).__name__})"
        with _REWRITING:
            if self.inner.tensor_part is not None:
                self.inner.tensor_part = None
                self.info = replace(self.info, compiled=False, notes=(*self.info.notes, note))

    def _do(self, verb: Callable[[ImageBatch], T], images: ImageBatch) -> T:
        with self._cast():
            return verb(self._enter(images))

    def _cast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.info.precision == "bf16")

    def _enter(self, images: ImageBatch) -> ImageBatch:
        pixels = self._fill_bucket(images.pixels) if self.info.compiled else images.pixels
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        return ImageBatch(pixels, images.sizes, images.windows, images.scales)

    def _fill_bucket(self, pixels: Tensor) -> Tensor:
        """Padded further, with the value that `Preprocessor.collate` pads with."""
        below, right = (-side % self.bucket for side in pixels.shape[2:])
        if not below and not right:
            return pixels
        if not self.preprocessor.config.pad_before_mean:
            return functional.pad(pixels, (0, right, 0, below))
        black = -pixels.new_tensor(self.preprocessor.config.mean) / pixels.new_tensor(self.preprocessor.config.std)
        height, width = pixels.shape[2:]
        padded = black.view(1, 3, 1, 1).repeat(len(pixels), 1, height + below, width + right)
        padded[..., :height, :width] = pixels
        return padded


def optimize(
    detector: Detector, precision: Precision = "float32", *, compile: bool = False, cuda_graphs: bool = False
) -> OptimizedDetector:
    """A copy of a detector that only detects, as fast as the device can; see `Detector.optimize`."""
    if not isinstance(detector, FasterRCNN):
        raise ConfigError(f"a {type(detector).__name__} can't be optimized: only a detector that can be trained can")
    if precision not in ("float32", "bf16", "auto"):
        raise ConfigError(f"precision {precision!r}: choose one of float32, bf16, auto")
    device = detector.device
    exact: Literal["float32", "bf16"] = _automatic(device) if precision == "auto" else precision
    inner = copy.deepcopy(detector).eval().requires_grad_(False)
    notes: list[str] = []
    with torch.no_grad():
        was_folded = inner.features.backbone.rewrite(folded)
        _fuse_convolutions(inner)
        _flatten_cells(inner)
    inner.to(memory_format=torch.channels_last)
    if exact == "bf16":
        _store_bf16(inner)
    _prepare(inner)
    compile = compile or cuda_graphs
    problem = no_compiler(device) if compile else None
    if problem is not None:
        notes.append(f"not compiled, because {problem}")
    elif compile:
        _compile(inner, cuda_graphs)
    info = OptimizationInfo(exact, device.type, was_folded, compile and problem is None, tuple(notes))
    return OptimizedDetector(inner, info)


def _automatic(device: torch.device) -> Literal["float32", "bf16"]:
    return "bf16" if has_fast_bf16(device) else "float32"


def _fuse_convolutions(inner: FasterRCNN) -> None:
    """All convolutions outside of the folded bottom-up path; the RPN's takes its ReLU in."""
    inner.rpn.shared = FusedConvolution(inner.rpn.shared, activation=nn.ReLU(inplace=True))  # type: ignore[assignment]
    inner.rpn.activation = nn.Identity()
    for parent in list(inner.modules()):
        for name, child in list(parent.named_children()):
            if plain_convolution(child):
                setattr(parent, name, FusedConvolution(cast(nn.Conv2d, child)))


class _FlattenCells(nn.Module):
    """(R, C, S, S) -> (R, S*S*C): what lies in memory channels-last is not copied."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).flatten(1)


def _flatten_cells(inner: FasterRCNN) -> None:
    trunk = inner.box.trunk
    if not isinstance(trunk, TwoLayerTrunk):
        return
    first = cast(nn.Linear, trunk[1])
    size = inner.box.pooler.config.output_size
    reordered = first.weight.view(len(first.weight), -1, size, size).permute(0, 2, 3, 1).flatten(1)
    first.weight = nn.Parameter(reordered.contiguous(), requires_grad=False)
    trunk[0] = _FlattenCells()


def _prepare(inner: FasterRCNN) -> None:
    for part in inner.modules():
        if isinstance(part, FusedConvolution):
            part.prepare()


def _store_bf16(inner: FasterRCNN) -> None:
    """Weights of products are kept in bf16, so that autocast need not convert them for each batch."""
    for part in inner.modules():
        if isinstance(part, FusedConvolution | nn.Linear | nn.Conv2d):
            part.to(torch.bfloat16)


def _compile(inner: FasterRCNN, cuda_graphs: bool) -> None:
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _MAX_COMPILED_SIZES)
    mode = "reduce-overhead" if cuda_graphs and inner.device.type == "cuda" else None

    # No list and no count in here depends on what is in the image.
    def from_pixels(pixels: Tensor) -> tuple[Features, list[Tensor], list[Tensor]]:
        features: Features = inner.features(pixels)
        raw = inner.rpn(features)
        return features, raw.objectness, raw.deltas

    inner.tensor_part = torch.compile(from_pixels, dynamic=False, mode=mode)
