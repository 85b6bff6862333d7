from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from written_sets import Annotation, Shot, write_coco

import fpn
from fpn.data.loading.loader import make_loader
from fpn.detectors.toolkits import DETECTRON2, TORCHVISION
from fpn.errors import DataError, ImageError
from fpn.image_io import read_image, read_reduced
from fpn.preprocessing.preprocessor import Preprocessor
from fpn.shapes import Size


def preprocessor(short_side: int, dialect: str = "pillow") -> Preprocessor:
    chosen = DETECTRON2 if dialect == "pillow" else TORCHVISION
    # One grey level is one unit of the network's pixels.
    scale = {"value_range": 255.0, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "channel_order": "rgb"}
    return Preprocessor(chosen.pixels.changed(**scale, short_side=short_side, long_side=None))


def waves(path: Path, width: int, height: int, *, orientation: int = 1, mode: str = "RGB") -> Path:
    """Soft stripes 80 pixels apart along a slant: a shift by one pixel changes them by 5 levels on average."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    wave = (127 + 100 * np.sin((x + 0.5 * y) * 2 * np.pi / 80)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.stack([wave, 255 - wave, wave], axis=2)).convert(mode).save(path, quality=95, exif=exif)
    return path


@pytest.mark.parametrize(
    ("width", "height", "stored"), [(800, 600, (200, 150)), (801, 603, (201, 151)), (399, 399, (399, 399))]
)
def test_the_decoder_leaves_twice_the_networks_size_at_least(
    tmp_path: Path, width: int, height: int, stored: tuple[int, int]
) -> None:
    image, full = read_reduced(
        waves(tmp_path / "large.jpg", width, height), preprocessor(75 if width > 400 else 100).min_size
    )
    assert image.size == stored
    assert full == (height, width)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_turned_image_comes_upright_whatever_its_colours(tmp_path: Path, mode: str) -> None:
    path = waves(tmp_path / "turned.jpg", 960, 640, orientation=6, mode=mode)
    image, full = read_reduced(path, preprocessor(100).min_size)
    assert full == (960, 640)
    assert image.size == (320, 480)
    apart = preprocessor(100).prepare(image).pixels - preprocessor(100).prepare(read_image(path)).pixels
    assert apart.abs().mean() < 1.0


def test_a_turned_image_that_does_not_divide_evenly_is_read_in_full(tmp_path: Path) -> None:
    path = waves(tmp_path / "turned.jpg", 901, 603, orientation=6)
    assert read_reduced(path, preprocessor(100).min_size)[0].size == (603, 901)


def test_other_files_and_damaged_ones_are_as_ever(tmp_path: Path) -> None:
    Image.new("RGB", (800, 600)).save(tmp_path / "large.png")
    assert read_reduced(tmp_path / "large.png", preprocessor(75).min_size)[0].size == (800, 600)
    path = waves(tmp_path / "large.jpg", 800, 600)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ImageError, match=r"large\.jpg: the image is damaged"):
        read_reduced(path, preprocessor(75).min_size)


def test_a_dialect_without_antialiasing_and_a_zoom_need_more() -> None:
    assert preprocessor(75).min_size(Size(600, 800)) == (150, 200)
    assert preprocessor(75).min_size(Size(600, 800), zoom=1.5) == (225, 300)
    assert preprocessor(75, "torch").min_size(Size(600, 800)) == (600, 800)


def write_set(folder: Path, width: int, height: int) -> Path:
    """One image with one object."""
    root = write_coco(folder, (Shot("a.jpg", width, height, (Annotation("nut", (100, 200, 300, 280)),)),))
    waves(root / "images" / "a.jpg", width, height)
    return root


def test_training_reads_large_jpegs_reduced_and_their_boxes_stay_where_they_are(tmp_path: Path) -> None:
    dataset = fpn.open_dataset(write_set(tmp_path / "set", 800, 600))
    options = {
        "prepare": preprocessor(75).prepare,
        "collate": preprocessor(75).collate,
        "num_workers": 0,
        "batch_size": 1,
    }
    (full,) = make_loader(dataset, **options)
    (reduced,) = make_loader(dataset, min_size=partial(preprocessor(75).min_size, zoom=1.0), **options)
    assert torch.allclose(reduced.targets[0].boxes, full.targets[0].boxes)
    assert reduced.images.pixels.shape == full.images.pixels.shape
    apart = (reduced.images.pixels - full.images.pixels).abs().mean()
    assert 0 < apart < 1


def test_a_image_scaled_after_labelling_is_noticed_all_the_same(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", 800, 600)
    waves(root / "images" / "a.jpg", 400, 300)
    dataset = fpn.open_dataset(root)
    with pytest.raises(DataError, match="the image is 400 x 300 but its annotation says 800 x 600"):
        dataset.sample(0, min_size=preprocessor(75).min_size)
