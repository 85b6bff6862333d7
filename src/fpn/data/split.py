"""A dataset in one piece, divided into train, val and test: in memory, or written to a new folder."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from fpn.data.checks.classes import some
from fpn.data.checks.duplicates import find_duplicates
from fpn.data.checks.images import inspect_images
from fpn.data.convert import refuse_broken
from fpn.data.dataset import Dataset
from fpn.data.division import compile_groups, join_groups, stratify
from fpn.data.formats.open import choose_split, survey_dataset
from fpn.data.formats.survey import Survey, names_of
from fpn.data.formats.table import TableDataset
from fpn.data.formats.write import Family, own_or_coco, write
from fpn.data.formats.writer import Part, link_image, part_of, refuse_filled, unique_names
from fpn.data.limits import Limits
from fpn.data.progress import Progress, no_bar
from fpn.errors import ConfigError, DataError

# How far, in parts of all images, a part may be from its share before that is told.
_TOLERANCE = 0.02


@dataclass(frozen=True)
class Division:
    """How a dataset's images were divided.

    Attributes:
        classes: names of the K classes.
        counts: (N, K) objects of each class in each image, those to be ignored not counted.
        parts: "train", "val" and "test", as far as asked for -> the numbers of its images, ascending.
        remarks: what a person should know of it, such as rare classes that are not in each part.
    """

    classes: Sequence[str]
    counts: np.ndarray
    parts: Mapping[str, Sequence[int]]
    remarks: Sequence[str]

    def objects(self, part: str) -> list[int]:
        """Objects of each class in a part."""
        return [int(count) for count in self.counts[list(self.parts[part])].sum(axis=0)]

    def images(self, part: str) -> list[int]:
        """Images with each class in a part."""
        return [int(count) for count in (self.counts[list(self.parts[part])] > 0).sum(axis=0)]


def divide(
    dataset: Dataset,
    *,
    validation: float = 0.0,
    test: float = 0.0,
    by_group: str | None = None,
    similar: bool = True,
    seed: int = 0,
    bar: Progress | None = None,
) -> Division:
    """Divide a dataset so that each part has its share of every class; nothing is written.

    Args:
        dataset: what to divide; `dataset.subset(division.parts["train"])` and so on are its parts.
        validation: share of the images for "val"; 0: no such part.
        test: share of the images for "test"; 0: no such part. The rest is "train".
        by_group: regular expression that is searched for in each image's path within the dataset's folder. Images in
            which it, or its groups, find the same stay together, such as all frames of a film: "(film\\d+)_".
        similar: keep images together that look alike, for which all of them are read. False: without a look at them.
        seed: another one divides otherwise.
        bar: shows how many images were read.

    Raises:
        ConfigError: shares that leave nothing for a part, a negative seed, or an expression that is none or is found in
            no image.
        DataError: there are too few images, or groups of them, for each part to have one.
    """
    shares = _shares(validation, test)
    _check_seed(seed)
    names = [image_name(dataset, row) for row in range(len(dataset))]
    groups, remarks = _named_groups(names, by_group)
    if similar:
        pairs, told = _similar(dataset, bar)
        joined = join_groups(groups, pairs)
        remarks += told
    else:
        joined = np.array(groups, dtype=np.int64)
    counts = count_objects(dataset)
    parts = stratify(counts, joined, shares, seed=seed)
    for name, rows in parts.items():
        if not rows:
            tear = ", or tear apart those that look alike (--no-similar)" if similar else ""
            raise DataError(
                f"{dataset.name}: no image is left for {name}: its {len(dataset)} images are in {len(set(joined))} "
                f"groups whose images stay together. Take a larger share or smaller groups{tear}."
            )
    remarks += _off_share(parts, shares, joined)
    return Division(tuple(dataset.classes), counts, parts, [*remarks, *_too_rare(dataset, counts, parts)])


def _shares(validation: float, test: float) -> dict[str, float]:
    if not (0 <= validation < 1 and 0 <= test < 1 and 0 < validation + test < 1):
        raise ConfigError(
            f"validation {validation:g} and test {test:g}: expected shares of the images such as 0.2, above 0 and "
            "together below 1"
        )
    shares = {"train": 1 - validation - test, "val": validation, "test": test}
    return {name: share for name, share in shares.items() if share > 0}


def _check_seed(seed: int) -> None:
    if seed < 0:
        raise ConfigError(f"seed {seed}: expected a whole number from 0")


def image_name(dataset: Dataset, row: int) -> str:
    """An image's path within the dataset's folder, or its whole path if it lies elsewhere."""
    path = Path(dataset.path(row))
    return path.relative_to(dataset.root).as_posix() if path.is_relative_to(dataset.root) else path.as_posix()


def _named_groups(names: Sequence[str], pattern: str | None) -> tuple[list[int], list[str]]:
    """Each image's group by its name, and remarks; without a pattern each is its own."""
    if pattern is None:
        return list(range(len(names))), []
    finds = compile_groups(pattern)
    found = [finds.search(name) for name in names]
    first: dict[tuple[str | None, ...], int] = {}
    groups = [
        row if match is None else first.setdefault(match.groups() or (match[0],), row)
        for row, match in enumerate(found)
    ]
    lost = [name for name, match in zip(names, found, strict=True) if match is None]
    if len(lost) == len(names):
        raise ConfigError(f"by_group {pattern!r}: is found in no image's path, such as {some(names, 2)}")
    alone = f"; {len(lost)} images in whose path it is not found are their own group, such as {lost[0]}" if lost else ""
    return groups, [f"{len(first)} groups by {pattern!r}{alone}"]


