"""What a one-stage detector's head has to give: predictions in every cell, their losses, and what is detected."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from fpn.heads.class_rows import ClassRows
from fpn.heads.sampling import Randomness
from fpn.structures import Detections, Features, ImageBatch, LossTerms, Targets


class DenseHead(nn.Module):
    """Levels -> raw predictions of every cell. A head fills in three verbs, `class_rows`, and `rewrite` if it has a
    faster form."""

    def forward(self, features: Features) -> tuple[Tensor, ...]:
        """Raw predictions: as many tensors for every image, of shapes that no value decides."""
        raise NotImplementedError

    def losses(
        self,
        raw: tuple[Tensor, ...],
        images: ImageBatch,
        targets: Sequence[Targets],
        *,
        generator: Randomness = None,
    ) -> LossTerms:
        """Loss terms of what `forward` gave for a batch; see `Detector.losses`."""
        raise NotImplementedError

    def detect(self, raw: tuple[Tensor, ...], images: ImageBatch) -> list[Detections]:
        """Each image's detections, best first, clipped to the image, network pixels."""
        raise NotImplementedError

    def class_rows(self) -> list[ClassRows]:
        """The layers with rows by class."""
        raise NotImplementedError

    def rewrite(self, fuse: Callable[[nn.Conv2d, nn.Module], nn.Module]) -> None:
        """Put convolutions with the activations behind them into one, where there are such; `fuse` makes it."""
