from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fpn.detectors.dialects import DETECTRON2, TORCHVISION
from fpn.detectors.preprocessing import Preprocessor
from fpn.errors import PictureError
from fpn.pictures import read_picture


def door(short_side: int, dialect: str = "pillow") -> Preprocessor:
    chosen = DETECTRON2 if dialect == "pillow" else TORCHVISION
    # One grey level is one unit of the network's pixels.
    scale = {"value_range": 255.0, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "channel_order": "rgb"}
    return replace(Preprocessor.of(replace(chosen, **scale)), short_side=short_side, long_side=None)


def waves(path: Path, width: int, height: int, *, orientation: int = 1, mode: str = "RGB") -> Path:
    """Soft stripes 80 pixels apart along a slant: a shift by one pixel changes them by 5 levels on average."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    wave = (127 + 100 * np.sin((x + 0.5 * y) * 2 * np.pi / 80)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.stack([wave, 255 - wave, wave], axis=2)).convert(mode).save(path, quality=95, exif=exif)
    return path


@pytest.mark.parametrize(("width", "height"), [(800, 600), (801, 603), (807, 1005)])
def test_a_reduced_picture_looks_as_the_full_one_and_leads_back_to_the_same_size(
    tmp_path: Path, width: int, height: int
) -> None:
    path = waves(tmp_path / "large.jpg", width, height)
    mine, full = door(100).read(path), door(100).prepare(read_picture(path))
    assert mine.frame == full.frame
    assert mine.frame.original == (height, width)
    assert mine.pixels.shape == full.pixels.shape
    assert not torch.equal(mine.pixels, full.pixels), "it was read in full"
    assert (mine.pixels - full.pixels).abs().mean() < 1.0


def test_a_picture_less_than_twice_two_times_as_large_is_read_in_full(tmp_path: Path) -> None:
    path = waves(tmp_path / "medium.jpg", 399, 399)
    assert torch.equal(door(100).read(path).pixels, door(100).prepare(read_picture(path)).pixels)


def test_a_dialect_without_antialiasing_gets_its_exact_pixels(tmp_path: Path) -> None:
    path = waves(tmp_path / "large.jpg", 800, 600)
    exact = door(100, "torch").prepare(read_picture(path))
    assert torch.equal(door(100, "torch").read(path).pixels, exact.pixels)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_rotated_picture_comes_upright_whatever_its_colours(tmp_path: Path, mode: str) -> None:
    path = waves(tmp_path / "turned.jpg", 900, 600, orientation=6, mode=mode)
    mine, full = door(100).read(path), door(100).prepare(read_picture(path))
    assert mine.frame.original == (900, 600)
    assert (mine.pixels - full.pixels).abs().mean() < 1.0


def test_a_turned_picture_that_does_not_divide_evenly_is_read_in_full(tmp_path: Path) -> None:
    path = waves(tmp_path / "turned.jpg", 901, 603, orientation=6)
    assert torch.equal(door(100).read(path).pixels, door(100).prepare(read_picture(path)).pixels)


def test_a_damaged_picture_is_refused_with_the_usual_words(tmp_path: Path) -> None:
    path = waves(tmp_path / "large.jpg", 800, 600)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(PictureError, match=r"large\.jpg: the picture is damaged"):
        door(100).read(path)
