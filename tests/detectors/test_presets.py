from __future__ import annotations

from dataclasses import replace

import pytest

import fpn
from fpn.detectors import PAPER, TORCHVISION
from fpn.detectors.presets import adapt_dialect, roi_levels
from fpn.errors import ConfigError
from fpn.structures import Level


def test_the_longer_side_follows_the_shorter_one() -> None:
    spoken = adapt_dialect("paper", short_side=400)
    assert (spoken.short_side, spoken.long_side) == (400, round(1333 / 2))
    assert adapt_dialect("paper", short_side=400, long_side=500).long_side == 500


def test_single_conventions_can_be_changed() -> None:
    assert adapt_dialect("torchvision", score_limit=0.3) == replace(TORCHVISION, score_limit=0.3)


def test_unknown_names_get_the_nearest_known_one() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'torchvision'"):
        adapt_dialect("torchvison")
    with pytest.raises(ConfigError, match="Did you mean 'score_limit'"):
        adapt_dialect(PAPER, score_limits=0.3)


def test_pixel_statistics_left_open_are_the_backbones(small) -> None:
    # tf_efficientnet_lite0 was trained on pixels from -1 to 1.
    assert small.preprocessor.mean == (0.5, 0.5, 0.5)
    assert small.recipe["dialect"]["mean"] == (0.5, 0.5, 0.5)


def test_a_detector_needs_a_class() -> None:
    with pytest.raises(ConfigError, match="at least one class"):
        fpn.faster_rcnn(backbone="tf_efficientnet_lite0", weights=None, classes=[])


def test_rois_are_read_up_to_level_five() -> None:
    levels = tuple(Level(f"p{k}", 8, 2**k) for k in range(2, 7))
    assert [level.name for level in roi_levels(levels)] == ["p2", "p3", "p4", "p5"]
    assert roi_levels(levels[-1:]) == levels[-1:]
