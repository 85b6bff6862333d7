"""`fpn check`: everything that is wrong with a dataset, before it costs a night.

All annotations are read with the readers' own judging code, every image is looked at once, and what was found is a
`CheckReport`. Nothing is changed; see `repair`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fpn.data.checks.aside import check_aside
from fpn.data.checks.boxes import Objects, check_boxes, gather_objects
from fpn.data.checks.brightness import check_brightness
from fpn.data.checks.classes import check_counts, check_ids, check_names, check_splits, contained, some
from fpn.data.checks.duplicates import MOST_PAIRS, Duplicates, find_duplicates
from fpn.data.checks.images import ImageInfo, check_content, check_file, check_size, inspect_images
from fpn.data.checks.places import check_keypoint_places, check_outline_places
from fpn.data.checks.polygons import check_outlines
from fpn.data.formats.files import SHOWN_ISSUES, Folder
from fpn.data.formats.layout import plain_split
from fpn.data.formats.open import Surveyed, survey_dataset
from fpn.data.formats.survey import Survey, names_of
from fpn.data.issues import KINDS, Finding
from fpn.data.limits import Limits
from fpn.data.progress import Progress, no_bar
from fpn.shapes import Size

# COCO's bounds of small and medium objects, pixels.
SMALL, MEDIUM = 32, 96
PERCENTILES = (0, 5, 25, 50, 75, 95, 100)


@dataclass(frozen=True)
class Inspected:
    """A dataset that was read and looked at.

    Attributes:
        surveyed: its annotations.
        infos: image's path relative to the dataset's folder -> what it is.
        duplicates: images alike, as numbers in the order of `infos`.
    """

    surveyed: Surveyed
    infos: Mapping[str, ImageInfo]
    duplicates: Sequence[Duplicates]

    @property
    def splits(self) -> Mapping[str, Survey]:
        """Name -> what was read."""
        return self.surveyed.splits

    @cached_property
    def images(self) -> dict[str, frozenset[str]]:
        """Split -> its images."""
        return {split: frozenset(names_of(survey)) for split, survey in self.splits.items()}

    @cached_property
    def main_splits(self) -> dict[str, Survey]:
        """Those that are no part of another, so that each object is counted once."""
        parts = contained(self.images)
        return {split: survey for split, survey in self.splits.items() if split not in parts}

    @cached_property
    def objects(self) -> dict[str, Objects]:
        """Split -> its objects, of the main splits."""
        return {split: gather_objects(survey, self.infos_of(survey)) for split, survey in self.main_splits.items()}

    def infos_of(self, survey: Survey) -> list[ImageInfo]:
        """One for each image of a split."""
        return [self.infos[name] for name in names_of(survey)]

    def splits_of(self, name: str) -> frozenset[str]:
        """The splits that have an image."""
        return frozenset(split for split, names in self.images.items() if name in names)


@dataclass(frozen=True)
class CheckReport:
    """What a check found.

    Attributes:
        name: of the dataset.
        format: such as "VOC ImageSets/Main/*.txt".
        findings: all of them, by kind in the order of `KINDS`.
        splits: name -> {"images", "objects", and how many objects have an outline or a labelled keypoint, if any do:
            "outlined", "pointed"}.
        classes: name -> {"id", "objects", "images", "ignored", and the objects of each split}.
        sizes: histograms of objects and images.
        inspected: what it was made from.
    """

    name: str
    format: str
    findings: Sequence[Finding]
    splits: Mapping[str, Mapping[str, int]]
    classes: Mapping[str, Mapping[str, Any]]
    sizes: Mapping[str, Any]
    inspected: Inspected

    @property
    def passed(self) -> bool:
        """Whether there is no error."""
        return not any(KINDS[finding.kind].severity == "error" for finding in self.findings)

    def of(self, kind: str) -> list[Finding]:
        """The findings of one kind."""
        assert kind in KINDS, kind
        return [finding for finding in self.findings if finding.kind == kind]

    def with_findings(self, more: Sequence[Finding]) -> CheckReport:
        """The same with findings of somebody who knows more than the data, such as which anchors there will be."""
        return replace(self, findings=_sorted([*self.findings, *more]))

    def to_dict(self) -> dict[str, Any]:
        """Everything, for a JSON file."""
        counts = Counter(finding.kind for finding in self.findings)
        return {
            "dataset": self.name,
            "format": self.format,
            "passed": self.passed,
            "splits": self.splits,
            "findings": [self._kind_to_dict(kind) for kind in KINDS if counts[kind]],
            "classes": self.classes,
            "sizes": self.sizes,
        }

    def rows(self) -> list[dict[str, str]]:
        """The findings as a table."""
        return [
            {
                "severity": KINDS[each.kind].severity,
                "kind": each.kind,
                "file": each.file,
                "message": each.message,
                "remedy": KINDS[each.kind].remedy,
                "fix": KINDS[each.kind].repair,
            }
            for each in self.findings
        ]

    def _kind_to_dict(self, kind: str) -> dict[str, Any]:
        about, found = KINDS[kind], self.of(kind)
        entries = [{"message": each.message, **({"file": each.file} if each.file else {})} for each in found]
        return {
            "kind": kind,
            "severity": about.severity,
            "what": about.title,
            "count": len(found),
            "remedy": about.remedy,
            "fix": about.repair or None,
            "entries": entries,
        }


def check(
    path: str | os.PathLike[str],
    *,
    split: str | None = None,
    workers: int | None = None,
    images: str | os.PathLike[str] | None = None,
    limits: Limits | None = None,
    bar: Progress | None = None,
) -> CheckReport:
    """Read all of a dataset once and say what is wrong with it.

    Args:
        path: see `open_dataset`.
        split: one of them; None: all, and what they have in common.
        workers: threads that look at images; None: one a core, at most 8.
        images: the folder of the images, see `open_dataset`.
        limits: see `open_dataset`.
        bar: shows how many images were looked at.

    Raises:
        DataNotFoundError, DataError: no such path or split, or no known format.
    """
    surveyed = survey_dataset(path, split=split, images=images, limits=limits)
    names = list(dict.fromkeys(name for survey in surveyed.splits.values() for name in names_of(survey)))
    root = _root(surveyed)
    with (bar or no_bar)(len(names)) as progress:
        infos = inspect_images([f"{root}/{name}" for name in names], limits=limits, workers=workers, progress=progress)
    inspected = Inspected(surveyed, dict(zip(names, infos, strict=True)), find_duplicates(infos))
    findings = [*surveyed.findings, *_check(inspected, whole=split is None)]
    if split is None:
        findings += _aside(inspected, Path(path))
    return CheckReport(
        name=next((survey.dataset.root.name for survey in surveyed.splits.values()), str(path)),
        format=surveyed.format,
        findings=_sorted(findings),
        splits={name: _extent(survey) for name, survey in inspected.splits.items()},
        classes=_classes(inspected),
        sizes=_sizes(inspected),
        inspected=inspected,
    )


def class_names(inspected: Inspected) -> list[str]:
    """All classes of all splits."""
    return list(dict.fromkeys(name for survey in inspected.splits.values() for name in survey.dataset.classes))


def _root(surveyed: Surveyed) -> str:
    return next((str(survey.dataset.root) for survey in surveyed.splits.values()), ".")


def _sorted(findings: Sequence[Finding]) -> list[Finding]:
    place = {kind: number for number, kind in enumerate(KINDS)}
    return sorted(dict.fromkeys(findings), key=lambda finding: place[finding.kind])


def _check(inspected: Inspected, *, whole: bool) -> Iterator[Finding]:
    yield from _check_files(inspected)
    for split, survey in inspected.main_splits.items():
        objects = inspected.objects[split]
        yield from check_boxes(survey, objects)
        yield from check_outlines(survey, objects)
        yield from check_outline_places(survey, objects)
        yield from check_keypoint_places(survey, objects)
        yield from _notable(survey, objects)
        yield from _objects_none(split, objects)
        if inspected.surveyed.family == "coco":
            yield from check_ids(survey)
    names = class_names(inspected)
    counts = {split: _count(survey) for split, survey in inspected.splits.items()}
    yield from check_names(names, sum(counts.values(), Counter[str]()))
    yield from check_counts(names, counts)
    yield from check_splits(inspected.images)
    yield from _check_duplicates(inspected)
    if whole:
        yield from _unlabelled(inspected)


def _check_files(inspected: Inspected) -> Iterator[Finding]:
    if not inspected.splits:
        return
    folder = Folder(next(iter(inspected.splits.values())).dataset.root)
    said = {
        name: Size(*size)
        for survey in inspected.main_splits.values()
        for name, size in zip(names_of(survey), survey.dataset.table.sizes.tolist(), strict=True)
    }
    hints = 0
    for name, info in inspected.infos.items():
        hints += info.missing
        size = said[name] if all(said[name]) else None
        wrong = check_file(name, info, folder, hint=hints <= SHOWN_ISSUES), check_size(name, info, size)
        yield from (finding for finding in wrong if finding is not None)
        yield from check_content(name, info)
    yield from check_brightness(inspected.infos)


def _notable(survey: Survey, objects: Objects) -> Iterator[Finding]:
    """What is neither wrong nor suspicious."""
    for number in np.flatnonzero(objects.ignore).tolist():
        yield Finding("crowd", survey.called(number), survey.name_of(int(objects.owner[number])))
    for row in np.flatnonzero(np.diff(survey.dataset.table.starts.numpy()) == 0).tolist():
        name = survey.name_of(row)
        yield Finding("image-empty", f"{name} has no object", name)


def _objects_none(split: str, objects: Objects) -> Iterator[Finding]:
    """Training refuses to learn from nothing, and nothing can be measured on it. A test set may be kept unlabelled."""
    if plain_split(split) == "test" or not objects.ignore.all():
        return
    why = f"all of its {len(objects)} objects are crowds or difficult" if len(objects) else "no image has an object"
    yield Finding("objects-none", f"{split}: {why}")


def _aside(inspected: Inspected, path: Path) -> Iterator[Finding]:
    """Files that nobody reads, in the folder of the images and in what was named."""
    roots = [Path(_root(inspected.surveyed))] if inspected.splits else []
    named = Path(os.path.abspath(path))  # noqa: PTH100  # resolve() would follow links
    if named.is_dir() and not any(named.is_relative_to(root) or root.is_relative_to(named) for root in roots):
        roots.append(named)
    told = {finding.file for finding in inspected.surveyed.findings}
    for root in roots:
        yield from check_aside(Folder(root), inspected.infos, inspected.surveyed.used, told)


def _check_duplicates(inspected: Inspected) -> Iterator[Finding]:
    names = list(inspected.infos)
    for pair in inspected.duplicates:
        one, other = names[pair.first], names[pair.second]
        mine, yours = inspected.splits_of(one), inspected.splits_of(other)
        if mine - yours and yours - mine:
            where = f"{one} ({some(sorted(mine - yours))}) and {other} ({some(sorted(yours - mine))})"
            kind, how = ("split-overlap", "are the same file") if pair.equal else ("split-alike", "look alike")
        else:
            where = f"{one} and {other}"
            kind, how = ("images-equal", "are the same file") if pair.equal else ("images-alike", "look alike")
        yield Finding(kind, f"{where} {how}", other)
    if len(inspected.duplicates) >= MOST_PAIRS:
        yield Finding("images-alike", f"perhaps more: only the nearest {MOST_PAIRS} pairs were compared")


def _unlabelled(inspected: Inspected) -> Iterator[Finding]:
    """Images that lie among labelled ones and are in no split."""
    if not inspected.splits:
        return
    folder = Folder(next(iter(inspected.splits.values())).dataset.root)
    for place in dict.fromkeys(os.path.dirname(name) for name in inspected.infos):  # noqa: PTH120  # many of them
        for image in folder.images(folder.root / place):
            name = f"{place}/{image}" if place else image
            if name not in inspected.infos:
                yield Finding("image-unlabelled", f"{name} is in no annotation", name)


def _extent(survey: Survey) -> dict[str, int]:
    table = survey.dataset.table
    counts = {"images": len(survey.dataset), "objects": len(survey.origins)}
    if table.segmentations is not None:
        counts["outlined"] = int((table.segmentations.starts.diff() > 0).sum())
    if table.keypoints is not None:
        counts["pointed"] = int((table.keypoints[..., 2] > 0).any(dim=1).sum())
    return counts


def _count(survey: Survey) -> Counter[str]:
    classes = survey.dataset.classes
    counts = np.bincount(survey.dataset.table.labels.numpy(), minlength=len(classes))
    return Counter(dict(zip(classes, counts.tolist(), strict=True)))


def _classes(inspected: Inspected) -> dict[str, dict[str, Any]]:
    table: dict[str, dict[str, Any]] = {}
    for name in class_names(inspected):
        table[name] = {"id": 0, "objects": 0, "images": 0, "ignored": 0, "splits": {}}
    for split, objects in inspected.objects.items():
        classes = inspected.splits[split].dataset.classes
        for label, (name, number) in enumerate(zip(classes.names, classes.ids, strict=True)):
            mine = objects.labels == label
            row = table[name]
            row["id"] = number
            row["objects"] += int(mine.sum())
            row["images"] += len(np.unique(objects.owner[mine]))
            row["ignored"] += int((mine & objects.ignore).sum())
    for split, survey in inspected.splits.items():
        for name, count in _count(survey).items():
            table[name]["splits"][split] = count
    return table


def _sizes(inspected: Inspected) -> dict[str, Any]:
    boxes = np.concatenate([np.zeros((0, 4)), *(each.cut[each.measured] for each in inspected.objects.values())])
    sides = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None)
    sides = sides[np.isfinite(sides).all(axis=1) & (sides > 0).all(axis=1)]
    roots = np.sqrt(sides.prod(axis=1))
    each_image = [np.diff(survey.dataset.table.starts.numpy()) for survey in inspected.main_splits.values()]
    seen = np.array([info.size for info in inspected.infos.values() if not info.problem]).reshape(-1, 2)
    return {
        "objects": {
            "small": int((roots < SMALL).sum()),
            "medium": int(((roots >= SMALL) & (roots < MEDIUM)).sum()),
            "large": int((roots >= MEDIUM).sum()),
            "side": _percentiles(roots),
            "height/width": _percentiles(sides[:, 1] / sides[:, 0]),
            "an image": _percentiles(np.concatenate([np.zeros(0), *each_image])),
            "histogram": _histogram(roots),
        },
        "images": {"width": _percentiles(seen[:, 1]), "height": _percentiles(seen[:, 0])},
    }


def _percentiles(values: np.ndarray) -> dict[str, float]:
    if not len(values):
        return {}
    found = np.percentile(values, PERCENTILES)
    return {str(percent): float(f"{value:.4g}") for percent, value in zip(PERCENTILES, found, strict=True)}


def _histogram(roots: np.ndarray) -> dict[str, int]:
    """Objects by the root of their area, in octaves: "16": from 16 to below 32 pixels."""
    octaves = Counter(np.floor(np.log2(np.maximum(roots, 1))).astype(int).tolist())
    return {str(2**octave): octaves[octave] for octave in range(min(octaves), max(octaves) + 1)} if octaves else {}
