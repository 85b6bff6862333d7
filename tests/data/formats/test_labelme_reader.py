"""LabelMe's files as people have them: which shapes become objects, where the images are, and what is refused."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from written_sets import save_image

from fpn.data import list_splits, open_dataset
from fpn.data.checks.inspection import check
from fpn.data.convert import convert
from fpn.errors import DataError, DataNotFoundError, FpnError
from fpn.structures import Masks

SIDES = {"imageHeight": 37, "imageWidth": 53}
SQUARE = [[10, 5], [20, 5], [20, 15], [10, 15]]


def shape(label: str = "nut", points: Any = SQUARE, kind: str | None = "polygon", **more: Any) -> dict[str, Any]:
    said = {} if kind is None else {"shape_type": kind}
    return {"label": label, "points": points, "group_id": None, "flags": {}, **said, **more}


def write(root: Path, *shapes: dict[str, Any], image: str = "a.png", file: str = "a.json", **more: Any) -> None:
    place = root / file
    place.parent.mkdir(parents=True, exist_ok=True)
    said = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": image, "imageData": None, **SIDES, **more}
    place.write_text(json.dumps(said))


def picture(root: Path, name: str = "a.png") -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    save_image(root / name, 37, 53)


def only(root: Path, *shapes: dict[str, Any], **more: Any) -> tuple[list[list[float]], Masks]:
    """Boxes and masks of a set of one image with these shapes."""
    picture(root)
    write(root, *shapes, **more)
    targets = open_dataset(root).targets(0, masks=True)
    assert targets.masks is not None
    return targets.boxes.tolist(), targets.masks


def test_a_polygon_is_an_object_with_a_mask(tmp_path: Path) -> None:
    boxes, masks = only(tmp_path, shape())
    assert boxes == [[10, 5, 20, 15]]
    assert masks.areas().tolist() == [100]


def test_a_name_that_is_read_otherwise_is_told_of_the_file_that_has_it(tmp_path: Path) -> None:
    for stem, written in (("a", "a.png"), ("b", "..\\photos\\b.png")):
        picture(tmp_path, f"{stem}.png")
        write(tmp_path, shape(), image=written, file=f"{stem}.json")
    (finding,) = check(tmp_path).of("name-repaired")
    assert finding.message.startswith("b.json: imagePath: ")
    assert finding.message.endswith(" is taken for b.png")


def test_a_file_of_an_old_version_says_no_shape_type(tmp_path: Path) -> None:
    boxes, _ = only(tmp_path, shape(kind=None))
    assert boxes == [[10, 5, 20, 15]]


def test_a_rectangle_may_be_drawn_from_any_corner(tmp_path: Path) -> None:
    boxes, masks = only(tmp_path, shape(points=[[20, 15], [10, 5]], kind="rectangle"), shape())
    assert boxes == [[10, 5, 20, 15], [10, 5, 20, 15]]
    assert masks.areas().tolist() == [100, 100]


def test_a_circle_is_its_centre_and_a_point_of_its_edge(tmp_path: Path) -> None:
    boxes, masks = only(tmp_path, shape(points=[[20, 20], [20, 30]], kind="circle"))
    assert boxes[0] == pytest.approx([10, 10, 30, 30])
    # Of a circle of radius 10, with 64 corners: 313.7 pixels.
    assert int(masks.areas()[0]) == pytest.approx(314, abs=4)


def test_shapes_of_one_label_and_group_are_one_object(tmp_path: Path) -> None:
    other = [[30, 20], [40, 20], [40, 30]]
    boxes, masks = only(tmp_path, shape(group_id=1), shape(points=other, group_id=1), shape("bolt", group_id=1))
    assert boxes == [[10, 5, 40, 30], [10, 5, 20, 15]]
    assert masks.areas().tolist()[1] == 100


def test_a_bitmap_stands_at_its_first_point(tmp_path: Path) -> None:
    bits = np.zeros((4, 6), dtype=np.uint8)
    bits[1:3, 2:6] = 255
    boxes, masks = only(tmp_path, shape(points=[[10, 5], [15, 8]], kind="mask", mask=png(bits)))
    assert boxes == [[12, 6, 16, 8]]
    assert masks.areas().tolist() == [8]


def png(bits: np.ndarray) -> str:
    stream = io.BytesIO()
    Image.fromarray(bits).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def test_points_and_lines_are_left_aside_and_told(tmp_path: Path) -> None:
    picture(tmp_path)
    write(tmp_path, shape("dot", [[3, 4]], "point"), shape(), shape("__ignore__"))
    dataset = open_dataset(tmp_path)
    assert dataset.classes.names == ("nut",)
    assert dataset.remarks == ["a.json: shape 1 ('dot') is a point, and so on for 1 more: left aside, no object"]
    assert [each.kind for each in check(tmp_path).findings if each.kind == "shape-aside"] == ["shape-aside"]


def test_difficult_objects_are_ignored_and_others_are_not(tmp_path: Path) -> None:
    picture(tmp_path)
    write(tmp_path, shape(difficult=True), shape(difficult=False))
    assert open_dataset(tmp_path).targets(0).ignore.tolist() == [True, False]


def test_images_lie_beside_in_another_folder_or_on_another_machine(tmp_path: Path) -> None:
    for image, file, named in (
        ("beside/a.png", "beside/a.json", "a.png"),
        ("apart/images/a.png", "apart/labels/a.json", "..\\images\\a.png"),
        ("moved/images/a.png", "moved/labels/a.json", "C:\\Users\\x\\pictures\\a.png"),
        ("saved/a.png", "saved/a.json", "a.bmp"),
        ("silent/a.png", "silent/a.json", ""),
    ):
        root = tmp_path / Path(image).parts[0]
        picture(tmp_path, image)
        write(tmp_path, shape(), file=file, image=named)
        assert Path(open_dataset(root).path(0)).name == "a.png", root


def test_folders_of_splits_have_the_same_classes(tmp_path: Path) -> None:
    for split, label in (("train", "nut"), ("val", "bolt")):
        picture(tmp_path, f"{split}/a.png")
        write(tmp_path, shape(label), file=f"{split}/a.json")
    assert list_splits(tmp_path) == ("train", "val")
    assert {open_dataset(tmp_path, split=split).classes.names for split in ("train", "val")} == {("bolt", "nut")}


def test_a_list_of_labels_fixes_the_classes_but_for_those_that_are_none(tmp_path: Path) -> None:
    picture(tmp_path)
    write(tmp_path, shape())
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\nwasher\nnut\n")
    assert open_dataset(tmp_path).classes.names == ("washer", "nut")
    (tmp_path / "labels.txt").write_text("washer\nnuts\n")
    with pytest.raises(DataError, match=r"a.json: shape 1 has label 'nut', .* Did you mean 'nuts'"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (shape(points=[[1, 2], [3, 4]]), "shape 1 (nut): a polygon of 2 points; it takes at least 3"),
        (shape(points=[[1, 2], [3]]), "some that are not two numbers"),
        (shape(points=[[1, 10**400], [3, 4], [5, 6]]), "some that are not two numbers"),
        (shape(points="no"), "has no points"),
        (shape(kind="spiral"), "is a 'spiral', no shape that is known"),
        (shape(kind=["x"]), "has shape_type a list"),  # type: ignore[arg-type]
        (shape(label=""), "shape 1 has no label"),
        (shape(points=[[1, 2], [3, float("nan")], [5, 6]]), "not finite"),
        (shape(points=[[1, 2], [3, 4]], kind="mask", mask="!"), "its bitmap can't be read"),
        (shape(points=[[1, 2], [3, 4]], kind="mask"), "its bitmap can't be read (there is none)"),
        (
            shape(points=[[50, 2], [59, 4]], kind="mask", mask=png(np.full((3, 10), 255, np.uint8))),
            "10 x 3 at (50, 2) reaches out of the image of 53 x 37",
        ),
        ({"label": 3}, "shape 1 has no label"),
        (3, "shape 1 is 3, no shape"),
    ],
)
def test_a_broken_shape_is_named_and_a_check_goes_on(broken: Any, says: str, tmp_path: Path) -> None:
    picture(tmp_path)
    write(tmp_path, broken, shape())
    with pytest.raises(DataError) as caught:
        open_dataset(tmp_path)
    assert says in str(caught.value)
    assert "a.json" in str(caught.value)
    assert any(says in finding.message for finding in check(tmp_path).findings)


def test_what_is_missing_or_doubled_is_named(tmp_path: Path) -> None:
    write(tmp_path, shape())
    with pytest.raises(DataNotFoundError, match=r"a.json: its image 'a.png' does not exist. Restore"):
        open_dataset(tmp_path)
    picture(tmp_path)
    write(tmp_path, shape(), file="b.json")
    with pytest.raises(DataError, match=r"b.json: a.png is labelled in a.json, too"):
        open_dataset(tmp_path)
    (tmp_path / "b.json").write_text('{"shapes": 3}')
    with pytest.raises(FpnError, match=r"b.json: no list 'shapes'"):
        open_dataset(tmp_path)


def test_it_becomes_coco_with_all_outlines(tmp_path: Path) -> None:
    picture(tmp_path / "in")
    write(tmp_path / "in", shape(), shape("bolt", points=[[1, 2], [30, 31]], kind="rectangle"))
    assert convert(tmp_path / "in", "coco", tmp_path / "out").losses == []
    written = open_dataset(tmp_path / "out").targets(0, masks=True)
    assert written.boxes.tolist() == [[10, 5, 20, 15], [1, 2, 30, 31]]
    assert written.masks is not None
    assert written.masks.areas().tolist() == [100, 29 * 29]
