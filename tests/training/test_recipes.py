from __future__ import annotations

from typing import get_args

import pytest

from fpn.cli.options import ModelOptions
from fpn.detectors import faster_rcnn
from fpn.errors import ConfigError
from fpn.runtime.capacity import Capacity
from fpn.training import recipes
from fpn.training.config import RecipeName, TrainConfig
from fpn.training.optimization import learning_rate
from fpn.training.recipes import NAMED_RECIPES, plan_training

from .counted import CountedDataset, square

LAPTOP = Capacity("cpu", "CPU", 2, 16.0)
GPU = Capacity("cuda", "a GPU", 8, 24.0)


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """Which backbones' weights are here, and whether the hub answers."""
    here = {"tf_efficientnet_lite0": "offline", "resnet50": "imagenet"}
    monkeypatch.setattr(recipes, "weights_at_hand", here.get)
    monkeypatch.setattr(recipes, "hub_answers", lambda: here.get("hub", False))
    return here


def plan(dataset, recipe="auto", *, capacity=LAPTOP, **options):
    return plan_training(dataset, recipe, capacity=capacity, **options)


def test_under_2000_images_are_a_small_set():
    assert plan(CountedDataset(1999, square(60))).recipe == "small-data"
    assert plan(CountedDataset(2000, square(60))).recipe == "standard"


def test_a_small_set_is_trained_for_about_1000_steps_on_a_laptop():
    # 250 images in batches of 4 are 62.5 steps an epoch.
    assert plan(CountedDataset(250, square(60))).config.epochs == 16
    assert plan(CountedDataset(20, square(60))).config.epochs == 60
    assert plan(CountedDataset(1900, square(60))).config.epochs == 6
    assert plan(CountedDataset(1000, square(60)), capacity=GPU).config.epochs == 24  # 3000 steps of 8


@pytest.mark.parametrize(
    ("side", "size", "short"),
    [
        (60, (480, 640), 384),  # 48 pixels in the network are plenty
        (20, (480, 640), 384),  # 16 pixels
        (12, (960, 1280), 640),  # 16 would need 1280: the most on a CPU is 640
        (40, (128, 128), 128),  # small images are not blown up for large objects
        (8, (128, 128), 256),  # but up to twice for small ones
    ],
)
def test_images_are_as_large_as_small_objects_need(side, size, short):
    chosen = plan(CountedDataset(100, [[0.0, 0.0, side, side]], size=size))
    assert chosen.value("short_side") == short


def test_panoramas_get_a_longer_side():
    assert plan(CountedDataset(100, square(60), size=(480, 640))).value("long_side") is None
    assert plan(CountedDataset(100, square(60), size=(480, 1200))).value("long_side") == 960  # 2.5 times 384


def test_anchors_stay_where_they_reach_and_change_where_they_do_not():
    assert plan(CountedDataset(100, square(60))).value("anchor_sizes") == (32, 64, 128, 256, 512)
    # 16 times as wide as high, 267 x 17 in the network: one of 90 x 45 overlaps with 1530 / 7059 at best.
    long = plan(CountedDataset(100, [[100.0, 100.0, 500.0, 125.0]]))
    assert long.value("anchor_ratios") == (0.062,)
    assert "reach all 100 objects; the usual ones miss 100.0 %" in str(long)


def test_crowded_images_get_more_detections():
    assert plan(CountedDataset(100, square(60, count=80))).value("max_detections") is None
    assert plan(CountedDataset(100, square(60, count=130))).value("max_detections") == 300


def test_what_is_given_stays_and_the_table_says_so_with_what_the_recipe_would_have_taken():
    given = {"short_side": 448, "colour": 0.0, "backbone": "resnet50"}
    chosen = plan(CountedDataset(100, square(60)), given=given, sources={"short_side": "run.toml"})
    assert chosen.detector["short_side"] == 448
    assert chosen.config.colour == 0.0
    assert chosen.value("weights") == "imagenet"
    assert "--short-side 448" in str(chosen)
    assert "given by run.toml (the recipe's: --short-side 384)" in str(chosen)
    assert not {"short_side", "colour", "backbone"} & chosen.chosen.keys()


def test_a_section_of_the_dialect_that_is_given_is_left_alone():
    chosen = plan(CountedDataset(100, square(60)), given={"set": ("neck.channels=32", "anchors_ratios=[1.0]")})
    assert not {"channels", "anchor_sizes", "anchor_ratios"} & chosen.chosen.keys()
    assert chosen.chosen["head_width"] == 512


