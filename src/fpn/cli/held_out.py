"""`--validation-share`: images of DATA that are kept from training and measured on instead, with nothing written.

Which they are stands in the run's record and in its model, so that `--resume` and `fpn evaluate` find them again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpn.cli.terminal import progress_bar, say, say_warning

if TYPE_CHECKING:
    from fpn.data import Dataset

# Under this name the notes of a run have it.
NOTE = "held_out"
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
        return dataset.subset(training), dataset.subset(validation, name=f"{dataset.name} (held out)")


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
    from fpn.data.split import image_name

    held = HeldOut.of(record.get("notes", {}))
    if held is None or held.split not in list_splits(data, images=reading.get("images")):
        return None
    dataset = open_dataset(data, split=held.split, **reading)
    absent = set(held.images) - {image_name(dataset, row) for row in range(len(dataset))}
    if absent:
        say_warning(f"{len(absent)} of the {len(held.images)} images that the training held out are not in {data}")
        return None
    say(f"measuring on the {len(held.images)} images that the training held out of {held.split}; --split names others")
    return held.divide(dataset)[1]
