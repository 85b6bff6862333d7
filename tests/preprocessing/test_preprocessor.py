from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from fpn.detectors import PAPER
from fpn.errors import ConfigError
from fpn.preprocessing.preprocessor import Preprocessor
from fpn.shapes import Size
from fpn.structures import Detections, Masks, Targets

PIXELS = PAPER.pixels.changed(mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0), short_side=8, long_side=16)
PREPROCESSOR = Preprocessor(PIXELS)


def _plain(height: int, width: int, colour: tuple[int, int, int] = (255, 0, 51)) -> Image.Image:
    return Image.new("RGB", (width, height), colour)


def test_pixels_are_scaled_and_normalised_by_channel() -> None:
    pixels = PREPROCESSOR.prepare(_plain(8, 12)).pixels
    assert pixels.shape == (3, 8, 12)
    assert pixels[:, 0, 0].tolist() == pytest.approx([1.0, -1.0, 0.2])


def test_colour_order_can_be_turned() -> None:
    turned = Preprocessor(PIXELS.changed(channel_order="bgr", value_range=255.0, mean=(0.0,) * 3, std=(1.0,) * 3))
    assert turned.prepare(_plain(8, 8)).pixels[:, 0, 0].tolist() == [51.0, 0.0, 255.0]


@pytest.mark.parametrize("changes", [{}, {"channel_order": "bgr", "value_range": 255.0}, {"resize": "torch"}])
@pytest.mark.parametrize("height", [8, 16], ids=["as it is", "halved"])
def test_what_is_normalised_later_is_the_same_to_the_bit(changes: dict[str, object], height: int) -> None:
    values = np.random.default_rng(0).integers(0, 256, (height, 2 * height, 3), dtype=np.uint8)
    config = PIXELS.changed(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), **changes)
    now, later = Preprocessor(config), Preprocessor(config, deferred=True)
    prepared = later.prepare(Image.fromarray(values))
    assert not prepared.normalised
    assert float(prepared.pixels.max()) > 100
    assert torch.equal(later.normalise(prepared, torch.device("cpu")), now.prepare(Image.fromarray(values)).pixels)


@pytest.mark.parametrize(
    ("original", "network"),
    [((16, 20), (8, 10)), ((20, 16), (10, 8)), ((4, 5), (8, 10)), ((10, 40), (4, 16)), ((1, 1000), (1, 16))],
    ids=["halved", "upright", "enlarged", "long side counts", "never below one pixel"],
)
def test_the_shorter_side_is_met_unless_the_longer_would_be_exceeded(original, network) -> None:
    prepared = PREPROCESSOR.prepare(_plain(*original))
    assert tuple(prepared.pixels.shape[1:]) == network


def test_targets_move_with_the_pixels_and_detections_move_back() -> None:
    truth = Targets(torch.tensor([[2.0, 4.0, 12.0, 16.0]]), torch.tensor([1]))
    prepared = PREPROCESSOR.prepare(_plain(16, 24), truth)
    assert prepared.targets.boxes.tolist() == [[1.0, 2.0, 6.0, 8.0]]
    found = Detections(prepared.targets.boxes, torch.ones(1), torch.tensor([1]))
    assert PREPROCESSOR.restore(found, prepared.frame).boxes.tolist() == [[2.0, 4.0, 12.0, 16.0]]


def test_masks_follow_the_pixels() -> None:
    boxes = torch.tensor([[0.0, 0.0, 8.0, 16.0]])
    truth = Targets(boxes, torch.tensor([0]), masks=Masks.of_boxes(boxes, Size(16, 16)))
    resized = PREPROCESSOR.prepare(_plain(16, 16), truth).targets.masks.dense()
    assert resized.shape == (1, 8, 8)
    assert resized[0, 0].tolist() == [True] * 4 + [False] * 4


def test_a_batch_is_padded_with_zeros_to_a_multiple_of_32() -> None:
    images = PREPROCESSOR.collate([torch.ones(3, 8, 10), torch.ones(3, 7, 40)])
    assert images.pixels.shape == (2, 3, 32, 64)
    assert images.sizes.tolist() == [[8, 10], [7, 40]]
    assert float(images.pixels[0].sum()) == 3 * 8 * 10


def test_padding_before_the_mean_is_what_black_becomes() -> None:
    images = Preprocessor(PIXELS.changed(pad_before_mean=True)).collate([torch.zeros(3, 8, 8)])
    assert images.pixels[0, :, 31, 31].tolist() == [-1.0, -1.0, 0.0]
    assert images.pixels[0, :, 0, 0].tolist() == [0.0, 0.0, 0.0]


def test_a_preprocessor_without_statistics_is_refused() -> None:
    with pytest.raises(ConfigError, match="left to the backbone"):
        Preprocessor(PAPER.pixels)


def test_the_resized_image_is_antialiased() -> None:
    # Alternating columns of black and white average out instead of leaving one of them.
    stripes = np.zeros((16, 16, 3), np.uint8)
    stripes[:, ::2] = 255
    pixels = Preprocessor(PIXELS.changed(mean=(0.0,) * 3, std=(1.0,) * 3)).prepare(Image.fromarray(stripes)).pixels
    assert float(pixels[0, 4, 2:6].std()) < 0.1


def test_a_mask_on_a_region_is_pasted_there_and_its_box_drawn_around_it() -> None:
    frame = PREPROCESSOR.prepare(_plain(16, 16)).frame  # 2 pixels of the image are one of the network's
    regions = torch.tensor([[1.0, 1.0, 5.0, 5.0], [-4.0, 0.0, 4.0, 8.0], [-4.0, 0.0, 4.0, 8.0]])
    full, left, right = torch.ones(2, 2), torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    found = Detections(
        torch.zeros(3, 4),
        torch.tensor([0.9, 0.8, 0.7]),
        torch.zeros(3, dtype=torch.int64),
        mask_probabilities=torch.stack([full, left, right]),
        mask_regions=regions,
    )
    restored = PREPROCESSOR.restore(found, frame)
    # The second one's left half lies left of the image: there is nothing of it. The third one's right half is 0 to 8.
    assert restored.scores.tolist() == pytest.approx([0.9, 0.7])
    assert restored.boxes.tolist() == [[2, 2, 10, 10], [0, 0, 8, 16]]
    assert restored.masks.dense()[1, 8].tolist() == [True] * 8 + [False] * 8
    assert restored.mask_probabilities is restored.mask_regions is None
