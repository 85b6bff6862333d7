from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from written_sets import coco_json, save_image, write_coco, write_json, write_text

from fpn.data import open_dataset
from fpn.errors import DataError, DataNotFoundError, FpnError

Spoil = Callable[[dict[str, Any]], object]


def _open_spoilt(root: Path, spoil: Spoil) -> str:
    """The message that opening a spoilt set stops with."""
    write_coco(root)
    data = coco_json()
    spoil(data)
    write_json(root / "annotations/instances.json", data)
    with pytest.raises(FpnError) as caught:
        open_dataset(root)
    return str(caught.value)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda d: d["images"][1].update(id=100), "image id 100 is given twice, to 'a.png' and 'b.png'"),
        (lambda d: d["annotations"][1].update(id=1), "annotation id 1 is given to entries 1 and 2"),
        (lambda d: d["annotations"][2].update(category_id=4), "annotation id 3 has category_id 4, which 'categories'"),
        (lambda d: d["annotations"][2].update(category_id=4), "(it has 3, 7, 11)"),
        (
            lambda d: d["annotations"][2].update(image_id=999),
            "annotation id 3 has image_id 999, which 'images' does not",
        ),
        (
            lambda d: d["annotations"][0].update(bbox=[1, 2, 3]),
            "annotation id 1: bbox is a list; it must be [x, y, width",
        ),
        (lambda d: d["annotations"][0].update(bbox=[1, 2, "3", 4]), "bbox holds '3'"),
        (lambda d: d["annotations"][0].update(bbox=[1, 2, None, 4]), "bbox holds None"),
        (lambda d: d["annotations"][0].pop("image_id"), "'image_id' of annotation id 1 is missing"),
        (
            lambda d: d["annotations"][0].update(image_id="100"),
            "'image_id' of annotation id 1 is '100'; it must be a whole",
        ),
        (lambda d: d["annotations"][0].update(segmentation=["a"]), "annotation id 1: segmentation is neither"),
        (lambda d: d["annotations"][0].update(segmentation=[["a"]]), "a polygon that is not a list of numbers"),
        (lambda d: d["categories"][1].update(name="bolt"), "class name bolt is given more than once"),
        (lambda d: d["categories"][1].update(id=3), "category id 3 is given more than once"),
        (lambda d: d["categories"][1].pop("name"), "category 7 has no name"),
        (lambda d: d["categories"].clear(), "'categories' is empty. Export the annotations again"),
        (lambda d: d["images"].clear() or d["annotations"].clear(), "has no images"),
        (lambda d: d.pop("annotations"), "no 'annotations' list in it (it has 'images', 'categories')"),
        (lambda d: d.update(images={}), "'images' must be a list of objects, it is a dict"),
        (lambda d: d["images"][0].update(width=-5), "has width -5 and height 37"),
        (lambda d: d["images"][0].update(width=1e400), "has width inf"),
        (lambda d: d["images"][0].update(width=2**31 - 1), "a.png: annotated as 2147483647 x 37"),
        (lambda d: d["images"][0].update(file_name="../../etc/x.png"), "leads out of the dataset's folder"),
        (lambda d: d["images"][0].update(file_name="/etc/passwd"), "leads out of the dataset's folder"),
        (lambda d: d["images"][0].update(file_name="a\0.png"), "'a\\x00.png' is not a file name"),
        (lambda d: d["images"][0].update(file_name="\ud800"), "is not a file name"),
        (lambda d: d["images"][0].pop("file_name"), "image 1 (id 100) has no 'file_name'"),
    ],
)
def test_a_broken_entry_is_named(spoil: Spoil, says: str, tmp_path: Path) -> None:
    message = _open_spoilt(tmp_path, spoil)
    assert says in message
    assert "instances.json" in message or "has no images" in message or "a.png" in message


def test_a_missing_image_is_named_with_its_neighbour(tmp_path: Path) -> None:
    message = _open_spoilt(tmp_path, lambda d: d["images"][0].update(file_name="aa.png"))
    assert "image images/aa.png does not exist. Did you mean 'a.png'?" in message


