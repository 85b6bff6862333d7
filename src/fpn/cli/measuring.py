"""What the verbs that measure share: the labelled images, and what a model finds in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fpn.cli.options import LimitOptions
from fpn.cli.terminal import progress_bar, say, say_warning
from fpn.errors import ConfigError, DataNotFoundError

if TYPE_CHECKING:
    import torch

    from fpn.data.dataset import Dataset
    from fpn.detectors import Detector

RESULTS = ".json"


def open_measured(
    data: Path,
    split: str | None,
    images: Path | None,
    drop_invalid: bool,
    limits: LimitOptions | None,
    *,
    kinds: tuple[str, ...] = ("val", "test"),
    doing: str = "measuring",
) -> Dataset:
    """Open a dataset; say which split it is if nobody named one, and what was dropped.

    Args:
        data: a folder or file in COCO, VOC or YOLO format.
        split: which split of it; None: one of `kinds`, the first that there is.
        images: folder of the images, or None.
        drop_invalid: leave out invalid boxes.
        limits: what is accepted.
        kinds: splits to take where none is named.
        doing: what is done with it, such as "measuring".
    """
    from fpn.data import open_dataset
    from fpn.data.formats.open import usual_split

    accepted = (limits or LimitOptions()).limits()
    if split is None and (split := usual_split(data, *kinds, images=images)) is not None:
        say(f"{doing} on the split {split}; --split names another")
    dataset = open_dataset(data, split=split, images=images, drop_invalid=drop_invalid, limits=accepted)
    for remark in dataset.remarks:
        say_warning(remark)
    if dataset.dropped:
        say_warning(f"{dataset.name}: {len(dataset.dropped)} invalid boxes dropped, the first: {dataset.dropped[0]}")
    return dataset


@dataclass(frozen=True)
class Measuring:
    """How models are run on a dataset.

    Attributes:
        dataset: labelled images.
        batch_size, workers, precision, device: as the options say.
        task: "boxes" or "masks".
    """

    dataset: Dataset
    batch_size: int
    workers: int | None
    precision: Literal["float32", "bf16", "auto"]
    device: torch.device | None
    task: Literal["boxes", "masks"] = "boxes"

    def refuse(self, path: Path) -> None:
        """Stop before any work if a model, or a file of results, is of no use here.

        Raises:
            DataNotFoundError, ModelFileError: it is missing or can't be read.
            ConfigError: the dataset has a class that the model does not know.
        """
        from fpn.detectors.model_file import classes_of, read_header
        from fpn.evaluation.evaluate import match_classes

        if self.batch_size < 1:
            raise ConfigError(f"--batch-size {self.batch_size}: at least 1")
        if path.suffix.lower() != RESULTS:
            match_classes(classes_of(read_header(path), str(path)), self.dataset)
        elif not path.is_file():
            raise DataNotFoundError(f"{path}: no such file of detections")

    def results(self, path: Path) -> list[dict[str, Any]]:
        """COCO results of a model, or those in a file."""
        from fpn.detectors import load
        from fpn.evaluation.matches import read_results

        if path.suffix.lower() == RESULTS:
            return read_results(path)
        return self.detect(load(path, device=self.device), path.name)

    def detect(self, detector: Detector, name: str) -> list[dict[str, Any]]:
        """COCO results of a detector on all images.

        Args:
            detector: as it was loaded.
            name: what the progress bar calls it.
        """
        from fpn.evaluation import evaluate
        from fpn.inference.optimize import optimize
        from fpn.runtime.waiting import considerate

        detector = optimize(detector, self.precision)
        with considerate(say_warning), progress_bar(f"detecting {name}", len(self.dataset)) as progress:
            measured = evaluate(
                detector,
                self.dataset,
                tasks=(self.task,),
                batch_size=self.batch_size,
                workers=self.workers,
                progress=progress,
            )
        return measured.detections
