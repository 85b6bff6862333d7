"""Where an image lies among network pixels."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fpn.shapes import Size
from fpn.structures.keypoints import map_keypoints
from fpn.structures.masks import Masks


@dataclass(frozen=True, slots=True)
class Frame:
    """Where the original image lies inside the network's.

    Attributes:
        original: size of the image as it came.
        network: size inside the network, before padding to the batch.
        scale: network pixels an original pixel, (y, x).
        offset: network position of the original's corner, (y, x).
        content: size of the scaled image inside `network`; None: it fills it.
        inclusive: in network pixels x2 and y2 name the last pixel of a box, not the one behind it.
    """

    original: Size
    network: Size
    scale: tuple[float, float]
    offset: tuple[float, float] = (0.0, 0.0)
    content: Size | None = None
    inclusive: bool = False

    @property
    def window(self) -> tuple[float, float, float, float]:
        """Where the image lies in network pixels, xyxy, in the same terms as its boxes."""
        top, left = self.offset
        height, width = self.content or self.network
        return left, top, left + width - self.inclusive, top + height - self.inclusive

    def to_network(self, boxes: Tensor) -> Tensor:
        """(N, 4) xyxy boxes of the original, in network pixels."""
        return (boxes - self._last(boxes)) * boxes.new_tensor(self._scales()) + boxes.new_tensor(self._offsets())

    def to_original(self, boxes: Tensor) -> Tensor:
        """(N, 4) xyxy boxes in network pixels, in pixels of the original."""
        return (boxes - boxes.new_tensor(self._offsets())) / boxes.new_tensor(self._scales()) + self._last(boxes)

    @property
    def pixel_scale(self) -> tuple[float, float]:
        """Network pixels an original pixel (y, x) of what is drawn, not of a box whose corners are pixels."""
        if not self.inclusive:
            return self.scale
        content = self.content or self.network
        return content.height / self.original.height, content.width / self.original.width

    def masks_to_network(self, masks: Masks) -> Masks:
        """Masks of the original, where its pixels are in the network."""
        return masks.mapped(scale=self.pixel_scale, offset=self.offset, size=self.network)

    def masks_to_original(self, masks: Masks) -> Masks:
        """Masks in network pixels, in the original, cut at its edge."""
        scale, offset = self._back()
        return masks.mapped(scale=scale, offset=offset, size=self.original).clipped()

    def keypoints_to_network(self, keypoints: Tensor) -> Tensor:
        """(N, J, 3) x, y, visibility of the original, in network pixels."""
        return map_keypoints(keypoints, scale=self.pixel_scale, offset=self.offset)

    def keypoints_to_original(self, keypoints: Tensor) -> Tensor:
        """(N, J, 3) x, y, score in network pixels, in pixels of the original."""
        scale, offset = self._back()
        return map_keypoints(keypoints, scale=scale, offset=offset, scored=True)

    def _back(self) -> tuple[tuple[float, float], tuple[float, float]]:
        (down, across), (top, left) = self.pixel_scale, self.offset
        return (1 / down, 1 / across), (-top / down, -left / across)

    def _scales(self) -> list[float]:
        return [self.scale[1], self.scale[0]] * 2

    def _offsets(self) -> list[float]:
        return [self.offset[1], self.offset[0]] * 2

    def _last(self, boxes: Tensor) -> Tensor:
        return boxes.new_tensor([0.0, 0.0, float(self.inclusive), float(self.inclusive)])
