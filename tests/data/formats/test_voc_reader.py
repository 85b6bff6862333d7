from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from written_sets import CLASSES, SHOTS, save_image, voc_xml, write_text, write_voc

from fpn.data import open_dataset
from fpn.data.checks.inspection import check
from fpn.errors import DataError, DataNotFoundError, FpnError

BILLION_LAUGHS = """<?xml version="1.0"?>
<!DOCTYPE annotation [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]>
<annotation><filename>&c;</filename></annotation>"""
READS_FILES = """<!DOCTYPE annotation [<!ENTITY x SYSTEM "file:///etc/passwd">]>
<annotation><filename>&x;</filename></annotation>"""
FIRST = voc_xml(SHOTS[0])


def _message(root: Path, xml: str) -> str:
    """The message that opening a set with `xml` as first annotation stops with."""
    write_voc(root)
    write_text(root / "Annotations/a.xml", xml)
    with pytest.raises(FpnError) as caught:
        open_dataset(root)
    return str(caught.value)


@pytest.mark.parametrize(
    ("xml", "says"),
    [
        ("", "a.xml: the file is empty"),
        (FIRST.replace("</annotation>", ""), "a.xml, line 6, column 1: broken XML (no element found)"),
        (FIRST.replace("</name>", "</nam>", 1), "line 3"),
        (BILLION_LAUGHS, "declares XML entities"),
        (READS_FILES, "declares XML entities"),
        ("<html></html>", "the root element is <html>; a VOC file has <annotation>"),
        (FIRST.replace("<name>nut</name>", ""), "object 1 has no <name>"),
        (FIRST.replace("<xmin>3</xmin>", ""), "object 1 (nut) has no <xmin>"),
        (FIRST.replace("<xmin>3</xmin>", "<xmin>three</xmin>"), "object 1 (nut): <xmin> is 'three', not a number"),
        (FIRST.replace("<xmin>3</xmin>", "<xmin>nan</xmin>"), "object 1 (nut) has box (nan, 4, 20, 30): not finite"),
        (FIRST.replace("<xmin>3</xmin>", "<xmin>30</xmin>"), "object 1 (nut) has box (30, 4, 20, 30): width -10"),
        (FIRST.replace("<width>53</width>", "<width>-53</width>"), "width '-53' and height '37' in <size>"),
        (FIRST.replace("<width>53</width>", "<width>wide</width>"), "width 'wide'"),
    ],
)
def test_a_broken_file_is_named_with_its_object(xml: str, says: str, tmp_path: Path) -> None:
    message = _message(tmp_path, xml)
    assert says in message
    assert "a.xml" in message


