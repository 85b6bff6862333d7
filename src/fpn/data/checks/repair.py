"""`fpn check --fix`: a repaired copy of a dataset in its own format, and a list of what changed. Never in place."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fpn.data.checks.boxes import gather_objects, invalid, over_edge, repeated
from fpn.data.checks.classes import alike_names, may_share
from fpn.data.checks.images import ImageInfo, right_suffix
from fpn.data.checks.inspection import CheckReport, class_names
from fpn.data.checks.polygons import outline_problem
from fpn.data.formats.layout import plain_split
from fpn.data.formats.survey import Survey, names_of
from fpn.data.formats.write import own_or_coco, write
from fpn.data.formats.writer import Annotation, ImageRecord, Part, record_of, refuse_filled, unique_names
from fpn.data.progress import Progress
from fpn.errors import DataError
from fpn.shapes import Size
from fpn.structures import Classes
from fpn.structures.masks import Masks, Segmentation

# What can't be kept: mostly what the readers leave out by themselves.
_LEFT_OUT = frozenset(
    {
        "annotations-unreadable",
        "labels-missing",
        "image-missing",
        "image-unreadable",
        "path-outside",
        "image-listed-twice",
        "entry-broken",
        "id-unknown",
        "box-not-finite",
        "box-empty",
        "box-outside",
    }
)
# What else is done about a kind without looking at the object: said before the finding's own words.
_DONE = {
    **dict.fromkeys(_LEFT_OUT, "left out"),
    "id-repeated": "made unique (objects got new ids; images whose objects can't be told apart are left out)",
    "id-unusable": "numbered anew",
    "class-broken": "called by its id, or joined with its equal",
    "outline-broken": "outline removed",
    "keypoints-broken": "keypoints removed",
    "image-unlabelled": "not copied",
    "file-aside": "not copied",
    "name-repaired": "written so",
    "image-merged": "listed once",
    "box-mended": "written so",
    "box-reversed": "swapped",
    "line-scored": "confidence removed",
    "size-unusable": "the image's own size written",
}
# What is lost, by the words that say so: listed last, after all that could be kept.
_LOSSES = ("left out", "not copied", "taken out of", "removed", "could not be kept")
# What the files may say beside that is drawn in the image's pixels.
_DRAWN = frozenset({"part", "point", "polygon", "keypoints", "num_keypoints", "rotation"})
# An image in two splits stays in the first of these: what is measured on should not shrink.
_KEEPERS = ("test", "val", "train")


@dataclass
class Changes:
    """Lines that say what was done, each once."""

    _lines: dict[str, None] = field(default_factory=dict)

    def add(self, message: str) -> None:
        """Note one."""
        self._lines.setdefault(message)

    def lines(self) -> list[str]:
        """All of them: what was mended, then what is lost."""
        return sorted(self._lines, key=is_loss)


def is_loss(line: str) -> bool:
    """Whether a line of a `repair` says that something is not in the copy."""
    return any(words in line for words in _LOSSES)


def repair(report: CheckReport, output: str | os.PathLike[str], *, bar: Progress | None = None) -> list[str]:
    """Write a repaired copy in the same format.

    Args:
        report: of a whole dataset.
        output: a new or empty folder. CHANGES.txt in it lists what was changed.
        bar: shows how many images were written.

    Returns:
        What was changed.

    Raises:
        DataError: nothing is left.
        OutputError: the folder is not empty, or can't be written.
    """
    output = Path(output)
    refuse_filled(output)
    return _Repair(report).write(output, bar)


class _Repair:
    """Decides image by image; walked once for each split."""

    def __init__(self, report: CheckReport) -> None:
        self.report, self.inspected, self.changes = report, report.inspected, Changes()
        for finding in report.findings:
            if finding.kind in _DONE:
                self.changes.add(f"{_DONE[finding.kind]}: {finding.message}")
        self.left_out = self._left_out()
        self.classes, self.joined = self._join_classes()

    def write(self, output: Path, bar: Progress | None) -> list[str]:
        inspected = self.inspected
        kept = {
            split: [row for row, name in enumerate(names_of(survey)) if name not in self.left_out[split]]
            for split, survey in inspected.splits.items()
        }
        kept = {split: rows for split, rows in kept.items() if rows}
        if not kept:
            raise DataError(f"{self.report.name}: no image is left that could be kept")
        names = self._names({inspected.splits[split].name_of(row) for split, rows in kept.items() for row in rows})
        parts = [self._part(split, rows, names) for split, rows in kept.items()]
        root = inspected.splits[parts[0].name].dataset.root
        write(parts, root, own_or_coco(inspected.surveyed.family), output, bar=bar, notes=self._text)
        return self.changes.lines()

    def _text(self, losses: Sequence[str]) -> str:
        for loss in losses:
            self.changes.add(f"could not be kept: {loss}")
        return "".join(f"{line}\n" for line in self.changes.lines()) or "nothing\n"

    def _names(self, kept: set[str]) -> dict[str, str]:
        right = {name: right_suffix(name, info) for name, info in self.inspected.infos.items() if name in kept}
        for old, new in right.items():
            if old != new:
                self.changes.add(f"{old}: is a {self.inspected.infos[old].format} file, renamed to {Path(new).name}")
        flat = unique_names(list(right))
        names = {old: str(Path(flat[old]).with_suffix(Path(new).suffix)) for old, new in right.items()}
        for old, new in names.items():
            if Path(right[old]).name != new:
                shown = old if old.isprintable() else repr(old)
                self.changes.add(f"{shown}: renamed to {new}, so that lists can hold its name and no other has it")
        return names

    # --- images ---------------------------------------------------------------------------------------------------

    def _left_out(self) -> dict[str, set[str]]:
        """Split -> its images that are not kept."""
        unusable = {name for name, info in self.inspected.infos.items() if info.problem}
        sets = {split: set(names & unusable) for split, names in self.inspected.images.items()}
        for split, survey in self.inspected.splits.items():
            sets[split] |= set(self._of_another_shape(survey))
        self._separate(sets)
        self._drop_copies(sets)
        return sets

    def _of_another_shape(self, survey: Survey) -> Iterator[str]:
        for row, name in enumerate(names_of(survey)):
            info, said = self.inspected.infos[name], _said(survey, row)
            if not info.problem and _plan(info, said) == "leave out":
                size = f"{info.size.width} x {info.size.height}, annotated as {said.width} x {said.height}"
                self.changes.add(f"{name}: left out, it is {size}")
                yield name

    def _separate(self, left_out: dict[str, set[str]]) -> None:
        """Images that are in two splits, by name or by content, stay in one."""
        images = self.inspected.images
        alike = self._equal_files()
        order = sorted(images, key=_rank)
        for place, keeper in enumerate(order):
            for other in order[place + 1 :]:
                if may_share(keeper, other, images):
                    continue
                own = images[keeper] - left_out[keeper]
                digests = {alike[name] for name in own if name in alike}
                shared = {n for n in images[other] - left_out[other] if n in own or alike.get(n) in digests}
                if shared == images[other] - left_out[other]:
                    continue  # nothing would be left of that split: a person has to divide anew
                left_out[other] |= shared
                for name in sorted(shared):
                    self.changes.add(f"{name}: taken out of {other}, it is in {keeper}")

    def _equal_files(self) -> dict[str, bytes]:
        return {name: info.digest for name, info in self.inspected.infos.items() if not info.problem}

    def _drop_copies(self, left_out: dict[str, set[str]]) -> None:
        """Of equal files in one split the first stays."""
        names = list(self.inspected.infos)
        for pair in self.inspected.duplicates:
            if not pair.equal:
                continue
            first, second = names[pair.first], names[pair.second]
            for split, own in self.inspected.images.items():
                if {first, second} <= own - left_out[split]:
                    left_out[split].add(second)
                    self.changes.add(f"{second}: left out, it is the same file as {first}")

    # --- classes ----------------------------------------------------------------------------------------------------

    def _join_classes(self) -> tuple[dict[str, Classes], dict[str, str]]:
        """Split -> its classes without those that are another one spelled differently; and name -> the name kept."""
        counts = Counter({name: row["objects"] for name, row in self.report.classes.items()})
        joined = {}
        for group in alike_names(class_names(self.inspected)):
            keeper = max(group, key=lambda name: counts[name])
            for name in group:
                if name != keeper:
                    joined[name] = keeper
                    self.changes.add(f"class {name!r} joined with {keeper!r}")
        return {split: _renamed(survey.dataset.classes, joined) for split, survey in self._splits()}, joined

    def _splits(self) -> Sequence[tuple[str, Survey]]:
        return list(self.inspected.splits.items())

    # --- objects ----------------------------------------------------------------------------------------------------

    def _part(self, split: str, rows: list[int], names: Mapping[str, str]) -> Part:
        survey = self.inspected.splits[split]
        objects = gather_objects(survey, self.inspected.infos_of(survey))
        dropped = dict.fromkeys(np.flatnonzero(invalid(objects)).tolist(), "wholly outside of its image")
        dropped |= {second: "labelled twice" for _, second in repeated(objects).tolist()}
        cut = set(np.flatnonzero(over_edge(survey, objects)).tolist())

        def images() -> Iterator[ImageRecord]:
            return (self._image(split, survey, row, names, dropped, cut) for row in rows)

        sources = [survey.name_of(row) for row in rows]
        family = self.inspected.surveyed.family
        return Part(split, family, self.classes[split], survey.header, sources, images, survey.dataset.skeleton)

    def _image(
        self,
        split: str,
        survey: Survey,
        row: int,
        names: Mapping[str, str],
        dropped: Mapping[int, str],
        cut: set[int],
    ) -> ImageRecord:
        info, said = self.inspected.infos[survey.name_of(row)], _said(survey, row)
        image = record_of(survey, row, said, names)
        start = int(survey.dataset.table.starts[row])
        annotations = []
        for number, annotation in enumerate(image.annotations, start=start):
            if number in dropped:
                self.changes.add(f"{survey.called(number)}: left out, {dropped[number]}")
                continue
            if number in cut:
                self.changes.add(f"{survey.called(number)}: box cut at the image's edge")
            annotations.append(self._annotation(split, survey, number, annotation, info, said))
        if said != info.size:
            how = "turned" if _plan(info, said) == "turn" else "scaled"
            self.changes.add(f"{image.source}: boxes {how} to {info.size.width} x {info.size.height}")
        return image._replace(size=info.size, annotations=annotations)

    def _annotation(
        self, split: str, survey: Survey, number: int, annotation: Annotation, info: ImageInfo, said: Size
    ) -> Annotation:
        say = partial(_say, self.changes, survey.called(number))
        limits = np.array([said.width, said.height] * 2, dtype=np.float32)
        box, outline = np.clip(annotation.box, 0, limits), _mended(annotation.outline, said, say)
        area = annotation.area if outline == annotation.outline else float("nan")
        extra, keypoints = annotation.extra, annotation.keypoints
        if said != info.size:
            box, outline = _fitted(box, outline, info, said, say)
            area, extra = float("nan"), _without_drawn(extra, say)
            keypoints = None if keypoints is None else _fitted_keypoints(keypoints, info, said)
        old = survey.dataset.classes[annotation.label]
        label = self.classes[split].names.index(self.joined.get(old, old))
        box = box.astype(np.float32)
        return annotation._replace(box=box, label=label, outline=outline, area=area, extra=extra, keypoints=keypoints)


def _say(changes: Changes, where: str, what: str) -> None:
    changes.add(f"{where}: {what}")


def _said(survey: Survey, row: int) -> Size:
    """The size that the annotation says, else that of the image."""
    return survey.dataset.size(row) if min(survey.dataset.table.sizes[row].tolist()) else _seen(survey, row)


def _seen(survey: Survey, row: int) -> Size:
    try:
        return survey.dataset.size(row)
    except (OSError, ValueError):
        return Size(0, 0)


def _plan(info: ImageInfo, said: Size) -> str:
    """What to do about an image of another size than was said: its proportions tell whether it was scaled."""
    if said == info.size or 0 in said:
        return "keep"
    if said == info.stored:
        return "turn"
    (h1, w1), (h2, w2) = said, info.size
    return "scale" if abs(h1 * w2 - h2 * w1) <= 0.01 * max(h1 * w2, h2 * w1) else "leave out"


def _rank(split: str) -> int:
    name = plain_split(split)
    return _KEEPERS.index(name) if name in _KEEPERS else len(_KEEPERS)


def _renamed(classes: Classes, joined: Mapping[str, str]) -> Classes:
    """Classes without those that are joined with another; that one is added where a split lacks it, with its id."""
    pairs = dict(zip(classes.names, classes.ids, strict=True))
    kept = {name: number for name, number in pairs.items() if name not in joined}
    for name, keeper in joined.items():
        if name in pairs:
            kept.setdefault(keeper, pairs[name])
    ordered = sorted(kept.items(), key=lambda pair: pair[1])
    return Classes(tuple(name for name, _ in ordered), tuple(number for _, number in ordered))


def _mended(outline: Segmentation | None, size: Size, say: partial[None]) -> Segmentation | None:
    """The outline without what has no area; None if it can't be made into a mask."""
    if outline_problem(outline, size):
        return None  # was told with the finding
    if isinstance(outline, list) and any(len(part) < 6 for part in outline):
        say("polygon of less than 3 points removed")
        return [part for part in outline if len(part) >= 6] or None
    return outline


