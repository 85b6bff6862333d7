from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fpn
from fpn.detectors import PAPER, Preprocessor
from fpn.detectors.full_images import FullImages
from fpn.detectors.prediction import predict_images
from fpn.detectors.tiling import Tiling, predict_tiled_images, resized
from fpn.errors import ConfigError, DataNotFoundError
from fpn.image_io import ImageLike
from fpn.shapes import Size
from fpn.structures import Classes, Detections, ImageBatch, Masks, Skeleton

SIDE = 100
COLOURS = range(50, 250, 10)
# Pixels go to the network as they are, but for the scale of 0 to 1.
PIXELS = PAPER.changed(
    pixels={"mean": (0.0,) * 3, "std": (1.0,) * 3, "short_side": SIDE, "long_side": 4 * SIDE, "size_multiple": 1}
).pixels


@dataclass
class SeesColours:
    """Finds what is of one of the colours of red; green makes it class 1. The more of it a tile shows, the surer."""

    classes: Classes = field(default_factory=lambda: Classes.of(["dark", "light"]))
    class_free: bool = False
    preprocessor: Preprocessor = field(default_factory=lambda: Preprocessor(PIXELS))
    bucket: int = 32
    max_detections: int | None = None
    tasks: tuple[str, ...] = ("boxes", "masks")
    skeleton: Skeleton | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    sizes: list[tuple[int, ...]] = field(default_factory=list)

    def detect(self, images: ImageBatch) -> list[Detections]:
        self.sizes.append(tuple(images.pixels.shape))
        sizes = images.sizes.tolist()
        return [self._one(pixels[:, : sizes[row][0], : sizes[row][1]]) for row, pixels in enumerate(images.pixels)]

    def _one(self, pixels: torch.Tensor) -> Detections:
        red, green, _ = (pixels * 255).round().long()
        size = Size(*red.shape)
        # Between the colours lie those of a smaller image's edges.
        shown = [red == value for value in red.unique().tolist() if value in COLOURS]
        places = [mask.nonzero() for mask in shown]
        boxes = [torch.cat([at.amin(dim=0).flip(0), at.amax(dim=0).flip(0) + 1]).float() for at in places]
        scores = torch.tensor([0.5 + 1e-6 * len(at) for at in places])
        corners = torch.stack(boxes) if boxes else torch.zeros(0, 4)
        return Detections(
            corners,
            scores,
            torch.tensor([int(green[tuple(at[0])] > 0) for at in places], dtype=torch.int64),
            Masks.from_dense(torch.stack(shown), size) if shown else Masks.empty(size),
            torch.cat([corners[:, :2], scores[:, None]], dim=1)[:, None],
        )

    def predict(self, images: Sequence[ImageLike], *, batch_size: int = 8) -> list[Detections]:
        return [each.found for each in predict_images(self, images, batch_size=batch_size)]  # type: ignore[misc]


def painted(
    height: int, width: int, boxes: Sequence[tuple[int, int, int, int]], light: Sequence[int] = ()
) -> np.ndarray:
    """An image with one colour a box."""
    image = np.zeros((height, width, 3), dtype=np.uint8)
    for number, (left, top, right, bottom) in enumerate(boxes):
        image[top:bottom, left:right] = (COLOURS[number], 255 if number in light else 0, 0)
    return image


def found_boxes(found: Detections) -> set[tuple[int, ...]]:
    return {tuple(round(value) for value in box) for box in found.boxes.tolist()}


# With a width of 260 and an overlap of 0.2 the tiles are 0..100, 80..180 and 160..260.
ON_SEAMS = [
    (70, 10, 90, 30),  # across where the second tile begins
    (95, 40, 105, 50),  # across where the first one ends
    (80, 60, 100, 80),  # all that two tiles share, and no more
    (100, 85, 120, 95),  # begins where a tile ends
    (158, 5, 162, 9),  # small, across the third one's begin
    (0, 70, 10, 100),  # at the image's edges, where nothing is cut
]


@pytest.mark.parametrize("merge", ["nms", "vote"])
def test_objects_on_seams_are_found_once_and_whole(merge: str) -> None:
    image = painted(100, 260, ON_SEAMS, light=[1, 4])
    found = fpn.predict_tiled(SeesColours(), image, Tiling(side=SIDE, overlap=0.2, merge=merge))
    assert found_boxes(found) == set(ON_SEAMS)
    assert len(found) == len(ON_SEAMS)
    assert found_boxes(found[found.labels == 1]) == {ON_SEAMS[1], ON_SEAMS[4]}
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)


def test_an_object_larger_than_a_tile_is_put_together_of_its_pieces_with_its_mask_and_keypoints() -> None:
    large = (30, 20, 250, 190)  # in every one of the tiles, whole in none
    found = fpn.predict_tiled(SeesColours(), painted(200, 260, [large]), Tiling(side=SIDE, overlap=0.2))
    assert found_boxes(found) == {large}
    assert found.masks is not None
    assert found.masks.areas().tolist() == [220 * 170]
    assert found.masks.size == Size(200, 260)
    assert found.keypoints is not None  # of the pieces the surest one's, which shows most
    assert found.keypoints.shape == (1, 1, 3)


def test_two_objects_that_touch_at_a_seam_stay_two() -> None:
    beside = [(60, 10, 100, 40), (100, 10, 130, 40)]
    found = fpn.predict_tiled(SeesColours(), painted(100, 260, beside), Tiling(side=SIDE, overlap=0.2))
    assert found_boxes(found) == set(beside)


