"""A neck and a head that `fpn` has never seen go through everything without a change in it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import nn

import fpn
from fpn.data.synthetic.scenes import SceneDataset
from fpn.detectors import Detector, Dialect
from fpn.detectors.builder import BUILDERS, build_features
from fpn.detectors.one_stage import OneStageDetector
from fpn.detectors.recipe import RECIPES, Recipe
from fpn.features.backbones.backbone import Backbone
from fpn.features.extractor import FeatureExtractor, Neck
from fpn.features.necks.designs import DESIGNS, Design
from fpn.heads.class_rows import ClassRows
from fpn.heads.dense import DenseHead
from fpn.preprocessing.preprocessor import Preprocessor
from fpn.structures import Detections, Level, LossTerms

SCENES = SceneDataset(4, seed=3, height=32, width=(32, 48), objects=(1, 3), extent=(8.0, 24.0))


class ToyNeck(Neck):
    """A convolution a level, and what is coarser is added by its mean."""

    def __init__(self, levels, channels):
        super().__init__(levels)
        self.convolutions = nn.ModuleDict({each.name: nn.Conv2d(each.channels, channels, 1) for each in levels})
        self.levels = tuple(Level(f"p{each.number}", channels, each.stride, each.number) for each in levels)

    def forward(self, features):
        maps = [self.convolutions[each.name](features[each.name]) for each in self.incoming]
        mean = maps[-1].mean(dim=(2, 3), keepdim=True)
        return {level.name: each + mean for level, each in zip(self.levels, maps, strict=True)}


class ToyDesign(Design):
    def build(self, backbone, config):
        return FeatureExtractor(backbone=backbone, neck=ToyNeck(backbone.levels, config.output_channels))


class ToyHead(DenseHead):
    """The cell of the finest level that is surest of a class is an object of one cell."""

    def __init__(self, levels, num_classes):
        super().__init__()
        self.level = levels[0]
        self.scores = nn.Conv2d(self.level.channels, num_classes, 1)

    def class_rows(self):
        return [ClassRows(self.scores)]

    def forward(self, features):
        return (self.scores(features[self.level.name]),)

    def losses(self, raw, images, targets, *, generator=None):
        wanted = torch.stack([torch.bincount(t.labels, minlength=raw[0].shape[1]) for t in targets])
        return LossTerms({"classes": (raw[0].amax(dim=(2, 3)) - wanted).square().mean()})

    def detect(self, raw, images):
        best, place = raw[0].flatten(1).sigmoid().max(dim=1)
        width, cells = raw[0].shape[3], raw[0].shape[2] * raw[0].shape[3]
        corner = torch.stack([place % cells % width, place % cells // width], dim=1) * float(self.level.stride)
        boxes = torch.cat([corner, corner + self.level.stride], dim=1)
        rows = zip(boxes, best, place // cells, strict=True)
        return [Detections(box[None], score[None], label[None]) for box, score, label in rows]


class ToyRecipe(Recipe):
    kind: Literal["toy"] = "toy"


def build_toy(recipe, weights=None):
    backbone = Backbone(recipe.backbone, weights=weights)
    pixels = recipe.dialect.pixels.changed(mean=backbone.pixel_mean, std=backbone.pixel_std)
    features = build_features(backbone, DESIGNS[recipe.neck], recipe.dialect.neck)
    return OneStageDetector(
        features=features,
        head=ToyHead(features.levels, len(recipe.classes)),
        classes=recipe.found,
        preprocessor=Preprocessor(pixels),
        recipe=recipe.changed(dialect=recipe.dialect.changed(pixels=pixels)),
    )


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    design = ToyDesign(name="toy", title="a toy", short="toy", letter="-", place="this file")
    monkeypatch.setitem(DESIGNS, "toy", design)
    monkeypatch.setitem(RECIPES, "toy", ToyRecipe)
    monkeypatch.setitem(BUILDERS, ToyRecipe, build_toy)


def toy_neck() -> Detector:
    return fpn.faster_rcnn(
        backbone="tf_efficientnet_lite0",
        weights=None,
        classes=SCENES.classes,
        neck="toy",
        anchors_sizes=((8.0,), (16.0,), (32.0,), (64.0,)),
        channels=8,
        head_width=8,
        short_side=32,
    )


def toy_head() -> Detector:
    dialect = Dialect(name="toy", source="this file").changed(
        neck={"channels": 8, "output_channels": 8}, pixels={"short_side": 32}
    )
    names, ids = SCENES.classes.names, SCENES.classes.ids
    recipe = ToyRecipe(backbone="tf_efficientnet_lite0", neck="toy", classes=names, category_ids=ids, dialect=dialect)
    return build_toy(recipe)


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize("make", [toy_neck, toy_head])
def test_a_part_of_ones_own_is_trained_saved_loaded_optimized_and_used(make, tmp_path: Path) -> None:
    torch.manual_seed(0)
    detector = make()
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    config = fpn.TrainConfig(steps=2, batch_size=2, workers=0, device="cpu")
    result = fpn.train(detector, SCENES, config, output=tmp_path / "run", progress=False)
    changed = [name for name, value in detector.state_dict().items() if not torch.equal(value, before[name])]
    assert any("neck" in name for name in changed)
    loaded = fpn.load(result.model, device="cpu")
    assert type(loaded) is type(detector)
    image = SCENES[0].image
    (found,), (quick,) = loaded.predict([image]), fpn.optimize(loaded).predict([image])
    assert len(found) == len(quick) > 0
    torch.testing.assert_close(found.scores, quick.scores, rtol=0, atol=1e-3)  # hardly trained, all are about equal
    assert fpn.evaluate(loaded, SCENES).ap <= 1
    names = SCENES.classes.names
    other, carried = fpn.begin_with(loaded, classes=("comet", *reversed(names)))
    assert carried.kept == tuple(reversed(names))
    (mine, *_), (before, *_) = other.class_rows(), loaded.class_rows()
    assert torch.equal(mine.layer.weight[len(names)], before.layer.weight[0])
