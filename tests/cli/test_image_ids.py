from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from written_sets import write_json

from fpn.cli.image_ids import read_ids
from fpn.errors import DataError, DataNotFoundError
from fpn.structures import Classes

CLASSES = Classes(("nut", "rivet"), (1, 2))


def file_of(tmp_path: Path, names: dict[int, Any]) -> Path:
    images = [{"id": number, "file_name": name} for number, name in names.items()]
    write_json(tmp_path / "truth.json", {"images": images, "categories": [{"id": 7, "name": "nut"}]})
    return tmp_path / "truth.json"


def test_images_are_found_by_as_much_of_their_path_as_the_json_writes(tmp_path: Path) -> None:
    file = file_of(tmp_path, {5: "left/a.png", 6: "right\\A.png", 9: "images/b.PNG"})
    paths = [tmp_path / "right/a.png", tmp_path / "left/a.png", tmp_path / "elsewhere/b.png"]
    given = read_ids(file, paths, CLASSES)
    assert given.images == [6, 5, 9]


def test_classes_have_the_jsons_ids_and_others_the_next(tmp_path: Path) -> None:
    given = read_ids(file_of(tmp_path, {1: "a.png"}), [tmp_path / "a.png"], CLASSES)
    assert given.classes == Classes(("nut", "rivet"), (7, 8))
    assert given.unknown == ["rivet"]


def test_an_image_that_is_not_listed_is_named(tmp_path: Path) -> None:
    file = file_of(tmp_path, {1: "a.png"})
    with pytest.raises(DataNotFoundError, match=r"c\.png is not among the images of .*truth\.json"):
        read_ids(file, [tmp_path / "a.png", tmp_path / "c.png"], CLASSES)


def test_what_may_be_two_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"may be several images of .* \(ids 1, 2\)"):
        read_ids(file_of(tmp_path, {1: "x/a.png", 2: "y/a.png"}), [tmp_path / "z/a.png"], CLASSES)
    with pytest.raises(DataError, match=r"would both be its image 1"):
        read_ids(file_of(tmp_path, {1: "a.png"}), [tmp_path / "x/a.png", tmp_path / "y/a.png"], CLASSES)


@pytest.mark.parametrize("names", [{1: 7}, {1: None}])
def test_a_json_of_another_kind_is_refused(names: dict[int, Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no 'file_name'"):
        read_ids(file_of(tmp_path, names), [tmp_path / "a.png"], CLASSES)
    write_json(tmp_path / "list.json", [{"image_id": 1}])
    with pytest.raises(DataError, match="--ids takes a COCO json with a list of images"):
        read_ids(tmp_path / "list.json", [tmp_path / "a.png"], CLASSES)
