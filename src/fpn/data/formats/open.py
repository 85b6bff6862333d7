"""Opens a dataset, whatever its format. The one table of formats, tried from the most to the least explicit.

Which split, if none is asked for: the only one there is; else `all`; else `trainval`. Anything else would be a guess,
and is an error that lists them. `val`, `valid` and `validation` mean the same, and so do `train` and `train2017`, where
only one of them is there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fpn.data.formats import coco_layout, labelme_reader, voc_reader, yolo_reader
from fpn.data.formats.layout import WHOLE, Layout, plain_split
from fpn.data.formats.survey import Notes, Survey
from fpn.data.formats.table import TableDataset
from fpn.data.formats.table_builder import Options
from fpn.data.issues import Finding
from fpn.data.limits import Limits
from fpn.errors import DataError, DataNotFoundError, FpnError
from fpn.image_values import PixelRange, check_pixel_range
from fpn.suggestions import nearest, nearest_path

# A COCO json or a data.yaml was written to describe the dataset; bare label files may be left over from a conversion.
DATASET_FORMATS: Mapping[str, Callable[[Path, Path | None], Layout | str]] = {
    "COCO": coco_layout.find,
    "YOLO data.yaml": yolo_reader.find_configured,
    "YOLO obj.data": yolo_reader.find_darknet,
    "VOC": voc_reader.find,
    "LabelMe": labelme_reader.find,
    "YOLO label files": yolo_reader.find_label_folders,
}
_DEFAULT_SPLITS = (WHOLE, "trainval")


def open_dataset(
    path: str | os.PathLike[str],
    *,
    split: str | None = None,
    images: str | os.PathLike[str] | None = None,
    drop_invalid: bool = False,
    skip_unreadable: bool = False,
    limits: Limits | None = None,
    pixel_range: PixelRange | None = None,
) -> TableDataset:
    """Open labelled images: COCO, Pascal VOC, YOLO or LabelMe, recognised by itself.

    Args:
        path: a dataset's folder, a COCO json, or a YOLO data.yaml.
        split: such as "train". If absent: the only one, else "all", else "trainval".
        images: the folder of its images, if they lie elsewhere than their annotations.
        drop_invalid: leave out boxes without extent, with numbers that are not finite, or wholly outside of their
            image, and list them in `dropped`. Boxes that reach over the edge are always cut there.
        skip_unreadable: go on where an image's size can't be read; a loader that skips such images then leaves it out.
        limits: sizes of files and counts of objects that are accepted.
        pixel_range: the values that are black and white in images of more than 8 bits, see `fpn.image_io.read_image`.

    Raises:
        DataNotFoundError: there is no such path or split, or an image is missing.
        DataError: no known format, or broken annotations.
    """
    check_pixel_range(pixel_range)
    where = _image_folder(images)
    layout = _recognise(Path(path), where)
    chosen = _choose(layout, split, Path(path))
    options = Options(
        drop_invalid=drop_invalid,
        limits=limits or Limits(),
        pixel_range=pixel_range,
        images=where,
        skip_unreadable=skip_unreadable,
    )
    options.remarks.extend(each.message for each in layout.findings if each.kind == "name-repaired")
    return layout.splits[chosen](options)


def list_splits(path: str | os.PathLike[str], *, images: str | os.PathLike[str] | None = None) -> tuple[str, ...]:
    """The names that `open_dataset(path, split=...)` takes. Splits that are named but not there are left out.

    Raises:
        DataNotFoundError, DataError: as `open_dataset`.
    """
    return tuple(_recognise(Path(path), _image_folder(images)).splits)


def choose_split(
    path: str | os.PathLike[str], split: str | None, *, images: str | os.PathLike[str] | None = None
) -> str:
    """The name of the split that `open_dataset(path, split=split)` would take.

    Raises:
        DataNotFoundError, DataError: as `open_dataset`.
    """
    return _choose(_recognise(Path(path), _image_folder(images)), split, Path(path))


def usual_split(path: str | os.PathLike[str], *kinds: str, images: str | os.PathLike[str] | None = None) -> str | None:
    """The split to take where none was asked for and `open_dataset` would have to ask.

    Args:
        path: as `open_dataset` takes it.
        kinds: what is wanted, the best first, such as "val", "test"; synonyms count.
        images: as `open_dataset` takes it.

    Returns:
        Its name; None: `open_dataset` has a default of its own, or there is no such split.
    """
    splits = list_splits(path, images=images)
    if len(splits) == 1 or any(name in splits for name in _DEFAULT_SPLITS):
        return None
    return next((name for kind in kinds for name in splits if plain_split(name) == kind), None)


def _image_folder(images: str | os.PathLike[str] | None) -> Path | None:
    if images is None:
        return None
    if not Path(images).is_dir():
        raise DataNotFoundError(f"{images}: no such folder of images.{nearest_path(images)}")
    return Path(images)


@dataclass(frozen=True, slots=True)
class Surveyed:
    """A whole dataset as a check and a converter see it.

    Attributes:
        format: COCO, VOC, YOLO or LabelMe, and by what it was recognised.
        splits: name -> what was read of it.
        findings: what would have stopped `open_dataset`, or what it says without stopping.
        used: paths of the annotation files that were read.
    """

    format: str
    splits: Mapping[str, Survey]
    findings: Sequence[Finding]
    used: frozenset[str] = frozenset()

    @property
    def family(self) -> str:
        """`coco`, `voc`, `yolo` or `labelme`."""
        return self.format.split()[0].lower()


def survey_dataset(
    path: str | os.PathLike[str],
    *,
    split: str | None = None,
    images: str | os.PathLike[str] | None = None,
    limits: Limits | None = None,
) -> Surveyed:
    """Read all annotations, going on where `open_dataset` would stop. No image is opened.

    Args:
        path: see `open_dataset`.
        split: one of them; None: all.
        images: see `open_dataset`.
        limits: see `open_dataset`.

    Raises:
        DataNotFoundError, DataError: no such path or split, or no known format.
    """
    where = _image_folder(images)
    layout = _recognise(Path(path), where)
    names = list(layout.splits) if split is None else [_choose(layout, split, Path(path))]
    notes = Notes()
    for finding in layout.findings:
        notes.add(finding.kind, finding.message, finding.file)
    for name, reason in layout.absent.items():
        notes.add("image-missing" if plain_split(name) == "train" else "split-missing", reason)
    surveys: dict[str, Survey] = {}
    for name in names:
        try:
            layout.splits[name](Options(limits=limits or Limits(), notes=notes, images=where))
            surveys[name] = notes.surveys[-1]
        except FpnError as error:
            notes.add("annotations-unreadable", f"{name}: {error}")
    return Surveyed(layout.format, surveys, notes.findings, frozenset(notes.used))


def _recognise(path: Path, images: Path | None = None) -> Layout:
    _check_exists(path)
    tried: dict[str, str] = {}
    for name, find in DATASET_FORMATS.items():
        found = find(path, images)
        if isinstance(found, Layout):
            return found
        tried[name] = found
    if (inner := _only_folder(path)) is not None:
        return _recognise(inner, images)
    raise DataError(_unknown(path, tried))


def _check_exists(path: Path) -> None:
    try:
        if path.is_dir():
            os.listdir(path)  # noqa: PTH208  # raises where we have no permission to look
        if path.is_dir() or path.is_file():
            return
        special = path.exists()
    except (OSError, ValueError) as error:
        raise DataNotFoundError(f"{path}: can't be opened ({error})") from error
    if special:
        raise DataError(f"{path}: neither a file nor a folder")
    raise DataNotFoundError(f"{path}: no such file or folder.{nearest_path(path)}")


def _only_folder(path: Path) -> Path | None:
    """The one folder in a folder: what unpacking an archive leaves."""
    if not path.is_dir():
        return None
    inner = [entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith((".", "__"))]
    return inner[0] if len(inner) == 1 and not inner[0].is_symlink() else None


def _unknown(path: Path, tried: Mapping[str, str]) -> str:
    if path.is_file():
        hint = "Unpack it first. " if path.suffix.lower() in (".zip", ".tar", ".gz", ".tgz", ".rar", ".7z") else ""
        return f"{path}: not a dataset. {hint}Give its folder, a COCO .json or a YOLO data.yaml."
    if not any(path.iterdir()):
        return f"{path}: the folder is empty. Put the images and their annotations there."
    reasons = (f"  {name}: {reason}" for name, reason in tried.items())
    inner = sorted(entry.name for entry in path.iterdir() if entry.is_dir())[:8]
    deeper = f"\nIt has the folders {', '.join(inner)}: perhaps give one of these." if inner else ""
    return "\n".join([f"{path}: no dataset of a known layout. Looked for", *reasons]) + deeper


def _choose(layout: Layout, asked: str | None, path: Path) -> str:
    splits = list(layout.splits)
    if asked is None:
        default = splits if len(splits) == 1 else [name for name in _DEFAULT_SPLITS if name in splits]
        if not default:
            raise DataError(f"{path}: has the splits {', '.join(splits)}. Say which with --split.")
        return default[0]
    if asked in splits:
        return asked
    alike = [name for name in splits if plain_split(name) == plain_split(asked)]
    if len(alike) == 1:
        return alike[0]
    absent = next((why for name, why in layout.absent.items() if plain_split(name) == plain_split(asked)), None)
    if absent is not None:
        raise DataNotFoundError(absent)
    raise DataNotFoundError(_no_split(path, asked, splits))


def _no_split(path: Path, asked: str, splits: Iterable[str]) -> str:
    names = list(splits)
    if names == [WHOLE]:
        return f"{path}: has no split {asked!r}, it is not divided. Leave --split out to take all of it."
    return f"{path}: has no split {asked!r}.{nearest(asked, names)} It has: {', '.join(names)}."
