"""A batch, and the parcel in which a worker sends it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from fpn.data.loading.workers import fits_shared_memory
from fpn.structures import ImageBatch, Masks, Targets


@dataclass(frozen=True, slots=True)
class LabelledBatch:
    """One step's images.

    Attributes:
        images: B images in network pixels.
        targets: their objects in network pixels.
        indices: their numbers in the dataset.
    """

    images: ImageBatch
    targets: list[Targets]
    indices: list[int]

    def to(self, device: torch.device | str) -> LabelledBatch:
        """The same batch on another device."""
        return LabelledBatch(self.images.to(device), [each.to(device) for each in self.targets], self.indices)


@dataclass(frozen=True, slots=True)
class _Parcel:
    """A batch as workers send it: few and flat tensors, since each crosses the border through a file of its own.

    `unreadable` and `cut_short`: path -> what is wrong with an image that was left out, or used although its end is
    missing.
    """

    pixels: Tensor | np.ndarray
    sizes: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    ignore: np.ndarray
    masks: list[Masks | None]
    keypoints: list[np.ndarray | None]
    counts: list[int]
    indices: list[int]
    unreadable: Mapping[str, str] = field(default_factory=dict)
    cut_short: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def pack(
        cls, images: ImageBatch, targets: Sequence[Targets], indices: list[int], **notes: Mapping[str, str]
    ) -> _Parcel:
        pixels: Tensor | np.ndarray = images.pixels
        if not fits_shared_memory(images.pixels):
            pixels = images.pixels.numpy()
        return cls(
            pixels=pixels,
            sizes=images.sizes.numpy(),
            boxes=torch.cat([each.boxes for each in targets]).numpy(),
            labels=torch.cat([each.labels for each in targets]).numpy(),
            ignore=torch.cat([each.ignore for each in targets]).numpy(),
            masks=[each.masks for each in targets],
            keypoints=[None if each.keypoints is None else each.keypoints.numpy() for each in targets],
            counts=[len(each) for each in targets],
            indices=indices,
            **notes,
        )

    def unpack(self) -> LabelledBatch:
        pixels = self.pixels if isinstance(self.pixels, Tensor) else torch.from_numpy(self.pixels)
        images = ImageBatch(pixels, torch.from_numpy(self.sizes))
        flat = (torch.from_numpy(each) for each in (self.boxes, self.labels, self.ignore))
        columns = (torch.split(each, self.counts) for each in flat)
        rows = zip(*columns, self.masks, self.keypoints, strict=True)
        targets = [
            Targets(boxes, labels, ignore, masks, None if points is None else torch.from_numpy(points))
            for boxes, labels, ignore, masks, points in rows
        ]
        return LabelledBatch(images, targets, self.indices)

    def pin_memory(self) -> _Parcel:
        """Called by torch's loader. What is small is not worth it."""
        pixels = self.pixels if isinstance(self.pixels, Tensor) else torch.from_numpy(self.pixels)
        return replace(self, pixels=pixels.pin_memory())
