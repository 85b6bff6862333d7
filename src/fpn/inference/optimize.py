"""A detector for inference alone: the same detections, sooner."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, cast

import torch
from torch import Tensor, nn

from fpn.detectors.detector import Detector, Rewriter
from fpn.detectors.prediction import Proposer, TaskName
from fpn.errors import ConfigError
from fpn.features.fused_graph import plain_convolution
from fpn.inference.folding import fold_sequences, folded
from fpn.inference.fused_convolution import FusedConvolution
from fpn.ops.shared_convolution import has_hooks
from fpn.runtime.device import has_fast_bf16, no_compiler
from fpn.runtime.memory import give_back_freed_memory
from fpn.structures import Detections, ImageBatch, LossTerms, Proposals, Targets

if TYPE_CHECKING:
    from torch._dynamo.exc import TorchDynamoException

# Compiled code is made for one size: images are padded to a multiple of this, so that a dataset has about ten.
COMPILED_MULTIPLE = 128

Precision: TypeAlias = Literal["float32", "bf16", "auto"]

T = TypeVar("T")

_MAX_COMPILED_SIZES = 32
# Batches before which freed memory goes back to the system: by the first one the original is gone, where nobody needs
# it, and in the second one of a size weights are put into the order of that size.
_TIDIED = (0, 2)
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
        inner: the detector whose parts were rewritten.
    """

    saveable = False

    def __init__(self, inner: Detector, info: OptimizationInfo) -> None:
        super().__init__(classes=inner.classes, preprocessor=inner.preprocessor, recipe=inner.recipe)
        self.training_record = inner.training_record
        self.thresholds = inner.thresholds
        self.inner = inner
        self.info = info
        self.bucket = COMPILED_MULTIPLE if info.compiled else self.bucket
        self._batches = 0
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
        return self.perform(self.inner.detect, images)

    def proposals(self, images: ImageBatch) -> list[Proposals]:
        """B images' class-free candidate boxes, of a detector that has such.

        Raises:
            ConfigError: "proposals" is not among its tasks.
        """
        if "proposals" not in self.tasks:
            raise ConfigError(f"a {type(self.inner).__name__} has no proposals")
        return self.perform(cast(Proposer, self.inner).proposals, images)

    def train(self, mode: bool = True) -> OptimizedDetector:
        """It stays in eval mode."""
        super().train(False)
        return self

    @torch.inference_mode()
    def perform(self, verb: Callable[[ImageBatch], T], images: ImageBatch) -> T:
        """Do what the inner detector does with images in its faster form; without compiled code if that can't be made.

        Args:
            verb: such as its `detect`.
            images: B of them, as `detect` takes them.
        """
        if self.inner.compiled_dense is None:
            return self._do(verb, images)
        from torch._dynamo.exc import TorchDynamoException  # takes longer than `import torch` itself

        try:
            return self._do(verb, images)
        except TorchDynamoException as error:
            self._do_without_compiling(error)
        return self._do(verb, images)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> OptimizedDetector:
        """What `to`, `half`, `double` and their kind do to each tensor; another type of numbers is none of it."""
        if (kind := fn(torch.zeros(1)).dtype) != torch.float32:
            raise ConfigError(
                f"an optimized detector can't be turned into {str(kind).removeprefix('torch.')}: its parts have the "
                'types they need. fpn.optimize(detector, "bf16") of the original works in bf16.'
            )
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def _do_without_compiling(self, error: TorchDynamoException) -> None:
        """From now on. Of several threads that come here, the first one says so."""
        note = f"not compiled, because compiling failed ({type(error).__name__})"
        with _REWRITING:
            if self.inner.compiled_dense is not None:
                self.inner.compiled_dense = None
                self.info = replace(self.info, compiled=False, notes=(*self.info.notes, note))

    def _do(self, verb: Callable[[ImageBatch], T], images: ImageBatch) -> T:
        if self._batches in _TIDIED:
            give_back_freed_memory()
        self._batches += 1
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
        height, width = pixels.shape[2:]
        padding = self.preprocessor.padding.to(pixels)
        padded = padding.repeat(len(pixels), 1, height + below, width + right)
        padded[..., :height, :width] = pixels
        return padded


