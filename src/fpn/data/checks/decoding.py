"""Decodes every image of a dataset once, before a run that would stop at the first damaged one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fpn.data.checks.images import inspect_images
from fpn.data.dataset import Dataset
from fpn.data.formats.table import TableDataset
from fpn.data.progress import Progress, no_bar


@dataclass(frozen=True)
class Decoded:
    """What decoding showed.

    Attributes:
        unreadable: path -> why, of images that can't be used.
        cut_short: path -> what is missing, of JPEGs that can be used although their end is missing.
    """

    unreadable: Mapping[str, str]
    cut_short: Mapping[str, str]


def decode_all(dataset: Dataset, *, workers: int | None = None, bar: Progress | None = None) -> Decoded:
    """Decode all images, large JPEGs at a part of their size, which finds what is missing as well.

    Args:
        dataset: the images.
        workers: threads; None: one a core, at most 8.
        bar: shows how many were decoded.
    """
    paths = [dataset.path(number) for number in range(len(dataset))]
    limits = dataset.limits if isinstance(dataset, TableDataset) else None
    with (bar or no_bar)(len(paths)) as progress:
        infos = inspect_images(paths, limits=limits, workers=workers, progress=progress)
    pairs = list(zip(paths, infos, strict=True))
    return Decoded(
        {path: info.problem for path, info in pairs if info.problem},
        {path: info.cut_short for path, info in pairs if info.cut_short},
    )
