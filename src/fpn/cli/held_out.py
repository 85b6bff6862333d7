"""What was kept from training, to measure on it: other splits, and what `--validation-share` held out.

Which images were held out stands in the run's record and in its model, so that `--resume` and `fpn evaluate` find them
again. Nothing else is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpn.cli.terminal import progress_bar, say, say_warning
from fpn.errors import ConfigError
from fpn.wording import counted

if TYPE_CHECKING:
    from fpn.data import Dataset
    from fpn.training.run_record import LearnedImages

# Under this name the notes of a run have it.
NOTE = "held_out"
# Ends the name of a dataset that was held out.
_HELD = " (held out)"
# Of the table, so that what comes after it is still on the screen.
_CLASSES = 12


@dataclass(frozen=True)
class HeldOut:
    """What a training measured on instead of learning from it.

    Attributes:
        split: the split of DATA that was divided.
        images: paths within the dataset's folder.
    """

    split: str
    images: tuple[str, ...]

    @classmethod
    def of(cls, notes: Mapping[str, Any]) -> HeldOut | None:
        """As the notes of a run have it; None: nothing was held out."""
        found = notes.get(NOTE)
        return None if found is None else cls(found["split"], tuple(found["images"]))

    def to_json(self) -> dict[str, Any]:
        """For the notes of a run."""
        return {"split": self.split, "images": list(self.images)}

    def divide(self, dataset: Dataset) -> tuple[Dataset, Dataset]:
        """What to train and what to measure on."""
        from fpn.data.split import image_name

        held = set(self.images)
        kept: tuple[list[int], list[int]] = ([], [])
        for row in range(len(dataset)):
            kept[image_name(dataset, row) in held].append(row)
        training, validation = kept
        return dataset.subset(training), dataset.subset(validation, name=f"{dataset.name}{_HELD}")


def hold_out(dataset: Dataset, split: str, share: float, *, speaks: bool, **wishes: Any) -> HeldOut:
    """Choose a share of a dataset's images and show how it was divided; `wishes` as `fpn.data.divide` takes them."""
    from fpn.cli.split import division_table
    from fpn.data.split import divide, image_name

    bar = partial(progress_bar, "looking for images alike") if speaks else None
    division = divide(dataset, validation=share, bar=bar, **wishes)
    if speaks:
        say(division_table(division, most=_CLASSES).rich())
        say()
        for remark in division.remarks:
            say_warning(remark)
    return HeldOut(split, tuple(image_name(dataset, row) for row in division.parts["val"]))


def find_held_out(data: Path, record: Mapping[str, Any], **reading: Any) -> Dataset | None:
    """The images that a model's training held out of DATA; None: there were none, or DATA is another dataset.

    Args:
        data: the dataset.
        record: the model's `training_record`.
        reading: as `open_dataset` takes it.
    """
    from fpn.data import list_splits, open_dataset
    from fpn.data.formats.layout import WHOLE
    from fpn.data.split import image_name

    held = HeldOut.of(record.get("notes", {}))
    if held is None or held.split not in list_splits(data, images=reading.get("images")):
        return None
    dataset = open_dataset(data, split=held.split, **reading)
    absent = set(held.images) - {image_name(dataset, row) for row in range(len(dataset))}
    if absent:
        say_warning(f"{len(absent)} of the {len(held.images)} images that the training held out are not in {data}")
        return None
    images = counted(len(held.images), "image")
    of = "" if held.split == WHOLE else f" of {held.split}"
    say(f"measuring on the {images} that training held out{of} (for other images: --split NAME)")
    return held.divide(dataset)[1]


def untrained_split(splits: Sequence[str], used: str | None) -> str | None:
    """The split to measure on, val before test, that shares no image with the one trained on; None: there is none.

    Args:
        splits: all that a dataset has.
        used: the one trained on; None: the dataset has no splits.
    """
    from fpn.data.formats.layout import WHOLE, plain_split

    # What `open_dataset` takes by itself holds all others, or all but the test split.
    wanted = {None: (), WHOLE: (), "trainval": ("test",)}.get(used and plain_split(used), ("val", "test"))
    found = (split for kind in wanted for split in splits if plain_split(split) == kind and split != used)
    return next(found, None)


def find_untrained(data: Path, record: Mapping[str, Any], images: Path | None) -> tuple[str, str] | None:
    """A split of DATA that a model was not trained on, and the one it was; None: it has none, or it is other data."""
    from fpn.data import list_splits

    splits = list_splits(data, images=images)
    used = _trained_split(data, record, splits)
    found = None if used is None else untrained_split(splits, used)
    return None if used is None or found is None else (found, used)


