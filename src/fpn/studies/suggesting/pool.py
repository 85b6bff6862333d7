"""What to look at: the labelled images first, then those to choose from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from fpn.data.dataset import Dataset
from fpn.data.limits import Limits
from fpn.errors import ConfigError
from fpn.image_io import image_size, read_image
from fpn.image_values import PixelRange
from fpn.shapes import Size
from fpn.structures import Classes, Targets


class Pool(Dataset):
    """Labelled images and, behind them, images without labels, as one dataset.

    Attributes:
        paths: of the images without labels.
        labelled: the others; None: there are none.
        limits: sizes of files and images that are accepted.
    """

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        labelled: Dataset | None,
        *,
        classes: Classes,
        limits: Limits,
        pixel_range: PixelRange | None,
    ) -> None:
        """Args:
            paths, labelled, limits: see above.
            classes: of the detector.
            pixel_range: what the detector learned with.

        Raises:
            ConfigError: there is nothing to choose from.
        """
        if not paths:
            raise ConfigError("no images to choose from: name at least one")
        self.paths, self.labelled, self.limits = [Path(path) for path in paths], labelled, limits
        self.classes, self.pixel_range = classes, pixel_range
        # Links stay as they are: the names are those that the caller knows.
        folders = {os.path.abspath(path.parent) for path in self.paths}  # noqa: PTH100
        self.root = Path(os.path.commonpath(folders))
        self.name = str(self.root)

    @property
    def known(self) -> int:
        """How many are labelled."""
        return 0 if self.labelled is None else len(self.labelled)

    @property
    def names(self) -> list[str]:
        """Of each image to choose from its path within the folder that all are in."""
        return [Path(os.path.relpath(path, self.root)).as_posix() for path in self.paths]

    def __len__(self) -> int:
        return self.known + len(self.paths)

    def image_id(self, index: int) -> int:
        """See `Dataset.image_id`: 1.. in order."""
        return self._number(index) + 1

    def path(self, index: int) -> str:
        """See `Dataset.path`."""
        if self.labelled is not None and index < self.known:
            return self.labelled.path(index)
        return str(self.paths[index - self.known])

    def size(self, index: int) -> Size:
        """See `Dataset.size`."""
        if self.labelled is not None and index < self.known:
            return self.labelled.size(index)
        return Size(*image_size(self.path(index), max_bytes=self.limits.image_bytes))

    def targets(self, index: int, *, masks: bool = False) -> Targets:
        """See `Dataset.targets`: nothing, of an image without labels."""
        if self.labelled is not None and index < self.known:
            return self.labelled.targets(index, masks=masks)
        return Targets.empty()

    def image(self, index: int) -> Image.Image:
        """See `Dataset.image`."""
        if self.labelled is not None and index < self.known:
            return self.labelled.image(index)
        limits = {"max_pixels": self.limits.image_pixels, "max_bytes": self.limits.image_bytes}
        return read_image(self.path(index), pixel_range=self.pixel_range, **limits)