def _without_drawn(extra: Mapping[str, Any], say: partial[None]) -> Mapping[str, Any]:
    for key in sorted(extra.keys() & _DRAWN):
        say(f"{key} removed, it was drawn on another size of the image")
    return {key: value for key, value in extra.items() if key not in _DRAWN}


def _fitted(
    box: np.ndarray, outline: Segmentation | None, info: ImageInfo, said: Size, say: partial[None]
) -> tuple[np.ndarray, Segmentation | None]:
    """Box and outline in the image as it stands upright, from the size that was said."""
    corners = _moved(box.reshape(2, 2), info, said)
    bounds = np.concatenate((corners.min(axis=0), corners.max(axis=0)))
    if isinstance(outline, dict):
        if _plan(info, said) == "turn":
            return bounds, _turned(outline, info, said)
        say("outline removed, its run-length code is of another size than the image")
        return bounds, None
    polygons = [_moved(np.array(part).reshape(-1, 2), info, said).ravel().tolist() for part in outline or ()]
    return bounds, polygons or None


def _turned(code: dict[str, Any], info: ImageInfo, said: Size) -> Segmentation:
    """A run-length code in the upright image, pixel for pixel, written as it was: compressed or not."""
    masks = Masks.from_coco([code], said).transposed()
    # As `_moved`: orientations 6 and 7 reverse what is now x, 7 and 8 what is now y.
    masks = masks.flipped() if info.orientation in (6, 7) else masks
    masks = masks.flipped(vertical=True) if info.orientation in (7, 8) else masks
    return masks.to_coco(compressed=isinstance(code["counts"], str))[0]


def _fitted_keypoints(keypoints: np.ndarray, info: ImageInfo, said: Size) -> np.ndarray:
    """Keypoints (J, 3) in the image as it stands upright; those not labelled stay 0."""
    moved = np.concatenate((_moved(keypoints[:, :2], info, said), keypoints[:, 2:]), axis=1)
    return np.where(keypoints[:, 2:] > 0, moved, 0).astype(np.float32)


def _moved(points: np.ndarray, info: ImageInfo, said: Size) -> np.ndarray:
    """(n, 2) x, y in an image of the size `said`, in the upright one."""
    if _plan(info, said) == "scale":
        return np.asarray(points * (np.array(info.size[::-1]) / np.array(said[::-1])))
    x, y = points[:, 0], points[:, 1]
    height, width = info.stored
    # EXIF's orientations that lay an image on its side.
    turned = {5: (y, x), 6: (height - y, x), 7: (height - y, width - x), 8: (y, width - x)}
    return np.stack(turned[info.orientation], axis=1)
