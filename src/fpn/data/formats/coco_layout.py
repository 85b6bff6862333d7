"""Which json files of a folder are a COCO dataset, and which split each is: by their content, wherever they lie."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path

from fpn.data.formats.coco_reader import ROBOFLOW, read_split
from fpn.data.formats.files import SHOWN_ISSUES, head_of, is_prediction, read_json
from fpn.data.formats.layout import WHOLE, Layout, plain_split
from fpn.data.issues import Finding
from fpn.errors import DataError, DataNotFoundError

_KEYPOINTS = "person_keypoints_"
# COCO's own downloads hold these beside the boxes' file; they are about captions, keypoints and other things.
_OTHER_TASKS = ("captions_", _KEYPOINTS, "panoptic_", "stuff_", "image_info_", "sentences_")
_SPLITS = ("train", "val", "test")
_PEEK = 1 << 16


def find(path: Path, images: Path | None = None) -> Layout | str:
    """Recognise a COCO dataset at a file or folder; otherwise what was missing. `images` is asked when it is read."""
    if path.is_file():
        if path.suffix.lower() != ".json":
            return "not a .json file"
        root = path.parent.parent if path.parent.name == "annotations" else path.parent
        return Layout(f"COCO {path.name}", {_split_name(path): partial(read_split, path, root, _split_name(path))})
    files, aside = _annotation_files(path)
    if not files:
        return f"no annotations/*.json, no json with 'images' and 'annotations', no <split>/{ROBOFLOW}"
    named = ", ".join(file.relative_to(path).as_posix() for file in files[:SHOWN_ISSUES])
    names = _split_names(files, path)
    findings = [_aside(file.relative_to(path).as_posix(), why) for file, why in aside.items()]
    readers = {name: partial(read_split, file, path, name) for file, name in names.items()}
    return Layout(f"COCO {named}", readers, findings)


def _aside(name: str, why: str) -> Finding:
    return Finding("file-aside", f"{name}: {why}", name)


def _annotation_files(folder: Path) -> tuple[list[Path], dict[Path, str]]:
    """The json files of the splits; and those that are left aside, with the reason."""
    exported = [file for file in (folder / ROBOFLOW, *sorted(folder.glob(f"*/{ROBOFLOW}"))) if file.is_file()]
    if exported:
        return exported, {}
    inside = [file for file in sorted((folder / "annotations").glob("*.json")) if file.is_file()]
    for place in (inside, sorted(folder.glob("*.json")), sorted(folder.glob("*/*.json"))):
        whole = [file for file in place if looks_like_coco(file)]
        # Whatever lies in annotations/ was meant to be read: if none is whole, reading says what is wrong.
        whole = whole or [file for file in place if place is inside and not is_prediction(file)]
        boxes = [file for file in whole if not file.name.startswith(_OTHER_TASKS)]
        boxes = boxes or [file for file in whole if file.name.startswith(_KEYPOINTS)]
        if boxes:
            return boxes, {file: _why_aside(file) for file in place if file not in boxes}
    return [], {}


def _why_aside(file: Path) -> str:
    if file.name.startswith(_OTHER_TASKS):
        return "another task's annotations of the same images"
    return "what `fpn predict` wrote" if is_prediction(file) else "no json with images and annotations"


def looks_like_coco(file: Path) -> bool:
    """By its content: a folder may hold other json files, such as a tool's settings or a model's results."""
    start = head_of(file, _PEEK)
    if is_prediction(file) or start.lstrip().startswith(b"["):
        return False
    if len(start) < _PEEK:
        with suppress(DataError, DataNotFoundError):
            data = read_json(file, _PEEK)
            return isinstance(data, dict) and any(isinstance(data.get(key), list) for key in ("images", "annotations"))
    return b'"images"' in start or b'"annotations"' in start


def _split_names(files: list[Path], folder: Path) -> dict[Path, str]:
    """A name for each, no two alike: the file's, or that of its folder if it is a split's."""
    names = {file: _split_name(file) for file in files}
    for file in files:
        nested = file.parent not in (folder, folder / "annotations")
        if nested and (plain_split(file.parent.name) in _SPLITS or list(names.values()).count(names[file]) > 1):
            names[file] = file.parent.name
    if len(set(names.values())) == len(names):
        return names
    return {file: file.relative_to(folder).with_suffix("").as_posix() for file in files}


def _split_name(file: Path) -> str:
    if file.name == ROBOFLOW:
        return file.parent.name
    name = file.stem.removeprefix("instances_").removeprefix(_KEYPOINTS)
    return WHOLE if name in ("instances", "annotations", "labels", "coco", "_annotations.coco") else name