def _similar(dataset: Dataset, bar: Progress | None) -> tuple[list[tuple[int, int]], list[str]]:
    """Pairs of images that look alike, and remarks."""
    limits = dataset.limits if isinstance(dataset, TableDataset) else None
    paths = [dataset.path(row) for row in range(len(dataset))]
    with (bar or no_bar)(len(paths)) as progress:
        infos = inspect_images(paths, limits=limits, progress=progress)
    pairs = [(pair.first, pair.second) for pair in find_duplicates(infos)]
    joined = Counter(join_groups(range(len(paths)), pairs).tolist())
    several = [count for count in joined.values() if count > 1]
    remarks = [f"{sum(several)} images look like others: {len(several)} groups that stay together"] if several else []
    broken = [path for path, info in zip(paths, infos, strict=True) if info.problem and not info.missing]
    if broken:
        remarks.append(f"{len(broken)} images can't be read: {some(broken, 2)}. Run: fpn check")
    return pairs, remarks


def count_objects(dataset: Dataset) -> np.ndarray:
    """(N, K) objects of each class in each image, without ignored ones."""
    counts = np.zeros((len(dataset), len(dataset.classes)), dtype=np.int64)
    for row in range(len(dataset)):
        targets = dataset.targets(row)
        np.add.at(counts[row], targets.labels[~targets.ignore].numpy(), 1)
    return counts


def _off_share(parts: Mapping[str, Sequence[int]], shares: Mapping[str, float], groups: np.ndarray) -> list[str]:
    largest = max(Counter(groups.tolist()).values())
    return [
        f"{name} has {len(parts[name]) / len(groups):.1%} of the images instead of {share:.1%}: the largest group that "
        f"stays together has {largest} of {len(groups)} images"
        for name, share in shares.items()
        if abs(len(parts[name]) / len(groups) - share) > max(_TOLERANCE, 1 / len(groups))
    ]


def _too_rare(dataset: Dataset, counts: np.ndarray, parts: Mapping[str, Sequence[int]]) -> list[str]:
    """What classes are in some parts and not in all."""
    present = np.stack([(counts[list(rows)] > 0).any(axis=0) for rows in parts.values()])
    images = (counts > 0).sum(axis=0)
    told = []
    for part, here in zip(parts, present, strict=True):
        absent = np.flatnonzero(present.any(axis=0) & ~here)
        absent = absent[np.argsort(-images[absent], kind="stable")]
        if len(absent):
            which = [f"{dataset.classes[k]} (in {images[k]} images of all)" for k in absent.tolist()]
            told.append(f"{part} has no object of {len(which)} rare classes: {some(which, 6)}")
    return told


@dataclass(frozen=True)
class WrittenDivision:
    """A divided dataset in a folder of its own.

    Attributes:
        folder: where it is.
        format: "coco", "voc" or "yolo".
        division: which image went where; numbers in the order of the dataset that was divided.
        linked: how many images share their bytes on the disk with the original; the others were copied.
        losses: what the format can't hold, and what was left out.
        renamed: old path -> new name, of images whose name had to change.
    """

    folder: Path
    format: Family
    division: Division
    linked: int
    losses: Sequence[str]
    renamed: Mapping[str, str]


def split_dataset(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    validation: float = 0.0,
    test: float = 0.0,
    by_group: str | None = None,
    similar: bool = True,
    seed: int = 0,
    split: str | None = None,
    target: Family | None = None,
    copy: bool = False,
    drop_invalid: bool = False,
    images: str | os.PathLike[str] | None = None,
    limits: Limits | None = None,
    looking: Progress | None = None,
    writing: Progress | None = None,
) -> WrittenDivision:
    """Write a dataset to a new folder, divided into train, val and test, see `divide`.

    Args:
        path: see `open_dataset`.
        output: a new or empty folder; it is there whole or not at all.
        validation, test, by_group, similar, seed: see `divide`.
        split: which of the dataset's splits to divide; None: as `open_dataset`. Others are not written.
        target: the format to write; None: the dataset's own.
        copy: copy images. False: link them (hard links), which takes no space, where the file system can.
        drop_invalid: leave out invalid boxes, as `open_dataset`.
        images: see `open_dataset`.
        limits: see `open_dataset`.
        looking: shows how many images were looked at.
        writing: shows how many images were written.

    Raises:
        ConfigError, DataError: as `divide`.
        DataError, DataNotFoundError: as `open_dataset`.
        OutputError: the folder is not empty, or can't be written.
    """
    output = Path(output)
    refuse_filled(output)
    _shares(validation, test)
    _check_seed(seed)
    if by_group is not None:
        compile_groups(by_group)
    chosen = choose_split(path, split, images=images)
    surveyed = survey_dataset(path, split=chosen, images=images, limits=limits)
    dropped = refuse_broken(surveyed, Path(path), drop_invalid=drop_invalid)
    (survey,) = surveyed.splits.values()
    division = divide(
        survey.dataset,
        validation=validation,
        test=test,
        by_group=by_group,
        similar=similar,
        seed=seed,
        bar=looking,
    )
    names = unique_names(names_of(survey))
    linked: list[Path] = []
    place = None if copy else partial(link_image, linked=linked)
    parts = _parts(division, survey, surveyed.family, names, place)
    family = target or own_or_coco(surveyed.family)
    losses = write(parts, survey.dataset.root, family, output, bar=writing)
    if dropped:
        losses.append(f"{dropped} invalid boxes")
    renamed = {old: new for old, new in names.items() if Path(old).name != new}
    return WrittenDivision(output, family, division, len(linked), losses, renamed)


def _parts(
    division: Division,
    survey: Survey,
    family: str,
    names: Mapping[str, str],
    place: Callable[[Path, Path], None] | None,
) -> list[Part]:
    return [part_of(name, survey, family, names, rows, place) for name, rows in division.parts.items()]