def test_images_that_are_all_missing_say_where_was_looked(tmp_path: Path) -> None:
    write_json(tmp_path / "annotations/instances.json", coco_json())
    with pytest.raises(DataNotFoundError, match=r"none of its 3 images was found, such as a.png. Looked in .*images"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the file is empty"),
        ('{"images": [\n {"id": 1},\n', "line 3, column 1: not JSON"),
        ('{"images": [1,}', "line 1, column 15: not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("[]", "holds a list, as detection results do"),
        ("3", "no 'images' list"),
        ('{"images": ' + "9" * 5000 + "}", "not JSON that can be read"),
    ],
)
def test_broken_json_says_where(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        open_dataset(write_text(tmp_path / "mine.json", text))
    assert says in str(caught.value)


def test_text_that_is_not_utf8_says_in_which_line(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_bytes(b'{\n"images": "\xff"}')
    with pytest.raises(DataError, match="line 2: not UTF-8"):
        open_dataset(tmp_path / "mine.json")


def test_labels_go_by_category_id_whatever_the_order_of_the_list(tmp_path: Path) -> None:
    write_coco(tmp_path)
    data = coco_json()
    data["categories"].reverse()
    write_json(tmp_path / "annotations/instances.json", data)
    dataset = open_dataset(tmp_path)
    assert dataset.classes.ids == (3, 7, 11)
    assert dataset.targets(0).labels.tolist() == [1, 0]


def test_objects_in_any_order_find_their_image(tmp_path: Path) -> None:
    write_coco(tmp_path)
    data = coco_json()
    data["annotations"].reverse()
    write_json(tmp_path / "annotations/instances.json", data)
    dataset = open_dataset(tmp_path)
    assert [dataset.targets(k).labels.tolist() for k in range(3)] == [[0, 1], [], [2]]


def test_a_missing_size_is_read_from_the_header(tmp_path: Path) -> None:
    write_coco(tmp_path)
    data = coco_json()
    for image in data["images"]:
        del image["width"], image["height"]
    write_json(tmp_path / "annotations/instances.json", data)
    assert tuple(open_dataset(tmp_path).size(2)) == (7, 101)


def test_windows_separators_are_understood(tmp_path: Path) -> None:
    write_coco(tmp_path)
    data = coco_json()
    save_image(tmp_path / "images/part/a.png", 53, 37)
    data["images"][0]["file_name"] = "part\\a.png"
    write_json(tmp_path / "annotations/instances.json", data)
    assert open_dataset(tmp_path).path(0) == str(tmp_path / "images/part/a.png")


def test_area_and_segmentation_come_back_as_written(tmp_path: Path) -> None:
    write_coco(tmp_path)
    data = coco_json()
    polygon, runs = [[3.5, 4, 20, 4, 20, 30]], {"size": [37, 53], "counts": [37, 74, 1850]}
    data["annotations"][0] |= {"area": 211.25, "segmentation": polygon}
    data["annotations"][1] |= {"segmentation": runs, "iscrowd": 1}
    write_json(tmp_path / "annotations/instances.json", data)
    first, second, third = open_dataset(tmp_path).coco()["annotations"]
    assert (first["area"], first["segmentation"]) == (211.25, polygon)
    assert (second["segmentation"], second["iscrowd"]) == (runs, 1)
    assert "segmentation" not in third


def test_masks_are_decoded_from_polygons_runs_and_boxes(tmp_path: Path) -> None:
    write_coco(tmp_path)
    data = coco_json()
    data["annotations"][0]["segmentation"] = [[10, 5, 20, 5, 20, 15, 10, 15]]
    # Runs go down the columns: column 0 is out, columns 1 and 2 are in.
    data["annotations"][1]["segmentation"] = {"size": [37, 53], "counts": [37, 74, 1850]}
    write_json(tmp_path / "annotations/instances.json", data)
    dataset = open_dataset(tmp_path)
    masks = dataset.targets(0, masks=True).masks.dense()
    assert tuple(masks.shape) == (2, 37, 53)
    assert int(masks[0].sum()) == 100
    assert masks[0, 5:15, 10:20].all()
    assert masks[1].any(dim=0).nonzero().flatten().tolist() == [1, 2]
    only_a_box = dataset.targets(2, masks=True).masks
    assert only_a_box.dense()[0].nonzero().amin(0).tolist() == [2, 50]
    assert dataset.targets(1, masks=True).masks is not None
    assert dataset.targets(0).masks is None


@pytest.mark.parametrize(
    ("segmentation", "says"),
    [
        ({"size": [9, 9], "counts": [81]}, "run-length code for height, width"),
        ({"size": [37, 53], "counts": [5]}, "do not add up"),
        ({"size": [37, 53], "counts": [-1, 1962]}, "do not add up"),
        ({"size": [37, 53], "counts": "\x7f\x7f"}, "none of COCO's code"),
        ({"size": [37, 53], "counts": "P0"}, "do not add up"),
        ([[1, 1, 9, 1, 9, 9, 1]], "an odd count"),
        ([[1, 1, 1e12, 1, 9, 9]], "far out of the 53 x 37 image"),
        ([[1, 1, float("nan"), 1, 9, 9]], "far out of the 53 x 37 image"),
    ],
)
def test_a_broken_outline_is_named_when_decoded(segmentation: Any, says: str, tmp_path: Path) -> None:
    write_coco(tmp_path)
    data = coco_json()
    data["annotations"][1]["segmentation"] = segmentation
    write_json(tmp_path / "annotations/instances.json", data)
    with pytest.raises(DataError, match=r"a.png: object 2: broken segmentation") as caught:
        open_dataset(tmp_path).targets(0, masks=True)
    assert says in str(caught.value)


_leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just([]) | st.just({})
_values = _leaves | st.lists(_leaves, max_size=4) | st.dictionaries(st.text(max_size=3), _leaves, max_size=2)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_anywhere_opens_or_raises_our_error(data: st.DataObject, tmp_path: Path) -> None:
    if not (tmp_path / "images").exists():
        write_coco(tmp_path)
    spoilt = coco_json()
    entry = data.draw(st.sampled_from([spoilt, *(record for records in spoilt.values() for record in records)]))
    entry[data.draw(st.sampled_from([*entry, "segmentation", "area"]))] = data.draw(_values)
    write_json(tmp_path / "annotations/instances.json", spoilt)
    with suppress(FpnError):
        dataset = open_dataset(tmp_path, drop_invalid=True)
        for index in range(len(dataset)):
            dataset.targets(index, masks=True)
        dataset.coco()
