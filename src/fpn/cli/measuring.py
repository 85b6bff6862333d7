"""What the verbs that measure share: the labelled images, and what a model finds in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fpn.cli.terminal import progress_bar, say, say_warning
from fpn.errors import ConfigError, DataError, DataNotFoundError
from fpn.structures import Classes

if TYPE_CHECKING:
    import torch

    from fpn.data.dataset import Dataset
    from fpn.detectors import Detector
    from fpn.image_values import PixelRange
    from fpn.training.run_record import LearnedImages


def open_measured(
    data: Path,
    split: str | None,
    record: Mapping[str, Any],
    pixel_range: PixelRange | None,
    reading: dict[str, Any],
    *,
    known: Sequence[Classes] = (),
    doing: str = "measuring",
) -> Dataset:
    """What to measure on, and what is to be said of it.

    Args:
        data: a folder or file in COCO, VOC, YOLO or LabelMe format.
        split: which split of it; None: what the training held out, else one not trained on, else val, else test.
        record: how the model was trained.
        pixel_range: what the model learned with.
        reading: as `open_dataset` takes it.
        known: the classes of each model; of a dataset that is about others, its broken boxes are not worth telling.
        doing: what is done, such as "measuring".
    """
    from fpn.cli.held_out import find_held_out, find_untrained
    from fpn.data import open_dataset
    from fpn.data.checks.brightness import unfitting
    from fpn.data.formats.open import usual_split

    dataset = find_held_out(data, record, **reading) if split is None else None
    if dataset is None:
        if split is None and (found := find_untrained(data, record, reading["images"])) is not None:
            split, used = found
            say(f"{doing} on the split {split}, as {used} was trained on; --split names another")
        elif split is None and (split := usual_split(data, "val", "test", images=reading["images"])) is not None:
            say(f"{doing} on the split {split}; --split names another")
        try:
            dataset = open_dataset(data, split=split, **reading)
        except DataError:
            _refuse_others_classes(data, split, reading, known)
            raise
    for remark in dataset.remarks:
        say_warning(remark)
    if dataset.dropped:
        say_warning(f"{dataset.name}: {len(dataset.dropped)} invalid boxes dropped, the first: {dataset.dropped[0]}")
    paths = [dataset.path(number) for number in range(len(dataset))]
    if (warning := unfitting(dataset.name, paths, pixel_range)) is not None:
        say_warning(warning)
    return dataset


def _refuse_others_classes(data: Path, split: str | None, reading: dict[str, Any], known: Sequence[Classes]) -> None:
    """Stop where a dataset that can't be read as it is has no class that a model knows.

    Raises:
        ConfigError: so it is.
        DataError: it can't be read, whatever is left out.
    """
    from fpn.data import open_dataset
    from fpn.evaluation.known_truth import shared_ids

    dataset = open_dataset(data, split=split, **{**reading, "drop_invalid": True, "skip_unreadable": True})
    for classes in known:
        shared_ids(classes, dataset)


def open_for_detector(
    detector: Detector, data: Path, split: str | None, reading: dict[str, Any]
) -> tuple[Dataset, LearnedImages | None]:
    """The same for a detector, and what of it the detector learned from; which classes only one knows is said, too.

    Raises:
        ConfigError: they have none in common.
    """
    from fpn.cli.held_out import find_learned
    from fpn.evaluation.known_truth import told_apart

    pixel_range = detector.preprocessor.config.pixel_range
    known = [] if detector.class_free else [detector.classes]
    opened = open_measured(data, split, detector.training_record, pixel_range, reading, known=known)
    dataset = told_apart(detector, opened)
    _tell_unknown(detector.classes, dataset)
    if (learned := find_learned(detector.training_record, data, opened, **reading)) is not None:
        say_warning(f"the model {learned}")
    return dataset, learned


def _tell_unknown(classes: Classes, dataset: Dataset) -> None:
    """Neither what the data nor what the model has of such classes counts."""
    from fpn.data.checks.classes import some
    from fpn.evaluation.known_truth import shared_ids

    shared_ids(classes, dataset)  # stops where there are none
    _tell_left_out(classes, dataset)
    unlabelled = [name for name in classes if name not in dataset.classes.names]
    if unlabelled:
        say(f"what the model finds of {some(unlabelled)} does not count: {dataset.name} does not have it")


def _tell_left_out(classes: Classes, dataset: Dataset, model: str = "the model") -> None:
    from fpn.evaluation.known_truth import count_unknown, describe_unknown

    if unknown := count_unknown(classes, dataset):
        say_warning(describe_unknown(unknown, classes, dataset.name, model))


def open_for(
    models: Sequence[Path], data: Path, split: str | None, reading: dict[str, Any], *, doing: str
) -> tuple[Dataset, list[LearnedImages | None]]:
    """The same for model files, or files of results, and what of it each learned from; they are looked at before it is.

    Raises:
        DataNotFoundError, ModelFileError: one is missing or can't be read.
        ConfigError: one tells classes apart, and one does not.
    """
    from fpn.cli.held_out import warn_of_learned
    from fpn.detectors.model_file import read_header, recipe_of

    records: dict[str, Mapping[str, Any]] = {}
    pixel_range = None
    class_free, known = [], []
    for path in models:
        if is_results(path):
            if not path.is_file():
                raise DataNotFoundError(f"{path}: no such file of detections")
            continue
        header = read_header(path)
        recipe = recipe_of(header, str(path))
        pixel_range = recipe.dialect.pixels.pixel_range
        class_free.append(recipe.class_free)
        known += [] if recipe.class_free else [recipe.found]
        records[path.name if len(models) == 1 else str(path)] = header.get("training", {})
    if len(set(class_free)) > 1:
        raise ConfigError(f"{' and '.join(map(str, models))}: only one of them tells classes apart. Compare equals.")
    first = next((record for record in records.values() if record), {})
    dataset = open_measured(data, split, first, pixel_range, reading, known=known, doing=doing)
    learned = {name: warn_of_learned(name, record, data, dataset, **reading) for name, record in records.items()}
    of_each = [learned.get(path.name if len(models) == 1 else str(path)) for path in models]
    return dataset.without_classes() if any(class_free) else dataset, of_each


def is_results(path: Path) -> bool:
    """Whether it is a file of detections rather than a model."""
    return path.suffix.lower() == ".json"


def common_truth(models: Sequence[Path], dataset: Dataset) -> dict[str, Any]:
    """The truth of the classes that all models know, as a COCO json; what is left out is said.

    Raises:
        ConfigError: there is none that all know.
    """
    from fpn.data.checks.classes import some
    from fpn.detectors.model_file import read_header, recipe_of
    from fpn.evaluation.known_truth import known_truth, shared_ids

    own = {path: recipe_of(read_header(path), str(path)).found for path in models if not is_results(path)}
    for classes in own.values():
        shared_ids(classes, dataset)  # stops where there are none
    ids = dict(zip(dataset.classes.names, dataset.classes.ids, strict=True))
    known = {name: ids[name] for name in ids if all(name in classes.names for classes in own.values())}
    if not known:
        told = "; ".join(f"{path} knows {some(classes.names)}" for path, classes in own.items())
        raise ConfigError(f"{dataset.name}: none of its classes is known to all models: {told}. Compare others.")
    for path, classes in own.items():
        _tell_left_out(classes, dataset, "the model" if len(models) == 1 else str(path))
    return known_truth(Classes(tuple(known), tuple(known.values())), dataset).coco


@dataclass(frozen=True)
class Measuring:
    """How models are run on a dataset.

    Attributes:
        dataset: labelled images.
        batch_size, workers, precision, device: as the options say.
        task: "boxes" or "masks".
        skip_unreadable: leave out images that can't be read. False: the first one stops the command.
        unreadable: path -> why, of the images that `detect` left out so far.
    """

    dataset: Dataset
    batch_size: int
    workers: int | None
    precision: Literal["float32", "bf16", "auto"]
    device: torch.device | None
    task: Literal["boxes", "masks"] = "boxes"
    skip_unreadable: bool = False
    unreadable: dict[str, str] = field(default_factory=dict)

    def load(self, path: Path) -> Detector:
        """A model that gives what is compared.

        Raises:
            ConfigError: it does not.
        """
        from fpn.detectors import load

        detector = load(path, device=self.device)
        if self.task not in detector.tasks:
            kind = detector.recipe.kind
            raise ConfigError(f"--task {self.task}: {path} is a {kind}, which gives none. Compare boxes, or others.")
        return detector

    def results(self, path: Path, detector: Detector | None, truth: Mapping[str, Any]) -> list[dict[str, Any]]:
        """COCO results of the truth's classes.

        Args:
            path: a model, or a file of results.
            detector: the model; None: it is a file of results.
            truth: a COCO json.

        Raises:
            DataError: a file names an image or a category that the dataset does not have.
        """
        from fpn.evaluation.coco import refuse_strange_results
        from fpn.evaluation.matches import read_results

        records = read_results(path) if detector is None else self.detect(detector, path)
        left_out = set(self.dataset.classes.ids).difference(each["id"] for each in truth["categories"])
        kept = [record for record in records if record["category_id"] not in left_out]
        if detector is None:
            try:
                refuse_strange_results(truth, kept)
            except DataError as error:
                raise DataError(f"{path}: {error}. Was it made on other data?") from None
        return kept

    def results_of(
        self, paths: Sequence[Path], truth: dict[str, Any]
    ) -> tuple[dict[str, Any], list[list[dict[str, Any]]]]:
        """What `readable` gives of several models or files of results; all are loaded before the first is run."""
        detectors = [None if is_results(path) else self.load(path) for path in paths]
        listed = {path: self.results(path, None, truth) for path in paths if is_results(path)}
        found = [
            listed[path] if detector is None else self.results(path, detector, truth)
            for path, detector in zip(paths, detectors, strict=True)
        ]
        return self.readable(truth, found)

    def readable(
        self, truth: dict[str, Any], found: Sequence[list[dict[str, Any]]]
    ) -> tuple[dict[str, Any], list[list[dict[str, Any]]]]:
        """The truth, and what each model found, of the images that could be read; the others are named."""
        from fpn.cli.decoding import say_unreadable

        say_unreadable(self.unreadable, "the figures are of the others")
        numbers = range(len(self.dataset))
        gone = {self.dataset.image_id(each) for each in numbers if self.dataset.path(each) in self.unreadable}
        images = [each for each in truth["images"] if each["id"] not in gone]
        objects = [each for each in truth["annotations"] if each["image_id"] not in gone]
        left = [[each for each in records if each["image_id"] not in gone] for records in found]
        return {**truth, "images": images, "annotations": objects}, left

    def detect(self, detector: Detector, model: Path) -> list[dict[str, Any]]:
        """COCO results of a detector on all images.

        Args:
            detector: as it was loaded.
            model: the file that it was loaded from.
        """
        from fpn.cli.decoding import advising
        from fpn.cli.going_on import going_on
        from fpn.evaluation import evaluate
        from fpn.evaluation.known_truth import ClassWarning
        from fpn.inference.optimize import optimize
        from fpn.runtime.unheard import unheard
        from fpn.runtime.waiting import considerate

        detector = optimize(detector, self.precision)
        keeping = going_on("found", model, detector, self.dataset, batch_size=self.batch_size, precision=self.precision)
        bar = progress_bar(f"detecting {model.name}", len(self.dataset))
        hushed = unheard(ClassWarning)  # said before
        with considerate(say_warning), keeping as unfinished, bar as progress, hushed, advising():
            measured = evaluate(
                detector,
                self.dataset,
                tasks=(self.task,),
                batch_size=self.batch_size,
                workers=self.workers,
                skip_unreadable=self.skip_unreadable,
                progress=progress,
                unfinished=unfinished,
            )
        self.unreadable.update(measured.unreadable)
        return measured.detections
