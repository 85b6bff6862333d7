from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fpn.data import open_dataset
from fpn.data.convert import ConvertedDataset, convert
from fpn.data.tile_cutting import TileSettings
from fpn.errors import ConfigError

# With a width of 180, tiles of 100 and an overlap of 0.2: 0..100 and 80..180.
WHOLE_IN_BOTH, CUT, BARELY, LEFT = [82, 10, 16, 20], [60, 40, 60, 20], [95, 70, 40, 20], [5, 5, 10, 10]


def _coco(folder: Path, boxes: Sequence[Sequence[int]], suffix: str = ".png", **more: Any) -> Path:
    """One image of 180 x 100 whose grey says how far right a pixel is."""
    (folder / "images").mkdir(parents=True)
    grey = np.broadcast_to(np.arange(180, dtype=np.uint8), (100, 180))
    Image.fromarray(np.ascontiguousarray(grey)).save(folder / "images" / f"a{suffix}")
    objects = [
        {"id": k, "image_id": 7, "category_id": 3, "bbox": box, "area": box[2] * box[3], "iscrowd": 0, **more}
        for k, box in enumerate(boxes, start=1)
    ]
    text = {
        "images": [{"id": 7, "file_name": f"a{suffix}", "width": 180, "height": 100}],
        "categories": [{"id": 3, "name": "cell"}],
        "annotations": objects,
    }
    (folder / "annotations.json").write_text(json.dumps(text), encoding="utf-8")
    return folder


def _cut(folder: Path, output: Path, **settings: Any) -> ConvertedDataset:
    return convert(folder, "coco", output, tiles=TileSettings(100, **settings))


def _written(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "annotations/instances.json").read_text(encoding="utf-8"))
    return found


def _boxes(written: dict[str, Any], name: str) -> list[tuple[list[float], int]]:
    (number,) = [each["id"] for each in written["images"] if each["file_name"] == name]
    return [(each["bbox"], each["iscrowd"]) for each in written["annotations"] if each["image_id"] == number]


def test_each_tile_has_its_pixels_and_what_it_shows_of_the_objects(tmp_path: Path) -> None:
    converted = _cut(_coco(tmp_path / "in", [WHOLE_IN_BOTH, CUT, BARELY, LEFT]), tmp_path / "out")
    assert converted.splits == {"all": 2}
    written = _written(tmp_path / "out")
    # Of BARELY the first tile shows 5 of 40 columns: neither object nor background there.
    assert _boxes(written, "a_x0_y0.png") == [
        ([82, 10, 16, 20], 0),
        ([60, 40, 40, 20], 0),
        ([95, 70, 5, 20], 1),
        ([5, 5, 10, 10], 0),
    ]
    assert _boxes(written, "a_x80_y0.png") == [([2, 10, 16, 20], 0), ([0, 40, 40, 20], 0), ([15, 70, 40, 20], 0)]
    right = np.asarray(Image.open(tmp_path / "out/images/a_x80_y0.png").convert("L"))
    assert right[0].tolist() == list(range(80, 180))
    assert len({each["id"] for each in written["annotations"]}) == 7


def test_what_is_marked_and_what_no_tile_shows_whole_is_counted(tmp_path: Path) -> None:
    converted = _cut(_coco(tmp_path / "in", [WHOLE_IN_BOTH, CUT, BARELY]), tmp_path / "out")
    assert [line for line in converted.losses if "object" in line] == [
        "objects of which a tile shows less than 30% (marked there as crowds or difficult): 1",
        "objects that no tile shows whole (a larger overlap shows more of them so): 1",
    ]


def test_outlines_are_cut_at_the_tile_and_boxes_drawn_around_them(tmp_path: Path) -> None:
    # A triangle from (60, 40) to (120, 40) and (60, 70): at x = 100 a third of its height is left.
    triangle = [[60, 40, 120, 40, 60, 70]]
    _cut(_coco(tmp_path / "in", [[60, 40, 60, 30]], segmentation=triangle), tmp_path / "out")
    written = _written(tmp_path / "out")
    ((right, _),) = _boxes(written, "a_x80_y0.png")
    assert right == [0, 40, 40, 20]
    masks = open_dataset(tmp_path / "out").targets(0, masks=True).masks
    assert masks is not None
    assert masks.areas().item() == pytest.approx(900 - 100, abs=20)


def test_keypoints_outside_of_a_tile_are_not_labelled(tmp_path: Path) -> None:
    folder = _coco(tmp_path / "in", [[60, 40, 60, 20]], keypoints=[70, 50, 2, 90, 50, 1, 110, 50, 2], num_keypoints=3)
    file = folder / "annotations.json"
    text = json.loads(file.read_text(encoding="utf-8"))
    text["categories"][0]["keypoints"] = ["left", "middle", "right"]
    file.write_text(json.dumps(text), encoding="utf-8")
    _cut(folder, tmp_path / "out")
    first, second = (each["keypoints"] for each in _written(tmp_path / "out")["annotations"])
    assert first == [70, 50, 2, 90, 50, 1, 0, 0, 0]
    assert second == [0, 0, 0, 10, 50, 1, 30, 50, 2]


@pytest.mark.parametrize("target", ["voc", "yolo"])
def test_tiles_are_written_in_every_format(tmp_path: Path, target: Any) -> None:
    folder = _coco(tmp_path / "in", [WHOLE_IN_BOTH, CUT, LEFT], suffix=".jpg")
    convert(folder, target, tmp_path / "out", tiles=TileSettings(100))
    dataset = open_dataset(tmp_path / "out")
    assert [Path(dataset.path(k)).name for k in range(2)] == ["a_x0_y0.jpg", "a_x80_y0.jpg"]
    assert dataset.targets(1).boxes.round().tolist() == [[2, 10, 18, 30], [0, 40, 40, 60]]


def test_an_image_no_larger_than_a_tile_is_one(tmp_path: Path) -> None:
    folder = _coco(tmp_path / "in", [CUT])
    convert(folder, "coco", tmp_path / "out", tiles=TileSettings(200))
    assert _boxes(_written(tmp_path / "out"), "a_x0_y0.png") == [(CUT, 0)]


def test_tiles_of_no_size_are_refused() -> None:
    with pytest.raises(ConfigError, match="32 to 16384"):
        TileSettings(0)