@pytest.mark.parametrize("length", [{"epochs": 10}, {"steps": 5}])
def test_who_says_backbone_size_and_length_has_a_recipe_of_their_own(length):
    given = {"backbone": "resnet50", "short_side": 320, **length}
    assert plan(CountedDataset(100, square(60)), given=given).chosen == {}
    assert plan(CountedDataset(100, square(60)), "small-data", given=given).chosen["channels"] == 96


def test_an_earlier_model_keeps_its_own_settings():
    chosen = plan(CountedDataset(100, square(60)), begun=True).chosen
    assert "epochs" in chosen
    assert chosen.keys() <= TrainConfig.model_fields.keys()


def test_without_weights_all_is_trained_and_it_is_said_how_to_get_some(machine):
    machine.clear()
    chosen = plan(CountedDataset(250, square(60)))
    assert (chosen.detector["weights"], chosen.detector["frozen_stages"], chosen.detector["frozen_norm"]) == (
        "none",
        0,
        False,
    )
    assert chosen.config.epochs == 32  # twice as many as with weights
    assert "WITHOUT pretrained weights" in chosen.warnings[0]
    assert "fpn[offline]" in chosen.warnings[0]


def test_the_hub_is_asked_only_if_nothing_is_here_and_asking_is_allowed(machine):
    machine.clear()
    machine["hub"] = True
    data = CountedDataset(100, square(60))
    assert plan(data).value("weights") == "imagenet"
    assert plan(data, ask_hub=False).value("weights") == "none"
    machine["resnet18"] = "imagenet"
    assert plan(data).value("backbone") == "resnet18"


def test_little_memory_takes_fewer_images_at_once_and_as_many_a_step():
    # 384 x 512 pixels take 0.3 GiB an image beside 1 GiB; half of 3.5 GiB has room for two.
    config = plan(CountedDataset(100, square(60)), capacity=Capacity("cpu", "CPU", 2, 3.5)).config
    assert (config.batch_size, config.accumulate) == (2, 2)
    assert plan(CountedDataset(100, square(60))).config.batch_size == 4


def test_a_rare_class_is_shown_more_often():
    assert plan(CountedDataset(100, square(60), rare=5)).config.repeat_rare == 0.1
    assert plan(CountedDataset(100, square(60), rare=10)).config.repeat_rare == 0.0


def test_a_short_run_takes_more_and_larger_steps_and_leaves_images_as_they_are():
    # 800 images in all: eight times each of 100. Zoom and colour come with 2000 images, or 20 times each.
    short = plan(CountedDataset(100, square(60)), room=800).chosen
    assert (short["epochs"], short["batch_size"], short["learning_rate"], short["roi_samples"]) == (8, 2, 4e-4, 128)
    assert not {"scale", "colour", "accumulate"} & short.keys()
    often = plan(CountedDataset(40, square(60)), room=800).chosen
    assert (often["epochs"], often["batch_size"], often["scale"], often["colour"]) == (20, 2, (0.8, 1.25), 0.2)
    assert plan(CountedDataset(100, square(60, count=33)), room=800).chosen["roi_samples"] == 256
    assert plan(CountedDataset(100, square(60)), room=800).shown == 800


@pytest.mark.parametrize(("images", "epochs"), [(292, 14), (150, 27), (130, 31), (40, 60)])
def test_a_run_of_the_recipes_own_length_is_not_short(images, epochs):
    for room in (None, 2000, 10**6):
        chosen = plan(CountedDataset(images, square(60)), room=room).chosen
        assert (chosen["batch_size"], chosen["roi_samples"], chosen["scale"]) == (4, 256, (0.8, 1.25))
        assert "learning_rate" not in chosen
    assert chosen["epochs"] == epochs


def test_epochs_or_steps_that_are_given_say_how_short_a_run_is():
    data = CountedDataset(100, square(60))
    assert plan(data, given={"epochs": 5}).chosen["batch_size"] == 2
    assert plan(data, given={"epochs": 20}).chosen["batch_size"] == 4
    # Fewer images a step would be fewer images in all.
    steps = plan(data, given={"steps": 100}).chosen
    assert steps["batch_size"] == 4
    assert "colour" not in steps
    assert plan(data, given={"steps": 500}).chosen["colour"] == 0.2


@pytest.mark.parametrize("given", [{"batch_size": 8}, {"optimizer": "sgd"}, {"accumulate": 2}])
def test_the_rate_of_a_short_run_is_for_its_own_images_a_step_and_optimizer(given):
    chosen = plan(CountedDataset(100, square(60)), given=given, room=800)
    assert "learning_rate" not in chosen.chosen
    assert chosen.value("batch_size") == given.get("batch_size", 2)


