"""What is in a dataset's folder, looks like an image or a label, and is read by nobody: with the reason."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from fpn.data.formats.coco_layout import looks_like_coco
from fpn.data.formats.files import MAX_DEPTH, Folder, is_image
from fpn.data.formats.labelme_reader import is_labelme_file
from fpn.data.formats.voc_reader import is_voc_file
from fpn.data.formats.yolo_reader import is_label_file
from fpn.data.issues import Finding
from fpn.image_io import UNREAD_SUFFIXES


def _is_json_labels(file: Path) -> bool:
    return looks_like_coco(file) or is_labelme_file(file)


_LABELS = {
    ".txt": (is_label_file, "label files of YOLO that belong to no image that is read"),
    ".xml": (is_voc_file, "annotations of VOC that are in no split"),
    ".json": (_is_json_labels, "annotations of COCO or LabelMe that are not read"),
}
# Of a folder's files of a kind, so many are opened to see what they hold.
_OPENED = 20


def check_aside(
    folder: Folder, images: Collection[str], used: Collection[str], told: Collection[str]
) -> Iterator[Finding]:
    """Files that look as if they belonged to the dataset and do not.

    Args:
        folder: to look through.
        images: paths of the images that are read, relative to the folder.
        used: paths of the annotation files that were read.
        told: relative paths of files that were told already.
    """
    read = {os.path.dirname(name) for name in images}  # noqa: PTH120  # many
    for place, names in _walk(folder, ""):
        why = folder.why_left_out(str(folder.root / place)) if place else None
        if why is not None:
            if any(_is_image_like(name) for name in names) and not _holds(read, place):
                yield Finding("file-aside", f"{place}/: its images are not read: {why}", place)
            continue
        groups = _grouped(folder, place, names, images, used, read)
        for what, files in groups.items():
            rest = [file for file in files if file not in told]
            if rest:
                more = f" and {len(rest) - 1} more" if len(rest) > 1 else ""
                yield Finding("file-aside", f"{rest[0]}{more}: {what}", rest[0])


def _walk(folder: Folder, place: str, depth: int = MAX_DEPTH) -> Iterator[tuple[str, list[str]]]:
    """(folder, names of its files), also of those that readers leave out, which are not entered."""
    listing = folder.listing(str(folder.root / place) if place else str(folder.root))
    yield place, [name for name, is_folder in listing.items() if not is_folder]
    if place and (folder.why_left_out(str(folder.root / place)) is not None or not depth):
        return
    for name, is_folder in listing.items():
        if is_folder:
            yield from _walk(folder, f"{place}/{name}" if place else name, depth - 1)


def _grouped(
    folder: Folder,
    place: str,
    names: list[str],
    images: Collection[str],
    used: Collection[str],
    read: Collection[str],
) -> Mapping[str, list[str]]:
    """What is said -> the files of a folder of which it is said, relative to the dataset's."""
    groups: dict[str, list[str]] = defaultdict(list)
    opened: dict[str, list[bool]] = defaultdict(list)
    for name in names:
        path = f"{place}/{name}" if place else name
        suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122
        if is_image(name):
            # Images beside labelled ones are told one by one elsewhere.
            if path not in images and place not in read and str(folder.root / path) not in used:
                groups["images that are in no split"].append(path)
        elif suffix in UNREAD_SUFFIXES and not name.startswith("."):
            groups[f"images of a kind ({suffix}) that is not read: save them as JPEG or PNG"].append(path)
        elif suffix in _LABELS and str(folder.root / path) not in used and not name.startswith("."):
            looks_like_labels, what = _LABELS[suffix]
            if len(opened[suffix]) < _OPENED:
                opened[suffix].append(looks_like_labels(Path(folder.root, path)))
                if not opened[suffix][-1]:
                    continue
            if any(opened[suffix]):
                groups[what].append(path)
    return groups


def _holds(read: Collection[str], place: str) -> bool:
    """Whether images are read out of a folder, which an annotation may name though readers would not look there."""
    return any(each == place or each.startswith(f"{place}/") for each in read)


def _is_image_like(name: str) -> bool:
    return is_image(name) or os.path.splitext(name)[1].lower() in UNREAD_SUFFIXES  # noqa: PTH122
