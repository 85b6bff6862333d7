"""Which values are black and white in images of more than 8 bits: a detector, its data and its file agree on it."""

from __future__ import annotations

from fpn.data.checks.brightness import find_pixel_range, unfitting
from fpn.data.dataset import Dataset
from fpn.detectors import Detector


def agree_on_range(
    detector: Detector, dataset: Dataset, validation: Dataset | None
) -> tuple[Dataset, Dataset | None, list[str]]:
    """Give a detector the range of the data it is to learn from, and let all data be read with it.

    The range that the data were opened with counts; else the detector's own, of an earlier training; else what fits
    the data. Images of 8 bits have none, and nothing changes.

    Args:
        detector: keeps the range, in its file too.
        dataset: to learn from.
        validation: to measure on.

    Returns:
        Both datasets, and what a person should know.
    """
    own = detector.preprocessor.config.pixel_range
    chosen = dataset.pixel_range or own or find_pixel_range(dataset)
    if chosen is None:
        return dataset, validation, []
    detector.see_range(chosen)
    low, high = chosen
    notes = [f"images of more than 8 bits: {low:g} becomes black and {high:g} white, here and with the model"]
    warning = unfitting(dataset.name, [dataset.path(number) for number in range(len(dataset))], chosen)
    notes += [] if warning is None else [f"warning: {warning} (--pixel-range)"]
    return dataset.with_range(chosen), None if validation is None else validation.with_range(chosen), notes
