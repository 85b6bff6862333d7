from __future__ import annotations

from pathlib import Path

import pytest
import torch

import fpn
from fpn.detectors import PAPER, TORCHVISION, FasterRCNN
from fpn.detectors.builder import roi_levels
from fpn.detectors.presets import adapt_dialect
from fpn.errors import ConfigError
from fpn.features.necks.paper_designs import DESIGNS
from fpn.structures import ImageBatch, Level, Targets


def test_the_longer_side_follows_the_shorter_one() -> None:
    spoken = adapt_dialect("paper", short_side=400)
    assert (spoken.pixels.short_side, spoken.pixels.long_side) == (400, round(1333 / 2))
    assert adapt_dialect("paper", short_side=400, long_side=500).pixels.long_side == 500


def test_single_conventions_can_be_changed() -> None:
    assert adapt_dialect("torchvision", box_score_limit=0.3) == TORCHVISION.changed(box_score_limit=0.3)


def test_unknown_names_get_the_nearest_known_one() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'torchvision'"):
        adapt_dialect("torchvison")
    with pytest.raises(ConfigError, match="Did you mean 'box_score_limit'"):
        adapt_dialect(PAPER, score_limits=0.3)


def test_pixel_statistics_left_open_are_the_backbones(small) -> None:
    # tf_efficientnet_lite0 was trained on pixels from -1 to 1.
    assert small.preprocessor.config.mean == (0.5, 0.5, 0.5)
    assert small.recipe.dialect.pixels.mean == (0.5, 0.5, 0.5)


def test_a_detector_needs_a_class() -> None:
    with pytest.raises(ConfigError, match="at least one class"):
        fpn.faster_rcnn(backbone="tf_efficientnet_lite0", weights=None, classes=[])


def test_rois_are_read_up_to_level_five() -> None:
    levels = tuple(Level(f"p{k}", 8, 2**k, k) for k in range(2, 7))
    assert [level.name for level in roi_levels(levels)] == ["p2", "p3", "p4", "p5"]
    assert roi_levels(levels[-1:]) == levels[-1:]


def design(name: str, **changes: object) -> FasterRCNN:
    return fpn.faster_rcnn(
        backbone="tf_efficientnet_lite0",
        weights=None,
        classes=["cell"],
        short_side=64,
        channels=8,
        head_width=8,
        neck=name,
        **changes,
    )


def test_an_unknown_design_gets_the_nearest_known_one() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'p2_only'"):
        design("p2_onyl")


@pytest.mark.parametrize("name", DESIGNS)
def test_a_detector_on_each_design_learns_detects_and_comes_back_from_its_file(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    detector = design(name)
    images = ImageBatch(torch.rand(1, 3, 64, 96), torch.tensor([[64, 96]]))
    targets = [Targets(torch.tensor([[8.0, 8.0, 40.0, 40.0]]), torch.tensor([0]))]
    detector.losses(images, targets).total.backward()
    assert all(parameter.grad is not None for parameter in detector.rpn.parameters())

    fpn.save(detector, tmp_path / "model.safetensors")
    again = fpn.load(tmp_path / "model.safetensors")
    assert again.features.levels == detector.features.levels
    detector.eval()
    with torch.no_grad():
        before, after = (each.proposals(images)[0] for each in (detector, again.eval()))
    assert torch.equal(before.boxes, after.boxes)


def test_a_single_map_has_all_sizes_in_each_cell_and_as_many_candidates() -> None:
    # Paper, section 5.1.1: 5 scales and 3 ratios on the single map; table 1f likewise on P2.
    for name in ("c4", "c5", "p2_only"):
        detector = design(name, rpn_before_nms=(2000, 1000))
        assert detector.rpn.anchors.per_cell() == (15,)
        assert detector.recipe.neck == name
    assert design("fpn").rpn.anchors.per_cell() == (3, 3, 3, 3, 3)