def test_an_annotation_without_its_image_is_named(tmp_path: Path) -> None:
    write_voc(tmp_path)
    (tmp_path / "JPEGImages/a.png").unlink()
    with pytest.raises(DataNotFoundError, match=r"Annotations/a.xml: its image does not exist. Looked in JPEGImages"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("name", ["../../etc/passwd.png", "/etc/passwd.png"])
def test_a_file_name_that_leads_out_is_refused(name: str, tmp_path: Path) -> None:
    write_voc(tmp_path)
    (tmp_path / "JPEGImages/a.png").unlink()
    write_text(tmp_path / "Annotations/a.xml", FIRST.replace("a.png", name))
    with pytest.raises(DataError, match=r"a.xml: <filename>: file name .* leads out of the dataset's folder"):
        open_dataset(tmp_path)


def test_the_file_name_inside_is_used_when_no_image_is_called_like_the_xml(tmp_path: Path) -> None:
    write_voc(tmp_path)
    (tmp_path / "JPEGImages/a.png").rename(tmp_path / "JPEGImages/first.png")
    write_text(tmp_path / "Annotations/a.xml", FIRST.replace("a.png", "first.png"))
    assert open_dataset(tmp_path).path(0) == str(tmp_path / "JPEGImages/first.png")


@pytest.mark.parametrize(
    ("lines", "error", "says"),
    [
        ("a\nzz\n", DataNotFoundError, "train.txt lists 'zz', but there is no Annotations/zz.xml"),
        ("a\nb\na\n", DataError, "'a' is listed twice (entries 1 and 3)"),
        ("a\n../../x\n", DataError, "file name '../../x.xml' leads out"),
        ("\n", DataError, "has no images"),
    ],
)
def test_a_broken_list_is_named(lines: str, error: type[Exception], says: str, tmp_path: Path) -> None:
    write_voc(tmp_path)
    write_text(tmp_path / "ImageSets/Main/train.txt", lines)
    with pytest.raises(error) as caught:
        open_dataset(tmp_path)
    assert says in str(caught.value)


@pytest.mark.parametrize("lines", ["a\nb\n", "a.png\nb.png\n", "a  1 x\nb 1 x\n"])
def test_list_entries_may_carry_suffixes_and_flags(lines: str, tmp_path: Path) -> None:
    write_voc(tmp_path)
    write_text(tmp_path / "ImageSets/Main/train.txt", lines)
    assert len(open_dataset(tmp_path)) == 2


def test_a_list_of_classes_fixes_their_order_and_catches_misspellings(tmp_path: Path) -> None:
    write_voc(tmp_path)
    write_text(tmp_path / "labels.txt", "washer\nbolt\nnut\n")
    dataset = open_dataset(tmp_path)
    assert dataset.classes.names == ("washer", "bolt", "nut")
    assert dataset.targets(0).labels.tolist() == [2, 1]
    write_text(tmp_path / "labels.txt", "washers\nbolt\nnut\n")
    with pytest.raises(DataError, match=r"c.xml: object 1 has class 'washer'.*Did you mean 'washers'\?"):
        open_dataset(tmp_path)


def test_a_set_without_any_object_asks_for_a_list_of_classes(tmp_path: Path) -> None:
    write_voc(tmp_path, SHOTS[1:2])
    with pytest.raises(DataError, match=r"none of its annotation files names an object.*labels.txt"):
        open_dataset(tmp_path)
    write_text(tmp_path / "labels.txt", "\n".join(CLASSES))
    assert len(open_dataset(tmp_path).targets(0)) == 0


def test_a_missing_size_is_read_from_the_header(tmp_path: Path) -> None:
    write_voc(tmp_path)
    write_text(tmp_path / "Annotations/a.xml", FIRST.replace("<width>53</width>", "<width>0</width>"))
    assert tuple(open_dataset(tmp_path).size(0)) == (37, 53)


def test_parts_of_objects_are_not_objects(tmp_path: Path) -> None:
    write_voc(tmp_path)
    part = "<part><name>thread</name><bndbox><xmin>1</xmin></bndbox></part></object>"
    write_text(tmp_path / "Annotations/a.xml", FIRST.replace("</object>", part, 1))
    dataset = open_dataset(tmp_path)
    assert dataset.classes.names == CLASSES
    assert len(dataset.targets(0)) == 2


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    start=st.integers(0, len(FIRST)),
    length=st.integers(0, 30),
    patch=st.text(max_size=8) | st.just("<a>") | st.just("9e999"),
)
def test_any_cut_or_patch_opens_or_raises_our_error(start: int, length: int, patch: str, tmp_path: Path) -> None:
    if not (tmp_path / "JPEGImages").exists():
        write_voc(tmp_path)
    spoilt = FIRST[:start] + patch + FIRST[start + length :]
    (tmp_path / "Annotations/a.xml").write_bytes(spoilt.encode("utf-8", "surrogatepass"))
    with suppress(FpnError):
        dataset = open_dataset(tmp_path, drop_invalid=True)
        assert len(dataset.coco()["images"]) == 3


def test_a_image_in_another_folder_of_the_tree_is_found(tmp_path: Path) -> None:
    for shot in SHOTS:
        save_image(tmp_path / "images" / shot.file, shot.width, shot.height)
        write_text(tmp_path / f"annotations/{Path(shot.file).stem}.xml", voc_xml(shot))
    assert open_dataset(tmp_path).path(0) == str(tmp_path / "images/a.png")


def _numbered(root: Path, values: np.ndarray, mode: str = "P") -> None:
    (root / "SegmentationObject").mkdir(exist_ok=True)
    Image.fromarray(values).convert(mode).save(root / "SegmentationObject/a.png")


def test_masks_are_the_pixels_with_an_objects_number(tmp_path: Path) -> None:
    """Two objects; a seam of 255 between them belongs to none."""
    write_voc(tmp_path)
    values = np.zeros((37, 53), dtype=np.uint8)
    values[4:30, 3:20], values[:, 20], values[0:10, 21:53] = 1, 255, 2
    _numbered(tmp_path, values, "L")
    targets = open_dataset(tmp_path).targets(0, masks=True)
    assert targets.masks is not None
    assert targets.masks.areas().tolist() == [26 * 17, 10 * 32]
    assert not check(tmp_path).of("file-aside")
    # An object without a pixel is its box.
    values[values == 2] = 0
    _numbered(tmp_path, values, "L")
    targets = open_dataset(tmp_path).targets(0, masks=True)
    assert targets.masks is not None
    x1, y1, x2, y2 = targets.boxes[1].tolist()
    assert targets.masks.areas().tolist() == [26 * 17, (x2 - x1) * (y2 - y1)]


def test_a_png_of_masks_that_does_not_fit_is_named(tmp_path: Path) -> None:
    write_voc(tmp_path)
    _numbered(tmp_path, np.zeros((37, 50), dtype=np.uint8), "L")
    with pytest.raises(DataError, match=r"SegmentationObject/a.png: 50 x 37 pixels, its image is said to have 53 x 37"):
        open_dataset(tmp_path)
    _numbered(tmp_path, np.zeros((37, 53), dtype=np.uint8), "RGB")
    with pytest.raises(DataError, match=r"a.png: has colours \(RGB\) where each pixel should be the number"):
        open_dataset(tmp_path)
    (tmp_path / "SegmentationObject/a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"SegmentationObject/a.png: can't be read"):
        open_dataset(tmp_path)
