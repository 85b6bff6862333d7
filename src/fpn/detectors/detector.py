"""A detector's verbs: losses, detect, predict."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from fpn.detectors.operating_point import Score, choose_score, sure_ones
from fpn.detectors.prediction import TaskName, predict_images, reading_threads
from fpn.detectors.recipe import Recipe
from fpn.errors import ConfigError, FpnError
from fpn.features.extractor import Fold
from fpn.heads.class_rows import ClassRows
from fpn.heads.sampling import Randomness
from fpn.image_io import MAX_BYTES, MAX_PIXELS, ImageLike
from fpn.image_values import PixelRange
from fpn.preprocessing.preprocessor import Preprocessor
from fpn.structures import Classes, Detections, ImageBatch, LossTerms, Skeleton, Targets, Thresholds

# In a detector's `training_record`: which toolkit its weights came from once, and what was proven of them then.
IMPORTED = "imported"


@dataclass(frozen=True)
class Rewriter:
    """What makes faster forms of parts: the parts know where, it knows how.

    Attributes:
        fold: a network with its norms inside its convolutions, which gives the maps that are read, or None if that
            can't be.
        fuse: a convolution and the activation behind it, as one.
    """

    fold: Fold
    fuse: Callable[[nn.Conv2d, nn.Module], nn.Module]


class Detector(nn.Module, ABC):
    """Anything that finds objects. Each verb has one return type, in train and in eval.

    Attributes:
        classes: the K classes with their original ids.
        preprocessor: from original to network pixels and back.
        recipe: all that is needed to build the same detector again.
        training_record: how the weights came to be, JSON-able; kept in the model file. `IMPORTED` in it: from which
            toolkit.
        thresholds: from which score on `predict` gives detections of each class, as `fpn calibrate` chose it; kept in
            the model file. None: not chosen yet.
        saveable: whether a file of it could be loaded and trained on.
    """

    saveable = True

    def __init__(self, *, classes: Classes, preprocessor: Preprocessor, recipe: Recipe) -> None:
        super().__init__()
        self.classes = classes
        self.preprocessor = preprocessor
        self.recipe = recipe
        self.training_record: dict[str, Any] = {}
        self.thresholds: Thresholds | None = None
        # A faster form of `dense_part`, for detecting alone.
        self.compiled_dense: Callable[[Tensor], tuple[Tensor, ...]] | None = None
        # `predict` puts images together whose padded sides agree when rounded up to a multiple of this.
        self.bucket = max(32, preprocessor.size_multiple)

    def see_range(self, pixel_range: PixelRange) -> None:
        """From now on, and when loaded from a file, see these values as black and white in images of more than 8 bits.

        Raises:
            ConfigError: it is no range.
        """
        self.preprocessor = Preprocessor(self.preprocessor.config.changed(pixel_range=pixel_range))
        self.recipe = self.recipe.changed(dialect_pixels_pixel_range=pixel_range)

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

    def backbone_parameters(self) -> list[nn.Parameter]:
        """The weights of its backbone, which training may give a rate of their own; none where there is no backbone."""
        return []

    def class_rows(self) -> list[ClassRows]:
        """The layers whose rows belong to classes, so that they can follow the names into a detector of other classes.

        Raises:
            ConfigError: this kind of detector does not say.
        """
        raise ConfigError(
            f"a {type(self).__name__} does not say which of its weights belong to classes (`class_rows`), so they "
            "can't be taken over"
        )

    def dense_part(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """From network pixels (B, 3, H, W) to raw predictions: as many tensors for every image, none of whose shapes
        depends on a value. It is what is compiled, exported and timed.

        Raises:
            ConfigError: this kind of detector has none.
        """
        raise ConfigError(f"a {type(self).__name__} has no dense part, so it can be neither compiled nor exported")

    @property
    def dense_modules(self) -> list[nn.Module]:
        """The modules that `dense_part` consists of, which training may compile in place."""
        return []

    def run_dense(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """`dense_part`, in its compiled form where there is one."""
        compiled = self.compiled_dense  # once: another thread may take it away
        return self.dense_part(pixels) if compiled is None else compiled(pixels)

    def rewrite(self, tools: Rewriter) -> bool:
        """Have all parts take the forms that only detect, in place.

        Returns:
            Whether the norms of the backbone went into its convolutions.
        """
        return False

    @property
    def tasks(self) -> tuple[TaskName, ...]:
        """What it gives, by the names of the tasks that measure it."""
        return ("boxes",)

    @property
    def class_free(self) -> bool:
        """Whether it tells no classes apart, so that all objects of any data are of one class to it."""
        return self.recipe.class_free

    @property
    def max_detections(self) -> int | None:
        """The most detections that it gives of an image; None: there is no such limit."""
        return self.recipe.max_detections

    @property
    def skeleton(self) -> Skeleton | None:
        """What the keypoints are that it gives; None: it gives none."""
        return self.recipe.skeleton

    @property
    def device(self) -> torch.device:
        """Where the weights are. Of fused convolutions they are buffers."""
        return next(chain(self.parameters(), self.buffers())).device

    @overload
    def predict(
        self,
        images: Sequence[ImageLike],
        *,
        batch_size: int = 8,
        score: Score = None,
        progress: Callable[[int], None] | None = None,
        errors: Literal["raise"] = "raise",
        max_pixels: int = MAX_PIXELS,
        max_bytes: int = MAX_BYTES,
    ) -> list[Detections]: ...

    @overload
    def predict(
        self,
        images: Sequence[ImageLike],
        *,
        batch_size: int = 8,
        score: Score = None,
        progress: Callable[[int], None] | None = None,
        errors: Literal["return"],
        max_pixels: int = MAX_PIXELS,
        max_bytes: int = MAX_BYTES,
    ) -> list[Detections | FpnError]: ...

    def predict(
        self,
        images: Sequence[ImageLike],
        *,
        batch_size: int = 8,
        score: Score = None,
        progress: Callable[[int], None] | None = None,
        errors: Literal["raise", "return"] = "raise",
        max_pixels: int = MAX_PIXELS,
        max_bytes: int = MAX_BYTES,
    ) -> list[Detections] | list[Detections | FpnError]:
        """Find objects in images of any size and kind. Several threads may do so at once.

        Args:
            images: paths, PIL images, or uint8 / uint16 arrays (H, W) or (H, W, 3 or 4) in RGB order.
            batch_size: images that go through the network together, at most: only those of about the same size do.
            score: give detections from this score on. "calibrated": from each class's own threshold. None: calibrated
                where `thresholds` are there, else all that the detector reports.
            progress: called with the number of images done after each batch.
            errors: what happens to an image that can't be read. "raise": the call ends with its error. "return": the
                error stands in the list in the place of its detections, and the others are done.
            max_pixels: height times width of a file that is accepted.
            max_bytes: size of a file that is accepted.

        Returns:
            One `Detections` an image, in the order given, boxes in pixels of the original (EXIF-upright) image,
            on the CPU.

        Raises:
            DataNotFoundError, ImageError: an image is missing or can't be read.
            ConfigError: a setting is out of range, or there are no calibrated thresholds.
        """
        operating = choose_score(score, self.thresholds)
        if isinstance(images, str) or not isinstance(images, Sequence):
            raise ConfigError(f"predict takes a list of images, got {type(images).__name__}: write predict([...])")
        if errors not in ("raise", "return"):
            raise ConfigError(f'errors {errors!r}: choose "raise" or "return"')
        coming = predict_images(
            self,
            images,
            batch_size=batch_size,
            progress=progress,
            readers=min(reading_threads(self), max(len(images) - 1, 0)),
            max_pixels=max_pixels,
            max_bytes=max_bytes,
        )
        found: list[Detections | FpnError] = []
        for each in coming:
            if errors == "raise" and isinstance(each.found, FpnError):
                raise each.found
            found.append(each.found if isinstance(each.found, FpnError) else sure_ones(each.found, operating))
        return found


def count_parameters(module: nn.Module) -> int:
    """Number of weights, buffers not counted."""
    weights: list[Tensor] = list(module.parameters())
    return sum(weight.numel() for weight in weights)
