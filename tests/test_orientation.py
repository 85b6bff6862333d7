"""An image stands one way, whatever its format and whoever asks: all eight orientations that EXIF knows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, features
from written_sets import write_json, write_text

from fpn.data import open_dataset
from fpn.data.checks.images import inspect_images
from fpn.data.checks.inspection import check
from fpn.data.checks.repair import repair
from fpn.drawing import draw
from fpn.image_io import image_size, read_image, read_reduced
from fpn.shapes import Size
from fpn.structures import Classes

# Upright: 64 wide, 32 high; a red quarter at the top left, the rest blue. The object is the red quarter.
RED, BLUE = (220, 30, 20), (20, 30, 220)
BOX = (0, 0, 32, 16)
# How an upright image is stored so that EXIF's number turns it back.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
SUFFIXES = [".jpg", ".tif", ".png", ".webp", ".mpo", *([".avif"] if features.check("avif") else []), ".heic"]


def _upright() -> Image.Image:
    image = Image.new("RGB", (64, 32), BLUE)
    image.paste(RED, BOX)
    return image


def _save(path: Path, orientation: int) -> None:
    if path.suffix == ".heic":
        pytest.importorskip("pillow_heif", reason="needs the extra heif").register_heif_opener()
    image, how = _upright(), STORED[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = image if how is None else image.transpose(how)
    more = {"save_all": True, "append_images": [stored]} if path.suffix == ".mpo" else {}
    quality = {} if path.suffix in (".tif", ".png") else {"quality": 95}
    # In HEIF the container turns, EXIF does not; its writer takes the turn out of EXIF's bytes.
    stored.save(path, exif=exif.tobytes() if path.suffix == ".heic" else exif, **quality, **more)


def _is_upright(image: Image.Image) -> bool:
    seen = np.asarray(image.resize((8, 4), Image.Resampling.BOX)).astype(int)
    red = seen[:, :, 0] > seen[:, :, 2]
    return image.width == 2 * image.height and bool(red[:2, :4].all()) and int(red.sum()) == 8


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_reading_reduced_reading_size_and_check_agree(suffix: str, orientation: int, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    _save(path, orientation)
    assert image_size(path) == (32, 64)
    assert _is_upright(read_image(path))
    reduced, full = read_reduced(path, lambda size: Size(size.height // 4, size.width // 4))
    assert full == (32, 64)
    assert _is_upright(reduced)
    (look,) = inspect_images([str(path)])
    assert look.size == (32, 64)
    assert look.problem == ""


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_boxes_of_yolo_lie_on_what_training_sees(suffix: str, orientation: int, tmp_path: Path) -> None:
    _save(tmp_path / f"images/a{suffix}", orientation)
    write_text(tmp_path / "labels/a.txt", "0 0.25 0.25 0.5 0.5\n")
    write_text(tmp_path / "classes.txt", "quarter\n")
    dataset = open_dataset(tmp_path)
    sample = dataset[0]
    assert sample.targets.boxes.tolist() == [[0, 0, 32, 16]]
    assert _is_upright(sample.image)
    small = dataset.sample(0, min_size=lambda size: Size(8, 16))
    factor = 64 / small.image.width
    assert (small.targets.boxes * factor).tolist() == [[0, 0, 32, 16]]
    drawn = draw(sample.image, sample.targets, Classes.of(["quarter"]))
    assert (drawn.height, drawn.width) == (32, 64)


def _coco(root: Path, file: str, size: tuple[int, int], box: list[float]) -> None:
    images = [{"id": 1, "file_name": file, "height": size[0], "width": size[1]}]
    objects = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": box}]
    write_json(
        root / "annotations/instances.json",
        {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "quarter"}]},
    )


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_coco_set_of_upright_sizes_is_right_as_it_is(suffix: str, orientation: int, tmp_path: Path) -> None:
    _save(tmp_path / f"images/a{suffix}", orientation)
    _coco(tmp_path, f"a{suffix}", (32, 64), [0, 0, 32, 16])
    report = check(tmp_path)
    assert [each.message for each in report.findings if each.kind in ("exif-rotation", "size-differs")] == []
    assert open_dataset(tmp_path)[0].targets.boxes.tolist() == [[0, 0, 32, 16]]


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("suffix", [".jpg", ".tif", ".png", ".webp", ".mpo"])
def test_fix_turns_boxes_that_were_drawn_on_the_stored_image(suffix: str, orientation: int, tmp_path: Path) -> None:
    _save(tmp_path / f"set/images/a{suffix}", orientation)
    # Where the red quarter, 32 wide and 16 high, lies in the image as stored: 32 wide, 64 high.
    x, y = {5: (0, 0), 6: (0, 32), 7: (16, 32), 8: (16, 0)}[orientation]
    _coco(tmp_path / "set", f"a{suffix}", (64, 32), [x, y, 16, 32])
    report = check(tmp_path / "set")
    assert [each.kind for each in report.findings if each.kind == "exif-rotation"] == ["exif-rotation"]
    repair(report, tmp_path / "fixed")
    sample = open_dataset(tmp_path / "fixed")[0]
    assert sample.targets.boxes.tolist() == [[0, 0, 32, 16]]
    assert _is_upright(sample.image)


def test_orientations_that_exif_does_not_know_are_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 9
    _upright().save(tmp_path / "a.png", exif=exif)
    assert image_size(tmp_path / "a.png") == (32, 64)
    assert _is_upright(read_image(tmp_path / "a.png"))


def test_an_image_given_by_a_program_is_turned_as_its_file_is(tmp_path: Path) -> None:
    _save(tmp_path / "a.tif", 6)
    with Image.open(tmp_path / "a.tif") as opened:
        assert _is_upright(read_image(opened))
    _save(tmp_path / "a.jpg", 6)
    with Image.open(tmp_path / "a.jpg") as opened:
        assert _is_upright(read_image(opened))
        assert _is_upright(read_image(ImageOps.exif_transpose(opened)))


def test_what_was_read_is_not_turned_again(tmp_path: Path) -> None:
    for suffix in (".jpg", ".png", ".tif"):
        _save(tmp_path / f"a{suffix}", 6)
        read = read_image(tmp_path / f"a{suffix}")
        assert _is_upright(read_image(read))
        assert _is_upright(ImageOps.exif_transpose(read))


def test_the_size_of_a_png_is_known_without_its_pixels(tmp_path: Path) -> None:
    _save(tmp_path / "a.png", 6)
    whole = (tmp_path / "a.png").read_bytes()
    start, end = whole.index(b"eXIf") - 4, whole.index(b"IDAT") - 4
    exif, pixels = whole[start:end], bytearray(whole[end:])
    pixels[20:24] = b"\xff\xff\xff\xff"  # not what zlib understands
    last = len(pixels) - 12
    # EXIF behind the broken pixels.
    (tmp_path / "b.png").write_bytes(whole[:start] + bytes(pixels[:last]) + exif + bytes(pixels[last:]))
    assert image_size(tmp_path / "b.png") == (32, 64)