def optimize(
    detector: Detector, precision: Precision = "float32", *, compile: bool = False, cuda_graphs: bool = False
) -> OptimizedDetector:
    """A copy of a detector that only detects, as fast as the device can.

    Detections are the same up to rounding (in float32: scores to 1e-4, boxes to 1e-4 of an image's side); bf16 rounds
    more. The original stays as it is, and is what can be trained and saved.

    Args:
        detector: of any kind, as it was trained.
        precision: of the network's arithmetic; "auto": bf16 where the chip multiplies it in hardware.
        compile: let torch.compile work on the part from pixels to raw predictions. Each size of image, rounded up to a
            multiple of 128, is compiled when it first comes, which takes a minute or more. What a network sees beyond
            an image's edge is wider then, which moves detections near it (AP on BCCD from 0.5988 to 0.5984).
        cuda_graphs: compile, and on a GPU replay each size as one graph.

    Raises:
        ConfigError: an unknown precision, or the detector is optimized already.
    """
    if isinstance(detector, OptimizedDetector):
        raise ConfigError("this detector is optimized already: optimize the original another way instead")
    if precision not in ("float32", "bf16", "auto"):
        raise ConfigError(f"precision {precision!r}: choose one of float32, bf16, auto")
    device = detector.device
    exact: Literal["float32", "bf16"] = _automatic(device) if precision == "auto" else precision
    # Parts are rewritten on the CPU, where float32 is that: a GPU may compute convolutions with ten bits (TF32), and
    # the folded path is compared with the original.
    inner = _same_weights(detector).eval().cpu()
    notes: list[str] = []
    with torch.no_grad():
        was_folded = inner.rewrite(Rewriter(fold=folded, fuse=_fuse))
        fold_sequences(inner)
        _fuse_convolutions(inner)
    inner.to(device)
    inner.to(memory_format=torch.channels_last)
    _own_weights(inner, detector)
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


def _same_weights(detector: Detector) -> Detector:
    """A copy whose weights lie where the detector's do: most of them are about to be written down in another form."""
    known: dict[int, Any] = {id(each): each.detach() for each in detector.buffers()}
    known |= {id(each): nn.Parameter(each.detach(), requires_grad=False) for each in detector.parameters()}
    return copy.deepcopy(detector, known)


@torch.no_grad()
def _own_weights(inner: Detector, detector: Detector) -> None:
    """Copy what still lies where the detector's does: that one may be trained on."""
    foreign = {each.untyped_storage().data_ptr() for each in (*detector.parameters(), *detector.buffers())}
    for each in (*inner.parameters(), *inner.buffers()):
        if each.untyped_storage().data_ptr() in foreign:
            each.data = each.data.clone()


def _automatic(device: torch.device) -> Literal["float32", "bf16"]:
    return "bf16" if has_fast_bf16(device) else "float32"


def _fuse(convolution: nn.Conv2d, activation: nn.Module) -> nn.Module:
    if has_hooks(convolution):  # which may make its weights anew at each call
        return nn.Sequential(convolution, activation)
    return FusedConvolution(convolution, activation=activation)


def _fuse_convolutions(inner: nn.Module) -> None:
    """All convolutions that no part has rewritten itself."""
    for parent in list(inner.modules()):
        for name, child in list(parent.named_children()):
            if plain_convolution(child):
                setattr(parent, name, FusedConvolution(cast(nn.Conv2d, child)))


def _prepare(inner: nn.Module) -> None:
    """Last ones first, as heads work on all levels: weights of Winograd's form take no more than the plain ones do."""
    spare = sum(each.nbytes for each in (*inner.parameters(), *inner.buffers()))
    for part in reversed(list(inner.modules())):
        if isinstance(part, FusedConvolution):
            spare -= part.prepare(spare)


def _store_bf16(inner: nn.Module) -> None:
    """Weights of products are kept in bf16, so that autocast need not convert them for each batch."""
    for part in inner.modules():
        if isinstance(part, FusedConvolution | nn.Linear | nn.Conv2d):
            part.to(torch.bfloat16)


def _compile(inner: Detector, cuda_graphs: bool) -> None:
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _MAX_COMPILED_SIZES)
    mode = "reduce-overhead" if cuda_graphs and inner.device.type == "cuda" else None
    inner.compiled_dense = torch.compile(inner.dense_part, dynamic=False, mode=mode)
