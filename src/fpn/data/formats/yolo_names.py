"""Where a YOLO dataset's classes are called by name: several tools, several files. Numbers only where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fpn.data.formats.files import Folder, listed_classes, make_classes, read_json, shorten
from fpn.data.formats.yolo_config import has_names, names_of
from fpn.data.limits import Limits
from fpn.errors import DataError
from fpn.structures import Classes

# Label Studio and labelImg, Darknet and CVAT, Roboflow's Darknet export, and what people write by hand.
CLASS_LISTS = ("classes.txt", "obj.names", "_darknet.labels", "labels.txt", "classes.names", "data.names", "names.txt")
NOTES = "notes.json"


def find_names(folder: Folder, places: Sequence[str], limits: Limits) -> tuple[Classes, Path] | None:
    """The classes that a file of the dataset lists, with the ids 0..K-1, and that file; None if there is none.

    Args:
        folder: of the dataset.
        places: folders of images, relative to it.
        limits: of the size of a file.

    Raises:
        DataError: the file is broken: numbers in place of its names would be wrong.
    """
    beside = [folder.root / Path(place).parent for place in places]
    own = [folder.root / place for place in places if not place.endswith(".txt")]
    for where in dict.fromkeys((folder.root, folder.root / "labels", *beside, *own)):
        names = folder.listing(where)
        lists = [name for name in CLASS_LISTS if name in names]
        lists += [name for name in names if name.endswith(".names") and name not in lists]
        for name in lists:
            return listed_classes(where / name, limits, first_id=0), where / name
        for name in names:
            if name.lower().endswith((".yaml", ".yml")) and has_names(where / name):
                classes = names_of(where / name)
                if classes is not None:
                    return classes, where / name
        if NOTES in names:
            return _noted(where / NOTES, limits), where / NOTES
    return None


def _noted(file: Path, limits: Limits) -> Classes:
    """Label Studio's notes.json: {"categories": [{"id": 0, "name": "bolt"}, ...], ...}."""
    data = read_json(file, limits.text_bytes)
    entries = data.get("categories") if isinstance(data, dict) else None
    try:
        by_id = {entry["id"]: entry["name"] for entry in entries or ()}
        if not by_id or sorted(by_id) != list(range(len(by_id))) or not all(isinstance(n, str) for n in by_id.values()):
            raise ValueError
    except (TypeError, KeyError, ValueError):
        raise DataError(
            f"{file}: 'categories' is {shorten(entries)}; it must be a list of objects with ids 0, 1, 2, ... and names"
        ) from None
    return make_classes([by_id[number] for number in range(len(by_id))], range(len(by_id)), str(file))
