"""Names for classes that a checkpoint only counts: COCO's, a file's, or those that were typed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from fpn.data.formats.files import MAX_CLASSES
from fpn.errors import ConfigError, DataNotFoundError, ModelFileError
from fpn.structures import Classes

_LARGEST = 64 * 2**20
_GAPS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
# The 80 classes that COCO's 2017 annotations have, in the order of their ids, which run to 90.
COCO = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip


def coco_classes(count: int) -> Classes:
    """COCO's classes for a detector of so many: 80; 1, person; or in torchvision, which counts unused ids, 90 or 91.

    Raises:
        ConfigError: another number.
    """
    named = dict(zip((k for k in range(1, 91) if k not in _GAPS), COCO, strict=True))
    if count in (90, 91):  # its one-stage detectors have a class 0, too, which is never found
        ids = tuple(range(91 - count, 91))
        return Classes(tuple(named.get(k, f"unused {k}") for k in ids), ids)
    if count in (80, 1):
        return Classes(tuple(named.values())[:count], tuple(named)[:count])
    raise ConfigError(f"classes 'coco': the weights are of {count} classes, COCO has 80 (torchvision counts 90 or 91)")


def resolve_classes(told: Classes | Iterable[str] | str | os.PathLike[str] | None, count: int) -> Classes:
    """The classes of a detector.

    Args:
        told: "coco", a file (a name a line; or JSON, a list of names or COCO's annotations), "a,b,c", names, or None.
        count: how many the weights are of.

    Raises:
        ConfigError, DataNotFoundError, ModelFileError: other classes than that many, too many, or no such
            file.
    """
    if not 0 < count <= MAX_CLASSES:
        raise ModelFileError(f"weights of {count} classes, background not counted; expected 1 to {MAX_CLASSES}")
    if told is None:
        return Classes.of([f"class {number}" for number in range(1, count + 1)])
    if told == "coco":
        return coco_classes(count)
    if isinstance(told, str | os.PathLike):
        told = _from_text(str(told))
    named = Classes.of(told)
    if len(named) != count:
        raise ConfigError(
            f"{len(named)} class names ({', '.join(name[:40] for name in named.names[:3])}, ...) for weights of "
            f"{count} classes, background not counted. Name each, in the order of the toolkit's labels."
        )
    return named


def _from_text(text: str) -> Classes:
    path = Path(text)
    if path.is_file():
        return _from_file(path)
    if "," not in text and path.suffix.lower() in (".txt", ".json", ".names"):
        raise DataNotFoundError(f"{text}: no such file of class names")
    return Classes.of([name.strip() for name in text.split(",")])


def _from_file(path: Path) -> Classes:
    if path.stat().st_size > _LARGEST:
        raise ModelFileError(f"{path}: larger than {_LARGEST} bytes. Write the class names alone, one a line.")
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() != ".json":
            return Classes.of([line.strip() for line in text.splitlines() if line.strip()])
        value = json.loads(text)
        if isinstance(value, list):
            return Classes.of(value)
        entries = value["categories"]
        named = Classes.of([str(each["name"]) for each in entries])
        return Classes(named.names, tuple(int(each["id"]) for each in entries))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise ConfigError(f"{path}: {error}") from None
        raise ModelFileError(
            f"{path}: neither a name a line, nor JSON with a list of names or COCO's categories ({error!r:.200})"
        ) from None
