"""The preprocessor as a graph gives what the preprocessor gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from fpn.errors import ConfigError
from fpn.export.inside import InsidePreprocessor
from fpn.preprocessing.config import PixelsConfig
from fpn.preprocessing.preprocessor import Preprocessor
from fpn.preprocessing.resizing import FRAMES
from fpn.shapes import Size

SIZES = [(96, 160), (50, 70), (333, 201), (37, 500), (1, 1), (3, 5), (641, 480), (463, 201), (90, 41)]


def _preprocessor(**settings: object) -> Preprocessor:
    return Preprocessor(
        PixelsConfig(mean=(0.4, 0.5, 0.45), std=(0.2, 0.21, 0.22), short_side=96, long_side=160).changed(**settings)
    )


def _noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (2, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_pillows_resize_is_the_same_to_the_bit(height: int, width: int) -> None:
    preprocessor, images = _preprocessor(pad_before_mean=True, channel_order="bgr"), _noise(height, width)
    prepared = [preprocessor.prepare(Image.fromarray(image)) for image in images]
    wanted = preprocessor.collate([each.pixels for each in prepared])
    pixels, sizes, scales, limits, _ = InsidePreprocessor(preprocessor)(torch.from_numpy(images))
    assert torch.equal(pixels, wanted.pixels)
    assert torch.equal(sizes, wanted.sizes)
    assert torch.equal(scales, torch.tensor(prepared[0].frame.scale).flip(0).repeat(2))
    assert limits.tolist() == [width, height, width, height]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_torchs_resize_is_the_same_but_for_the_last_digit(height: int, width: int) -> None:
    preprocessor, images = _preprocessor(resize="torch"), _noise(height, width)
    wanted = preprocessor.collate([preprocessor.prepare(Image.fromarray(image)).pixels for image in images])
    pixels, sizes, *_ = InsidePreprocessor(preprocessor)(torch.from_numpy(images))
    assert torch.equal(sizes, wanted.sizes)
    torch.testing.assert_close(pixels, wanted.pixels, rtol=0, atol=2e-6)


@pytest.mark.parametrize("doubles", [True, False])
@pytest.mark.parametrize("resize", ["pillow", "torch"])
def test_sides_are_those_of_the_preprocessor_also_without_float64(
    resize: str, doubles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = InsidePreprocessor(_preprocessor(resize=resize))
    if not doubles:  # as in OpenVINO
        monkeypatch.setattr(torch, "float64", torch.float32)
    random = np.random.default_rng(0)
    for size in [(height, height + 36) for height in range(1, 300)] + random.integers(1, 900, (400, 2)).tolist():
        frame = FRAMES[resize](Size(*size), 96, 160)
        assert inside._network(torch.tensor(size)).tolist() == list(frame.network), size


def test_a_resize_that_no_graph_holds_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"'opencv': only pillow and torch can be inside of a file. Export with --bare"
    ):
        InsidePreprocessor(_preprocessor(resize="opencv"))