@pytest.mark.parametrize(
    "given",
    [{"weights": "none"}, {"neck": "bifpn"}, {"dialect": "torchvision_v2"}, {"set": ("box.norm=batch",)}],
)
def test_norms_over_a_batch_keep_their_batch_in_a_short_run(given):
    assert plan(CountedDataset(100, square(60)), given=given, room=800).value("batch_size") == 4


def test_a_gpu_and_an_earlier_model_keep_their_batch_in_a_short_run():
    data = CountedDataset(100, square(60))
    assert plan(data, room=800, capacity=GPU).value("batch_size") == 8
    assert plan(data, room=800, begun=True).value("batch_size") == 4
    assert plan(data, "standard", room=800).value("batch_size") == 4


def test_published_recipes_have_their_rates_and_milestones():
    data = CountedDataset(100, square(60))
    paper, vision = (plan(data, name, capacity=GPU).config for name in ("paper", "torchvision"))
    assert (learning_rate(paper), paper.milestones, paper.epochs) == (0.02, (0.75,), 11)
    assert [round(26 * each) for each in vision.milestones] == [16, 22]
    assert plan(data, "torchvision").detector["dialect"] == "torchvision"
    assert plan(data, "long").config.jitter == (0.1, 2.0)


@pytest.mark.parametrize("recipe", NAMED_RECIPES)
@pytest.mark.parametrize("capacity", [LAPTOP, GPU], ids=["cpu", "gpu"])
def test_what_a_recipe_chooses_are_options_and_mean_the_same_in_python(recipe, capacity):
    chosen = plan(CountedDataset(100, square(60, count=90), rare=3), recipe, capacity=capacity)
    model = {name: value for name, value in chosen.chosen.items() if name in ModelOptions.model_fields}
    assert chosen.chosen.keys() <= {*ModelOptions.model_fields, *TrainConfig.model_fields}
    weights = {"weights": chosen.detector["weights"]}
    assert ModelOptions(**model).recipe(given=True) | weights == chosen.detector


def test_a_plan_builds_a_detector():
    chosen = plan(CountedDataset(100, square(60)), given={"backbone": "test_efficientnet", "weights": "none"})
    detector = faster_rcnn(classes=["cell"], **chosen.detector)
    assert detector.recipe.dialect.pixels.short_side == 384
    assert detector.recipe.dialect.neck.channels == 96


def test_a_set_without_objects_can_be_planned_for():
    assert plan(CountedDataset(3, [])).recipe == "small-data"


def test_names_are_those_of_the_option_and_a_wrong_one_is_refused_with_the_nearest():
    assert set(get_args(RecipeName)) == {"auto", "none", *NAMED_RECIPES}
    with pytest.raises(ConfigError, match=r"recipe 'smal-data'.*Did you mean 'small-data'"):
        plan(CountedDataset(3, square(60)), "smal-data")


def test_on_a_cpu_heads_of_masks_and_keypoints_are_as_narrow_as_the_pyramid():
    data = CountedDataset(60, square(60))
    masks = plan(data, "small-data", given={"detector": "mask_rcnn"})
    assert masks.detector["mask_channels"] == 96
    assert "--mask-width 96" in str(masks)
    assert "keypoint_width" not in masks.chosen
    given = {"detector": "mask_rcnn", "channels": 64}
    assert plan(data, "small-data", given=given).detector["mask_channels"] == 64
    own = plan(data, "small-data", given={"detector": "mask_rcnn", "set": ("mask.channels=256",)})
    assert "mask_width" not in own.chosen
    assert "mask_channels" not in own.detector  # it is --set's


def test_a_plan_for_another_kind_of_detector_has_that_kinds_settings_alone():
    data = CountedDataset(60, square(60))
    anchors = plan(data, "small-data", given={"detector": "retinanet"})
    assert anchors.kind == "retinanet"
    assert "head_width" not in anchors.chosen
    assert anchors.detector["anchors_sizes"][0] == (32.0, 32 * 2 ** (1 / 3), 32 * 2 ** (2 / 3))
    points = plan(data, "small-data", given={"detector": "fcos"})
    assert not {"head_width", "anchor_sizes", "anchor_ratios"} & points.chosen.keys()
    assert any("none decide by their overlap what fcos learns" in note for note in points.notes)
    with pytest.raises(ConfigError, match="Did you mean 'fcos'"):
        plan(data, given={"detector": "fcoss"})
