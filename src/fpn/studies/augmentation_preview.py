"""Augmented images with their objects on one sheet: what training would see, before it is run."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from fpn.data.dataset import Dataset, Sample
from fpn.data.loading.augmentation.augment import Augment
from fpn.data.loading.augmentation.chances import random_for
from fpn.data.loading.augmentation.compositing import Partners
from fpn.data.loading.augmentation.config import AugmentationConfig
from fpn.drawing import contact_sheet, draw

_CELL = 440
_AS_IT_IS = "as it is"
# One kind a column, strong enough to be seen; four columns a sheet.
_KINDS: Sequence[Sequence[tuple[str, dict[str, object]]]] = (
    (
        ("--jitter 0.3 1.8", {"jitter": (0.3, 1.8)}),
        ("--scale 0.6 2.5", {"scale": (0.6, 2.5)}),
        ("--crop 1", {"crop": 1.0}),
    ),
    (
        ("--flip 1", {"flip": 1.0}),
        ("--rotate 1", {"rotate": 1.0}),
        ("--mosaic 1", {"mosaic": 1.0}),
        ("--mix-up 1", {"mix_up": 1.0}),
    ),
    (
        ("--copy-paste 1", {"copy_paste": 1.0}),
        ("--colour 1", {"colour": 1.0}),
        ("--blur 1", {"blur": 1.0, "blur_sigma": (2.0, 2.0)}),
        ("--noise 1 and --jpeg 1", {"noise": 1.0, "noise_sigma": (12.0, 12.0), "jpeg": 1.0}),
    ),
)


def preview_epochs(dataset: Dataset, config: AugmentationConfig, *, rows: int = 5, epochs: int = 4) -> Image.Image:
    """Some images, as each is and as training with seed 0 would see it in its first epochs.

    Args:
        dataset: labelled images, one at least.
        config: the random changes.
        rows: images at most, spread over the dataset.
        epochs: how many.
    """
    augment = Augment(config)
    titles = [_AS_IT_IS, *(f"epoch {epoch + 1}" for epoch in range(epochs))]
    numbers = _some_numbers(dataset, rows)
    return contact_sheet(
        [
            [
                _drawn(dataset.sample(number, masks=augment.wants_masks), dataset),
                *(_changed(dataset, number, augment, epoch, masks=augment.wants_masks) for epoch in range(epochs)),
            ]
            for number in numbers
        ],
        titles,
        cell=_CELL,
    )


def preview_kinds(dataset: Dataset, *, rows: int = 2) -> Image.Image:
    """Some images with each kind of change alone, under the option that asks for it.

    Args:
        dataset: labelled images, one at least.
        rows: images at most, spread over the dataset.
    """
    numbers = _some_numbers(dataset, rows)
    first = [[_drawn(dataset.sample(number, masks=True), dataset)] for number in numbers]
    sheets = []
    for place, kinds in enumerate(_KINDS):
        augments = [Augment(**{"flip": 0.0, **settings}) for _, settings in kinds]
        changed = [[_changed(dataset, number, each, 0, masks=True) for each in augments] for number in numbers]
        whole = place == 0
        cells = [[*(before if whole else []), *after] for before, after in zip(first, changed, strict=True)]
        sheets.append(contact_sheet(cells, [*([_AS_IT_IS] if whole else []), *(name for name, _ in kinds)], cell=_CELL))
    return _stacked(sheets)


def _some_numbers(dataset: Dataset, most: int) -> list[int]:
    """Images with objects, evenly spread; any, where none has."""
    filled = [number for number in range(len(dataset)) if not bool(dataset.targets(number).ignore.all())]
    numbers = filled or list(range(len(dataset)))
    count = min(most, len(numbers))
    return [numbers[(2 * k + 1) * len(numbers) // (2 * count)] for k in range(count)]


def _changed(dataset: Dataset, number: int, augment: Augment, epoch: int, *, masks: bool) -> Image.Image:
    partners = Partners(len(dataset), lambda other: dataset.sample(other, masks=masks))
    sample = augment(dataset.sample(number, masks=masks), random_for(0, epoch, number), partners)
    return _drawn(sample, dataset)


def _drawn(sample: Sample, dataset: Dataset) -> Image.Image:
    """The image at the cell's size with its objects, so that lines and names are as large in all cells."""
    scale = _CELL / max(sample.image.size)
    return draw(sample.image, sample.targets, dataset.classes, scale=scale, skeleton=sample.skeleton)


def _stacked(sheets: Sequence[Image.Image]) -> Image.Image:
    width, height = max(sheet.width for sheet in sheets), sum(sheet.height for sheet in sheets)
    page, top = Image.new("RGB", (width, height), sheets[0].getpixel((0, 0))), 0
    for sheet in sheets:
        page.paste(sheet, (0, top))
        top += sheet.height
    return page