def find_learned(record: Mapping[str, Any], data: Path, dataset: Dataset, **reading: Any) -> LearnedImages | None:
    """Which of the images to measure on a model has learned from; None: none, or it can't be known.

    The split trained on is opened again, and counts only where its digest is that of the training.

    Args:
        record: the model's `training_record`.
        data: the dataset that they are of.
        dataset: what is measured on.
        reading: as `open_dataset` takes it.
    """
    from fpn.training.run_record import LearnedImages, learned_from

    known = len(dataset) if learned_from(record, dataset) else _count_learned(record, data, dataset, reading)
    return LearnedImages(known, len(dataset), _unlearned(record, data, reading)) if known else None


def warn_of_learned(
    model: str, record: Mapping[str, Any], data: Path, dataset: Dataset, **reading: Any
) -> LearnedImages | None:
    """Say how many of the images to measure on a model, called `model`, has learned from; as `find_learned` has it."""
    if (learned := find_learned(record, data, dataset, **reading)) is not None:
        say_warning(f"{model} {learned}")
    return learned


def refuse_too_few(dataset: Dataset) -> None:
    """Stop before anything is detected where there are too few images to tell what is chance.

    Raises:
        ConfigError: it has fewer than 2 images.
    """
    images = counted(len(dataset), "image")
    if len(dataset) > 1:
        return
    if dataset.name.endswith(_HELD):
        raise ConfigError(
            f"{dataset.name}: {images} that training held out; an interval needs 2 or more. Name other images with "
            "--split, or train with a larger --validation-share."
        )
    raise ConfigError(
        f"{dataset.name}: {images}; an interval needs 2 or more. Name others with --split, or label more."
    )


def _unlearned(record: Mapping[str, Any], data: Path, reading: Mapping[str, Any]) -> str:
    """Where to find images that a model has not learned from."""
    from fpn.data import list_splits

    splits = list_splits(data, images=reading.get("images"))
    held, used = HeldOut.of(record.get("notes", {})), _split_learned(record, splits)
    if held is not None and held.split == used:
        kept = counted(len(held.images), "image")
        return f"Leave --split out to measure on the {kept} that its training held out."
    found = None if used is None else untrained_split(splits, used)
    if found is not None:
        return f"Measure with --split {found}, which it has not seen."
    return "Measure on images that it has not seen; fpn train --validation-share 0.2 keeps some."


def _trained_split(data: Path, record: Mapping[str, Any], splits: Sequence[str]) -> str | None:
    """The split of DATA that a model was trained on, by its name; None: it is other data."""
    folder, _, split = str(record.get("data", {}).get("name", "")).rpartition("/")
    return split if split in splits and folder == data.resolve().name else None


def _split_learned(record: Mapping[str, Any], splits: Sequence[str]) -> str | None:
    """The split that a model learned from, whatever folder it was in; None: there is none of its name."""
    from fpn.data.formats.layout import WHOLE

    held = HeldOut.of(record.get("notes", {}))
    _, divided, last = str(record.get("data", {}).get("name", "")).rpartition("/")
    used = held.split if held is not None else last if divided else WHOLE
    return used if used in splits else None


def _count_learned(record: Mapping[str, Any], data: Path, dataset: Dataset, reading: Mapping[str, Any]) -> int:
    """How many of them are among those trained on: two splits may share images, and a split may have been divided."""
    from fpn.data import list_splits, open_dataset
    from fpn.data.formats.layout import plain_split
    from fpn.data.split import image_name
    from fpn.training.run_record import learned_from

    held = HeldOut.of(record.get("notes", {}))
    used = _split_learned(record, list_splits(data, images=reading.get("images")))
    apart = {plain_split(each) for each in (used or "", dataset.name.rpartition("/")[2])}
    if used is None or (len(apart) == 2 and apart < {"train", "val", "test"}):
        return 0
    if held is not None and {image_name(dataset, row) for row in range(len(dataset))} <= set(held.images):
        return 0
    whole = open_dataset(data, split=used, **{**reading, "drop_invalid": True})
    learned = whole if held is None else held.divide(whole)[0]
    if not learned_from(record, learned):
        return 0
    paths = {learned.path(row) for row in range(len(learned))}
    return sum(dataset.path(row) in paths for row in range(len(dataset)))
