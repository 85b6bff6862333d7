"""Writes YOLO: images/SPLIT, labels/SPLIT, data.yaml. Outlines of polygons become lines of corners."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from fpn.data.formats.layout import WHOLE
from fpn.data.formats.table_builder import QUIET_PIXELS
from fpn.data.formats.writer import (
    CONTRADICTED,
    Annotation,
    ImageRecord,
    Losses,
    Part,
    attributes,
    count_further,
)
from fpn.data.formats.yolo_config import SPLITS
from fpn.shapes import Size
from fpn.structures import Skeleton


def write_yolo(parts: Sequence[Part], root: Path, output: Path, losses: Losses, done: Callable[[], None]) -> None:
    """Fill the folder `output`; arguments as `write_coco`."""
    kept = _without_unions(parts, losses)
    apart = sum(len(part.sources) for part in kept) == len({name for part in kept for name in part.sources})
    classes = list(dict.fromkeys(name for part in parts for name in part.classes))
    skeleton = _skeleton(kept, losses)
    places = {}
    for part in parts:
        if part not in kept:
            for _ in part.sources:
                done()
            continue
        inner = f"/{part.name}" if apart and part.name != WHOLE else ""
        _write_part(part, root, output, inner, classes, losses, done, pose=skeleton is not None)
        places[part.name] = f"images{inner}"
        if not apart:
            places[part.name] = f"{part.name}.txt"
            targets = "".join(f"./images/{image.target}\n" for image in part.images())
            (output / places[part.name]).write_text(targets, encoding="utf-8")
    _write_classes(output, places, classes, losses, skeleton)


def _without_unions(parts: Sequence[Part], losses: Losses) -> list[Part]:
    """The splits without those that others make up, such as trainval."""
    kept = list(parts)
    for part in sorted(parts, key=lambda part: -len(part.sources)):
        others = [set(each.sources) for each in kept if each is not part and set(each.sources) < set(part.sources)]
        if part.name not in SPLITS and set(part.sources) == set().union(*others) and others:
            kept.remove(part)
            losses.once(f"split {part.name}, which is others together")
    return kept


def _skeleton(parts: Sequence[Part], losses: Losses) -> Skeleton | None:
    """What the keypoints on each line will be; None: there are none, or no data.yaml to declare them."""
    skeleton = next((part.skeleton for part in parts if part.skeleton is not None), None)
    if skeleton is None or any(part.skeleton != skeleton for part in parts) or not _fits_config(parts):
        return None
    if skeleton.edges:
        losses.once("YOLO has no lines between keypoints")
    return skeleton


def _fits_config(parts: Sequence[Part]) -> bool:
    return {part.name for part in parts} <= {*SPLITS, WHOLE}


def _write_classes(
    output: Path, places: dict[str, str], classes: list[str], losses: Losses, skeleton: Skeleton | None
) -> None:
    # Names in double quotes as JSON writes them are YAML, too.
    if set(places) <= {*SPLITS, WHOLE}:
        if WHOLE in places:
            places["train"] = places.pop(WHOLE)
        lines = ["path: .", *(f"{split}: {json.dumps(place)}" for split, place in places.items()), "names:"]
        lines += [f"  {number}: {json.dumps(name)}" for number, name in enumerate(classes)]
        if skeleton is not None:
            lines += [f"kpt_shape: [{len(skeleton)}, 3]", f"flip_idx: {skeleton.flip_order()}", "kpt_names:"]
            lines += [f"  {number}: {json.dumps(list(skeleton.names))}" for number in range(len(classes))]
        (output / "data.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return
    losses.once("a data.yaml, which has train, val and test only: classes.txt takes its place")
    (output / "classes.txt").write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")


def _write_part(
    part: Part,
    root: Path,
    output: Path,
    inner: str,
    classes: list[str],
    losses: Losses,
    done: Callable[[], None],
    *,
    pose: bool,
) -> None:
    _count_ids(part, losses)
    index = [classes.index(name) for name in part.classes]
    labels = output / f"labels{inner}"
    labels.mkdir(parents=True, exist_ok=True)
    for image in part.images():
        part.put(root / image.source, output / f"images{inner}" / image.target)
        file = labels / f"{Path(image.target).stem}.txt"
        again = file.exists()
        text = "".join(f"{line}\n" for line in _lines(image, index, part, Losses() if again else losses, pose=pose))
        if again:
            losses.add(CONTRADICTED, file.read_text(encoding="utf-8") != text)
        else:
            file.write_text(text, encoding="utf-8")
        done()


def _count_ids(part: Part, losses: Losses) -> None:
    if part.classes.ids != tuple(range(len(part.classes))):
        losses.once("YOLO has no category ids: they become 0, 1, 2, ... in the order of the names")
    if part.family == "coco":
        losses.once("YOLO has no ids of images: they become 1, 2, 3, ... in order; and none of objects")
        losses.once("YOLO has no place for what the json says beside (info, licences, supercategories)")


def _lines(image: ImageRecord, index: Sequence[int], part: Part, losses: Losses, *, pose: bool) -> Iterator[str]:
    if part.family == "coco":
        count_further(image, losses)
    extras = (image.extra, *(annotation.extra for annotation in image.annotations))
    losses.add("attributes of images and objects", sum(len(attributes(extra, part.family)) for extra in extras))
    for annotation in image.annotations:
        if annotation.ignore:
            losses.add("crowds and difficult objects, which YOLO can't mark, left out")
            continue
        yield f"{index[annotation.label]} {_values(annotation, image, losses, pose=pose)}"


def _values(annotation: Annotation, image: ImageRecord, losses: Losses, *, pose: bool) -> str:
    """What stands behind the class: a box with keypoints, an outline, or a box."""
    if pose and annotation.keypoints is not None:
        losses.add("outlines, which YOLO can't hold beside keypoints", annotation.outline is not None)
        return f"{_box(annotation, image.size, losses)} {_keypoints(annotation.keypoints, image.size)}"
    lost = annotation.keypoints is not None and bool(annotation.keypoints[:, 2].any())
    losses.add("keypoints of objects, as there is no data.yaml to declare them", lost)
    polygon = _polygon(annotation, losses)
    return _box(annotation, image.size, losses) if polygon is None else _corners(polygon, annotation, image, losses)


def _keypoints(keypoints: np.ndarray, size: Size) -> str:
    values = keypoints.astype(np.float64) / [size.width, size.height, 1]
    return " ".join(f"{value:.9g}" for value in values.ravel())


def _polygon(annotation: Annotation, losses: Losses) -> np.ndarray | None:
    if isinstance(annotation.outline, dict):
        losses.add("outlines that are run-length codes: their boxes are kept")
        return None
    outline = annotation.outline or ()
    parts = [np.array(part).reshape(-1, 2) for part in outline if len(part) >= 6 and len(part) % 2 == 0]
    if not parts:
        return None
    losses.add("outlines of several polygons, joined to one by lines without width", len(parts) > 1)
    return joined(parts)


def joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """One polygon with the area of several: from the corner nearest to the next part, there, around it, and back."""
    whole, *rest = parts
    for part in rest:
        distance = ((whole[:, None] - part[None]) ** 2).sum(axis=2)
        here, there = np.unravel_index(distance.argmin(), distance.shape)
        around = np.concatenate((part[there:], part[: there + 1]))
        whole = np.concatenate((whole[: here + 1], around, whole[here:]))
    return whole


def _corners(polygon: np.ndarray, annotation: Annotation, image: ImageRecord, losses: Losses) -> str:
    scale = np.array([image.size.width, image.size.height])
    cut = np.clip(polygon, 0, scale)
    bounds = np.concatenate((cut.min(axis=0), cut.max(axis=0)))
    box = np.clip(annotation.box, 0, [*scale, *scale])
    losses.add(
        "boxes that differ from their outline's bounds by more than a pixel", bool((abs(bounds - box) > 1).any())
    )
    words = [f"{value:.9g}" for value in (cut / scale).ravel()]
    if len(words) == 6 and words[-1].isdecimal():
        words[-1] += ".0"  # a whole number behind a box and a fraction is read as a track's
    return " ".join(words)


def _box(annotation: Annotation, size: Size, losses: Losses) -> str:
    limits = np.array([size.width, size.height] * 2, dtype=np.float64)
    box = np.clip(annotation.box.astype(np.float64), 0, limits)
    beyond = bool((abs(box - annotation.box) > QUIET_PIXELS).any())
    losses.add("parts of boxes outside of their image, which many YOLO programs refuse, cut off", beyond)
    x1, y1, x2, y2 = box / limits
    return " ".join(f"{value:.9g}" for value in ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1))
