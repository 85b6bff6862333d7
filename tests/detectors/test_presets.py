from __future__ import annotations

from pathlib import Path

import pytest
import torch

import fpn
from fpn.detectors import PAPER, TORCHVISION, TwoStageDetector
from fpn.detectors.builder import BUILDERS, roi_levels
from fpn.detectors.presets import DIALECTS_OF, PRESETS, adapt_dialect, named_preset
from fpn.detectors.recipe import RECIPES
from fpn.errors import ConfigError
from fpn.features.necks.designs import DESIGNS
from fpn.sections import options_of, sections_of
from fpn.structures import ImageBatch, Level, Targets
from fpn.training.config import DETECTORS, MODEL_SETTINGS


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
    assert [level.name for level in roi_levels(levels, 3)] == ["p2", "p3"]


def design(name: str, **changes: object) -> TwoStageDetector:
    return fpn.faster_rcnn(
        backbone="tf_efficientnet_lite0",
        weights="none",
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
    again = fpn.load(tmp_path / "model.safetensors", device="cpu")
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


def test_every_kind_of_detector_has_a_recipe_a_builder_a_preset_dialects_and_options() -> None:
    assert set(RECIPES) == set(PRESETS) == set(DIALECTS_OF) == set(DETECTORS) == set(MODEL_SETTINGS)
    assert set(RECIPES.values()) == set(BUILDERS)
    for kind, recipe in RECIPES.items():
        assert recipe.model_fields["kind"].default == kind
        assert "paper" in DIALECTS_OF[kind]
        for name, dialect in DIALECTS_OF[kind].items():
            assert (dialect.name, type(dialect)) == (name, recipe.dialect_type())
        settings = {option.path.replace(".", "_") for option in options_of(recipe.dialect_type())}
        assert {each for names in MODEL_SETTINGS[kind].values() for each in names} <= settings


def test_an_unknown_kind_gets_the_nearest_known_one() -> None:
    with pytest.raises(ConfigError, match=r"known: faster_rcnn, .*Did you mean 'retinanet'"):
        named_preset("retina_net")


def test_a_dialect_of_another_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="'paper' is a TwoStageDialect, and fcos takes a FCOSDialect"):
        fpn.fcos(classes=["a"], dialect=PAPER)
    with pytest.raises(ConfigError, match="dialect 'torchvision': atss has paper, mmdetection"):
        fpn.atss(classes=["a"], dialect="torchvision")


def test_a_kind_has_only_the_sections_of_its_own_parts() -> None:
    own = {kind: set(sections_of(recipe.dialect_type())) for kind, recipe in RECIPES.items()}
    shared = {"pixels", "backbone", "neck"}
    assert own["fcos"] == {*shared, "dense"}
    assert own["retinanet"] == own["atss"] == {*shared, "anchors", "coder", "dense"}
    with pytest.raises(ConfigError, match="unknown setting 'rpn_nms'"):
        fpn.retinanet(classes=["a"], rpn_nms=0.5)


def test_levels_and_anchors_of_a_dense_head_have_to_agree() -> None:
    with pytest.raises(ConfigError, match=r"anchors\.sizes has 2 entries"):
        fpn.retinanet(
            backbone="tf_efficientnet_lite0", weights=None, classes=["a"], channels=8, anchors_sizes=((8.0,), (16.0,))
        )
