"""A detector's verbs: losses, detect, predict."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from fpn.detectors.recipe import Recipe
from fpn.errors import ConfigError
from fpn.heads.sampling import Randomness
from fpn.image_io import ImageLike, read_image
from fpn.preprocessing.preprocessor import Prepared, Preprocessor
from fpn.structures import Classes, Detections, ImageBatch, LossTerms, Proposals, Targets

if TYPE_CHECKING:
    from fpn.inference.optimize import OptimizedDetector

Precision: TypeAlias = Literal["float32", "bf16", "auto"]

# Batches that `predict` reads before it puts images of about the same size together.
BATCHES_AHEAD = 4


class Detector(nn.Module, ABC):
    """Anything that finds objects. Each verb has one return type, in train and in eval.

    Attributes:
        classes: the K classes with their original ids.
        preprocessor: from original to network pixels and back.
        recipe: all that is needed to build the same detector again.
        training_record: how the weights came to be, JSON-able; kept in the model file.
    """

    def __init__(self, *, classes: Classes, preprocessor: Preprocessor, recipe: Recipe) -> None:
        super().__init__()
        self.classes = classes
        self.preprocessor = preprocessor
        self.recipe = recipe
        self.training_record: dict[str, Any] = {}
        # `predict` puts images together whose padded sides agree when rounded up to a multiple of this.
        self.bucket = max(32, preprocessor.size_multiple)

    @abstractmethod
    def losses(self, images: ImageBatch, targets: Sequence[Targets], *, generator: Randomness = None) -> LossTerms:
        """Loss terms of a batch.

        Args:
            images: B images, network pixels.
            targets: B images' objects, network pixels.
            generator: source of randomness for sampling, one for all images or one each; None: torch's own.
        """

    @abstractmethod
    def detect(self, images: ImageBatch) -> list[Detections]:
        """B images' detections in network pixels, best first."""

    @abstractmethod
    def proposals(self, images: ImageBatch) -> list[Proposals]:
        """B images' class-free candidate boxes in network pixels, best first."""

    def backbone_parameters(self) -> list[nn.Parameter]:
        """The weights of its backbone, which training may give a rate of their own; none where there is no backbone."""
        return []

    def optimize(
        self, precision: Precision = "float32", *, compile: bool = False, cuda_graphs: bool = False
    ) -> OptimizedDetector:
        """A copy that only detects, as fast as the device can.

        Detections are the same up to rounding (in float32: scores to 1e-4, boxes to 1e-4 of an image's side); bf16
        rounds more. The original stays as it is, and is what can be trained and saved.

        Args:
            precision: of the network's arithmetic; "auto": bf16 where the chip multiplies it in hardware.
            compile: let torch.compile work on the part from pixels to raw predictions. Each size of image, rounded
                up to a multiple of 128, is compiled when it first comes, which takes a minute or more.
            cuda_graphs: compile, and on a GPU replay each size as one graph.

        Raises:
            ConfigError: an unknown precision, or the detector is optimized already.
        """
        from fpn.inference.optimize import optimize  # that module builds on this one

        return optimize(self, precision, compile=compile, cuda_graphs=cuda_graphs)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def predict(
        self,
        images: Sequence[ImageLike],
        *,
        batch_size: int = 8,
        progress: Callable[[int], None] | None = None,
    ) -> list[Detections]:
        """Find objects in images of any size and kind.

        Args:
            images: paths, PIL images, or uint8 / uint16 arrays (H, W) or (H, W, 3 or 4) in RGB order.
            batch_size: images that go through the network together, at most: only those of about the same size do.
            progress: called with the number of images done after each batch.

        Returns:
            One `Detections` an image, in the order given, boxes in pixels of the original (EXIF-upright) image,
            on the CPU.

        Raises:
            DataNotFoundError, ImageError: an image is missing or can't be read.
        """
        if isinstance(images, str) or not isinstance(images, Sequence):
            raise ConfigError(f"predict takes a list of images, got {type(images).__name__}: write predict([...])")
        if batch_size < 1:
            raise ConfigError(f"batch_size {batch_size}: must be at least 1")
        found: list[Detections] = []
        window = batch_size * BATCHES_AHEAD
        for start in range(0, len(images), window):
            prepared = [self.preprocessor.prepare(read_image(each)) for each in images[start : start + window]]
            of_window: dict[int, Detections] = {}
            for numbers in self._batches(prepared, batch_size):
                each = self._predict_batch([prepared[number] for number in numbers])
                of_window |= zip(numbers, each, strict=True)
                if progress is not None:
                    progress(len(found) + len(of_window))
            found += [of_window[number] for number in range(len(prepared))]
        return found

    def _batches(self, prepared: Sequence[Prepared], batch_size: int) -> Iterator[list[int]]:
        """Numbers of images of about the same size: padding costs time, and shows at the rim."""
        buckets: dict[tuple[int, int], list[int]] = {}
        for number, each in enumerate(prepared):
            height, width = each.pixels.shape[-2:]
            buckets.setdefault((-(-height // self.bucket), -(-width // self.bucket)), []).append(number)
        for numbers in buckets.values():
            for start in range(0, len(numbers), batch_size):
                yield numbers[start : start + batch_size]

    def _predict_batch(self, prepared: Sequence[Prepared]) -> list[Detections]:
        images = self.preprocessor.collate([p.pixels for p in prepared], [p.frame for p in prepared]).to(self.device)
        with evaluating(self), torch.inference_mode():
            found = self.detect(images)
        return [self.preprocessor.restore(f.to("cpu"), p.frame) for f, p in zip(found, prepared, strict=True)]


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put norms and dropout into their eval behaviour for a while, and every part back as it was."""
    before = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in before.items():
            part.training = mode


def count_parameters(module: nn.Module) -> int:
    """Number of weights, buffers not counted."""
    weights: list[Tensor] = list(module.parameters())
    return sum(weight.numel() for weight in weights)
