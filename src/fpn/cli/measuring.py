"""What the verbs that measure share: the labelled images, and what a model finds in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fpn.cli.terminal import progress_bar, say, say_warning
from fpn.errors import ConfigError, DataNotFoundError
from fpn.structures import Classes

if TYPE_CHECKING:
    import torch

    from fpn.data.dataset import Dataset
    from fpn.detectors import Detector
    from fpn.image_io import PixelRange


def open_measured(
    data: Path,
    split: str | None,
    record: Mapping[str, Any],
    pixel_range: PixelRange | None,
    reading: dict[str, Any],
    *,
    doing: str = "measuring",
) -> Dataset:
    """What to measure on, and what is to be said of it.

    Args:
        data: a folder or file in COCO, VOC, YOLO or LabelMe format.
        split: which split of it; None: what the training held out, else val, else test.
        record: how the model was trained.
        pixel_range: what the model learned with.
        reading: as `open_dataset` takes it.
        doing: what is done, such as "measuring".
    """
    from fpn.cli.held_out import find_held_out
    from fpn.data import open_dataset
    from fpn.data.checks.brightness import unfitting
    from fpn.data.formats.open import usual_split

    dataset = find_held_out(data, record, **reading) if split is None else None
    if dataset is None:
        if split is None and (split := usual_split(data, "val", "test", images=reading["images"])) is not None:
            say(f"{doing} on the split {split}; --split names another")
        dataset = open_dataset(data, split=split, **reading)
    for remark in dataset.remarks:
        say_warning(remark)
    if dataset.dropped:
        say_warning(f"{dataset.name}: {len(dataset.dropped)} invalid boxes dropped, the first: {dataset.dropped[0]}")
    paths = [dataset.path(number) for number in range(len(dataset))]
    if (warning := unfitting(dataset.name, paths, pixel_range)) is not None:
        say_warning(warning)
    return dataset


def open_for_detector(detector: Detector, data: Path, split: str | None, reading: dict[str, Any]) -> Dataset:
    """The same for a detector; which classes only one of the two knows is said, too."""
    pixel_range = detector.preprocessor.config.pixel_range
    from fpn.evaluation.known_truth import told_apart

    dataset = told_apart(detector, open_measured(data, split, detector.training_record, pixel_range, reading))
    _tell_unknown(detector.classes, dataset)
    return dataset


def _tell_unknown(classes: Classes, dataset: Dataset) -> None:
    """Neither what the data nor what the model has of such classes counts."""
    from fpn.data.checks.classes import some

    _tell_left_out(classes, dataset)
    unlabelled = [name for name in classes if name not in dataset.classes.names]
    if unlabelled:
        say(f"what the model finds of {some(unlabelled)} does not count: {dataset.name} does not have it")


def _tell_left_out(classes: Classes, dataset: Dataset) -> None:
    from fpn.evaluation.known_truth import count_unknown, describe_unknown

    if unknown := count_unknown(classes, dataset):
        say_warning(describe_unknown(unknown, classes, dataset.name))


def open_for(models: Sequence[Path], data: Path, split: str | None, reading: dict[str, Any], *, doing: str) -> Dataset:
    """The same for model files, or files of results; they are looked at before the dataset is.

    Raises:
        DataNotFoundError, ModelFileError: one is missing or can't be read.
        ConfigError: one tells classes apart, and one does not.
    """
    from fpn.detectors.model_file import read_header, recipe_of

    record: Mapping[str, Any] = {}
    pixel_range = None
    class_free = []
    for path in models:
        if is_results(path):
            if not path.is_file():
                raise DataNotFoundError(f"{path}: no such file of detections")
            continue
        header = read_header(path)
        recipe = recipe_of(header, str(path))
        pixel_range = recipe.dialect.pixels.pixel_range
        class_free.append(recipe.class_free)
        record = record or header.get("training", {})
    if len(set(class_free)) > 1:
        raise ConfigError(f"{' and '.join(map(str, models))}: only one of them tells classes apart. Compare equals.")
    dataset = open_measured(data, split, record, pixel_range, reading, doing=doing)
    return dataset.without_classes() if any(class_free) else dataset


def is_results(path: Path) -> bool:
    """Whether it is a file of detections rather than a model."""
    return path.suffix.lower() == ".json"


def common_truth(models: Sequence[Path], dataset: Dataset) -> dict[str, Any]:
    """The truth of the classes that all models know, as a COCO json; what is left out is said.

    Raises:
        ConfigError: there is none that all know.
    """
    from fpn.detectors.model_file import read_header, recipe_of
    from fpn.evaluation.known_truth import known_truth, shared_ids

    known = dataset.classes
    for path in models:
        if not is_results(path):
            classes = recipe_of(read_header(path), str(path)).found
            _tell_left_out(classes, dataset)
            shared_ids(classes, dataset)  # stops where there are none
            names = tuple(name for name in known if name in classes.names)
            known = Classes(names, tuple(known.ids[known.names.index(name)] for name in names))
    return known_truth(known, dataset).coco


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

    def results(self, path: Path, truth: Mapping[str, Any]) -> list[dict[str, Any]]:
        """COCO results of a model, or those in a file, of the truth's classes.

        Raises:
            DataError: a file names an image or a category that the dataset does not have.
        """
        from fpn.detectors import load
        from fpn.evaluation.matches import read_results

        records = read_results(path) if is_results(path) else self.detect(load(path, device=self.device), path)
        left_out = set(self.dataset.classes.ids).difference(each["id"] for each in truth["categories"])
        return [record for record in records if record["category_id"] not in left_out]

    def detect(self, detector: Detector, model: Path) -> list[dict[str, Any]]:
        """COCO results of a detector on all images.

        Args:
            detector: as it was loaded.
            model: the file that it was loaded from.
        """
        from fpn.cli.going_on import going_on
        from fpn.evaluation import evaluate
        from fpn.evaluation.known_truth import ClassWarning
        from fpn.inference.optimize import optimize
        from fpn.runtime.unheard import unheard
        from fpn.runtime.waiting import considerate

        detector = optimize(detector, self.precision)
        keeping = going_on("found", model, detector, self.dataset, batch_size=self.batch_size, precision=self.precision)
        bar = progress_bar(f"detecting {model.name}", len(self.dataset))
        with considerate(say_warning), keeping as unfinished, bar as progress, unheard(ClassWarning):  # said before
            measured = evaluate(
                detector,
                self.dataset,
                tasks=(self.task,),
                batch_size=self.batch_size,
                workers=self.workers,
                progress=progress,
                unfinished=unfinished,
            )
        return measured.detections
