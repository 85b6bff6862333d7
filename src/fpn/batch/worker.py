"""What one process does with some images: bytes or paths in, columns out. It knows of no engine that runs it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field

from fpn.batch.arrow import ResultColumns
from fpn.detectors.operating_point import choose_score, sure_ones
from fpn.detectors.prediction import Prediction, Predictor, predict_images
from fpn.detectors.tiling import Tiling, predict_tiled_images
from fpn.errors import FpnError
from fpn.export import load
from fpn.export.exported import ExportedDetector
from fpn.export.loading import RUNTIMES, load_exported
from fpn.image_io import MAX_PIXELS, ImageBytes, ImageLike
from fpn.inference.optimize import OptimizedDetector, optimize
from fpn.sections import Section
from fpn.structures import Classes, Detections, Thresholds
from fpn.wording import in_unicode

_ALWAYS = ("name", "width", "height", "error", "boxes", "scores", "labels", "category_ids")


class BatchSettings(Section):
    """What decides what is found; see `fpn batch --help`."""

    score: float | Literal["calibrated"] | None = Field(
        default=None,
        description="Keep detections from this score on, 0 to 1. calibrated: from each class's own threshold. None: "
        "calibrated where the model has that, else all that it gives.",
    )
    max_detections: int | None = Field(
        default=None, description="Most detections of an image. None: the model's own setting."
    )
    batch_size: int = Field(default=4, description="Images that go through the network together.")
    precision: Literal["float32", "bf16", "auto"] = Field(
        default="auto",
        description="Of the network's arithmetic. auto: bf16 where the chip multiplies it in hardware; an exported "
        "file works as it was proven, one of OpenVINO also in bf16 if that is said.",
    )
    device: str | None = Field(
        default=None, description="Such as cpu, cuda or cuda:1. None: the GPU where there is one."
    )
    max_pixels: int = Field(default=MAX_PIXELS, description="Largest image that is read, height times width.")
    tiling: Tiling | None = Field(default=None, description="Tiles that an image is cut into. None: it stays whole.")

    def load(self, model: str) -> Predictor:
        """The model as these settings ask for it."""
        return load_predictor(model, device=self.device, max_detections=self.max_detections, precision=self.precision)


def load_predictor(
    model: str | os.PathLike[str],
    *,
    device: str | torch.device | None = None,
    max_detections: int | None = None,
    precision: Literal["float32", "bf16", "auto"] = "auto",
) -> OptimizedDetector | ExportedDetector:
    """A model of any kind, ready to detect as fast as it can: optimized, or an exported file as it is.

    Raises:
        DataNotFoundError, ModelFileError, MissingExtraError, ConfigError: as `fpn.load` and `load_exported`.
    """
    if Path(model).suffix in RUNTIMES:
        return load_exported(Path(model), device=device, max_detections=max_detections, precision=precision)
    return optimize(load(model, device=device, max_detections=max_detections), precision)


@dataclass
class BatchWorker:
    """Finds objects in some images at a time. Call it with columns, as Ray Data's `map_batches` does, or use `detect`.

    Attributes:
        predictor: what finds them; see `BatchSettings.load`.
        settings: which of them, and how.
    """

    predictor: Predictor
    settings: BatchSettings

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> ResultColumns:
        """ResultColumns of results, a row for each image.

        Args:
            batch: "name", and "bytes" (of image files) or "path".
        """
        names = [str(name) for name in batch["name"]]
        if "bytes" in batch:
            return self.detect(names, (ImageBytes(bytes(d), n) for n, d in zip(names, batch["bytes"], strict=True)))
        return self.detect(names, (str(path) for path in batch["path"]))

    def detect(self, names: Sequence[str], images: Iterable[ImageLike]) -> ResultColumns:
        """ResultColumns of results, a row for each image; one that can't be read has an error and nothing else.

        Boxes are x1, y1, x2, y2 in pixels of the upright image, best first; masks are COCO's compressed run lengths of
        it, keypoints x, y, score one after the other.

        Args:
            names: what the results call them.
            images: as `fpn.image_io.read_image` takes them.
        """
        thresholds = getattr(self.predictor, "thresholds", None)
        chosen = choose_score(self.settings.score, thresholds)
        columns: ResultColumns = {name: [] for name in (*_ALWAYS, *self._further())}
        for name, each in zip(names, self._predict(images), strict=True):
            row = _row(each, chosen, self.predictor.classes)
            columns["name"].append(in_unicode(name))
            for column in columns.keys() - {"name"}:
                columns[column].append(row.get(column))
        return columns

    def _predict(self, images: Iterable[ImageLike]) -> Iterable[Prediction]:
        looking: dict[str, Any] = {"batch_size": self.settings.batch_size, "max_pixels": self.settings.max_pixels}
        if self.settings.tiling is None:
            return predict_images(self.predictor, images, **looking)
        return predict_tiled_images(self.predictor, images, self.settings.tiling, **looking)

    def _further(self) -> tuple[str, ...]:
        tasks = self.predictor.tasks
        masks = ("masks",) if "masks" in tasks or "segments" in tasks else ()
        return (*masks, *(("keypoints",) if "keypoints" in tasks else ()))


def _row(prediction: Prediction, chosen: float | Thresholds, classes: Classes) -> dict[str, Any]:
    if isinstance(prediction.found, FpnError):
        return {"error": in_unicode(str(prediction.found))}
    assert prediction.size is not None, "an image that was read has a size"
    found = sure_ones(prediction.found, chosen)
    labels = found.labels.tolist()
    row = {
        "width": prediction.size.width,
        "height": prediction.size.height,
        "boxes": found.boxes.tolist(),
        "scores": found.scores.tolist(),
        "labels": [classes[label] for label in labels],
        "category_ids": [classes.ids[label] for label in labels],
    }
    return row | _further(found)


def _further(found: Detections) -> dict[str, Any]:
    row: dict[str, Any] = {}
    if found.masks is not None:
        codes = found.masks.to_coco(polygons=False)
        row["masks"] = [code["counts"] for code in codes if isinstance(code, dict)]
    if found.keypoints is not None:
        row["keypoints"] = found.keypoints.flatten(1).tolist()
    return row