def test_boxes_of_one_tile_do_not_drop_each_other() -> None:
    class SeesTwice(SeesColours):
        def detect(self, images: ImageBatch) -> list[Detections]:
            return [each[torch.arange(len(each)).repeat(2)] for each in super().detect(images)]

    image = painted(100, 260, [(20, 20, 40, 40)])
    assert len(fpn.predict_tiled(SeesTwice(), image, Tiling(side=SIDE, overlap=0.2))) == 2


def test_the_whole_image_beside_its_tiles_gives_no_object_twice() -> None:
    detector, boxes = SeesColours(), [(30, 20, 250, 190), (2, 2, 20, 12)]
    tiling = Tiling(side=SIDE, overlap=0.2, whole=True)
    found = fpn.predict_tiled(detector, painted(200, 260, boxes), tiling)
    assert len(found) == 2
    assert detector.sizes[-1][2:] == (100, 130)  # the last look was at all of it, made smaller
    # Corners of the large one are right to the pixels of the smaller image.
    assert torch.allclose(found.boxes[0], torch.tensor(boxes[0], dtype=torch.float32), atol=2.0)


def test_an_image_no_larger_than_a_tile_is_looked_at_as_ever() -> None:
    image = painted(100, 100, ON_SEAMS[:1])
    tiled, plain = SeesColours(), SeesColours()
    found = fpn.predict_tiled(tiled, image, Tiling(side=SIDE, whole=True))
    (as_ever,) = plain.predict([image])
    assert torch.equal(found.boxes, as_ever.boxes)
    assert torch.equal(found.scores, as_ever.scores)
    assert len(tiled.sizes) == 1


def test_an_image_without_objects_gives_none() -> None:
    found = fpn.predict_tiled(SeesColours(), painted(150, 260, []), Tiling(side=SIDE))
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)
    assert found.masks is not None
    assert found.masks.size == Size(150, 260)


def test_progress_is_told_in_images_and_ends_at_all_of_them() -> None:
    told: list[float] = []
    images = [painted(100, 260, ON_SEAMS[:1]), painted(100, 90, [])]
    results = list(predict_tiled_images(SeesColours(), images, Tiling(side=SIDE), batch_size=1, progress=told.append))
    assert [each.size for each in results] == [Size(100, 260), Size(100, 90)]
    assert told == sorted(told)
    assert told[0] == pytest.approx(1 / 3)
    assert told[-1] == 2


def test_an_image_that_cannot_be_read_is_a_result_and_the_next_one_is_looked_at(tmp_path: Path) -> None:
    sources: list[ImageLike] = [tmp_path / "missing.png", painted(100, 260, ON_SEAMS[:1])]
    missing, there = predict_tiled_images(SeesColours(), sources, Tiling(side=SIDE))
    assert isinstance(missing.found, DataNotFoundError)
    assert isinstance(there.found, Detections)
    with pytest.raises(DataNotFoundError, match=r"missing\.png"):
        fpn.predict_tiled(SeesColours(), tmp_path / "missing.png")


def test_tiles_with_as_many_detections_as_they_may_have_are_counted() -> None:
    full = FullImages(1, what="tiles")
    image = painted(100, 260, ON_SEAMS[:1])
    list(predict_tiled_images(SeesColours(), [image], Tiling(side=SIDE), full=full))
    assert str(full).startswith("the limit of 1 detections was reached in 2 of 3 tiles, such as the one at x 0, y 0")


def test_a_tile_of_no_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="side"):
        Tiling(side=8)


def test_a_tiff_too_large_to_be_held_is_read_in_parts_with_the_same_result(tmp_path: Path) -> None:
    pytest.importorskip("rasterio")
    image = painted(200, 260, [(30, 20, 250, 190), *[(0, 0, 20, 12)]])
    path = tmp_path / "scan.tif"
    Image.fromarray(image).save(path, compression="tiff_lzw", tiffinfo={278: 16})  # strips of 16 rows
    tiling = Tiling(side=SIDE, overlap=0.2)
    at_once, in_parts = SeesColours(), SeesColours()
    expected = fpn.predict_tiled(at_once, path, tiling)
    found = fpn.predict_tiled(in_parts, path, tiling, max_pixels=30_000)
    assert torch.equal(found.boxes, expected.boxes)
    assert torch.equal(found.scores, expected.scores)
    assert found.masks == expected.masks
    (drawn,) = predict_tiled_images(in_parts, [path], tiling, keep_images=True, max_pixels=30_000)
    assert drawn.size == Size(200, 260)
    assert drawn.image is not None


def test_what_is_drawn_on_a_smaller_image_is_made_smaller_with_it() -> None:
    found = fpn.predict_tiled(SeesColours(), painted(100, 260, ON_SEAMS[:1]), Tiling(side=SIDE))
    drawn = resized(found, Size(100, 260), Size(50, 130))
    assert drawn.boxes.tolist() == [[35, 5, 45, 15]]
    assert drawn.masks is not None
    assert drawn.masks.areas().tolist() == [100]
    assert drawn.keypoints is not None
    assert drawn.keypoints[0, 0, :2].tolist() == [35, 5]
    assert resized(found, Size(100, 260), Size(100, 260)) is found
