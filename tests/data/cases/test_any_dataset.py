"""Any dataset, written in any format in any of the ways that tools have, reads back equal or is refused by name."""

from __future__ import annotations

import json
import tempfile
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fpn.data import open_dataset
from fpn.data.checks.inspection import check
from fpn.errors import FpnError

from .build import draw, put, save_json, thing, xml

Box = tuple[float, float, float, float]
_STEMS = ("a", "IMG 0", "2024.05.01", "Sch\u00e4den", "\u87ba\u6813", "x_1", "photo-\u0416", "9")
_NAMES = ("bolt", "nut", "no", "Sch\u00e4den", "\u87ba\u6813", "left hand", "7", "washer: small", "# 1")
_SUFFIXES = (".png", ".jpg", ".PNG", ".JPEG", ".webp")
_PREFIXES = ("", "./", "/home/me/set/", "D:\\data\\set\\")


_SPELLINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "suffix in the other case": lambda path: str(Path(path).with_suffix(Path(path).suffix.swapcase())),
    "accents apart": lambda path: unicodedata.normalize("NFD", path),
    "percent signs": quote,
}


class Shot(NamedTuple):
    """An image as it stands upright, EXIF's number, and its objects: class and box in quarters of a pixel."""

    stem: str
    suffix: str
    width: int
    height: int
    turn: int
    objects: list[tuple[int, Box]]

    @property
    def file(self) -> str:
        return self.stem + self.suffix


class Dataset(NamedTuple):
    shots: list[Shot]
    names: list[str]


class Way(NamedTuple):
    """How it is written; each writer uses what it has a place for."""

    layout: int
    prefix: str
    mark: bool
    crlf: bool
    sizes: bool
    shift: int
    spelling: str = "as it is"

    def text(self, text: str) -> bytes:
        """With or without a byte order mark, with either end of a line."""
        return (("\ufeff" if self.mark else "") + text.replace("\n", "\r\n" if self.crlf else "\n")).encode()

    def path(self, path: str) -> str:
        """As it would be written on the machine that the prefix is of, by the tool that spells so."""
        path = _SPELLINGS[self.spelling](path)
        return self.prefix + (path.replace("/", "\\") if "\\" in self.prefix else path)


@st.composite
def boxes(draw_: st.DrawFn, width: int, height: int) -> Box:
    x1, y1 = draw_(st.integers(0, 4 * width - 8)), draw_(st.integers(0, 4 * height - 8))
    x2, y2 = draw_(st.integers(x1 + 8, 4 * width)), draw_(st.integers(y1 + 8, 4 * height))
    return x1 / 4, y1 / 4, x2 / 4, y2 / 4


@st.composite
def datasets(draw_: st.DrawFn) -> Dataset:
    names = draw_(st.lists(st.sampled_from(_NAMES), min_size=1, max_size=3, unique=True))
    stems = draw_(st.lists(st.sampled_from(_STEMS), min_size=1, max_size=3, unique=True))
    shots = []
    for stem in stems:
        width, height = draw_(st.integers(16, 40)), draw_(st.integers(16, 40))
        suffix, turn = draw_(st.sampled_from(_SUFFIXES)), draw_(st.sampled_from((0, 0, 3, 6, 8)))
        objects = st.tuples(st.integers(0, len(names) - 1), boxes(width, height))
        shots.append(Shot(stem, suffix, width, height, turn, draw_(st.lists(objects, max_size=3))))
    return Dataset(shots, names)


ways = st.builds(
    Way,
    layout=st.integers(0, 3),
    prefix=st.sampled_from(_PREFIXES),
    mark=st.booleans(),
    crlf=st.booleans(),
    sizes=st.booleans(),
    shift=st.integers(0, 90),
    spelling=st.sampled_from(list(_SPELLINGS)),
)


def write_coco(root: Path, data: Dataset, way: Way) -> None:
    folder, file = (
        ("images", "annotations/instances.json"),
        ("train", "annotations/instances_train.json"),
        ("data", "labels.json"),
        ("train", "train/_annotations.coco.json"),
    )[way.layout]
    images, notes = [], []
    for number, shot in enumerate(data.shots):
        draw(f"{folder}/{shot.file}", number, width=shot.width, height=shot.height, turn=shot.turn)(root)
        entry: dict[str, Any] = {"id": number * 3 + way.shift, "file_name": way.path(f"{folder}/{shot.file}")}
        images.append(entry | ({"width": shot.width, "height": shot.height} if way.sizes else {}))
        for label, (x1, y1, x2, y2) in shot.objects:
            record = {"id": len(notes) + way.shift, "image_id": entry["id"], "bbox": [x1, y1, x2 - x1, y2 - y1]}
            notes.append({**record, "category_id": 1 + 2 * label + way.shift})
    categories = [{"id": 1 + 2 * label + way.shift, "name": name} for label, name in enumerate(data.names)]
    whole = {"images": images, "annotations": notes, "categories": categories}
    put(file, way.text(json.dumps(whole, indent=1, ensure_ascii=way.sizes)))(root)


def write_voc(root: Path, data: Dataset, way: Way) -> None:
    annotations, images = (("Annotations", "JPEGImages"), ("annots", "images"), ("xmls", "photos"), ("all", "all"))[
        way.layout
    ]
    for number, shot in enumerate(data.shots):
        draw(f"{images}/{shot.file}", number, width=shot.width, height=shot.height, turn=shot.turn)(root)
        size = f"<width>{shot.width}</width><height>{shot.height}</height>" if way.sizes else ""
        # `&` and `<` are in none of the names.
        things = "\n".join(thing(data.names[label], box) for label, box in shot.objects)
        text = xml(way.path(shot.file), things, size)
        put(f"{annotations}/{shot.stem}.xml", way.text(f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'))(root)
    if way.shift % 2:
        put("labels.txt", way.text("".join(f"{name}\n" for name in data.names)))(root)


def write_yolo(root: Path, data: Dataset, way: Way) -> None:
    images, labels = (
        ("images/train", "labels/train"),
        ("train/images", "train/labels"),
        ("images", "labels"),
        (".", "."),
    )[way.layout]
    for number, shot in enumerate(data.shots):
        draw(f"{images}/{shot.file}", number, width=shot.width, height=shot.height, turn=shot.turn)(root)
        lines = "".join(f"{label} {_fractions(shot, box)}\n" for label, box in shot.objects)
        if lines or way.sizes:
            put(f"{labels}/{shot.stem}.txt", way.text(lines))(root)
    if way.layout >= 2:
        put("classes.txt", way.text("".join(f"{name}\n" for name in data.names)))(root)
        return
    place = "list.txt" if way.shift % 2 else way.prefix + images
    names = "".join(f"  {number}: {json.dumps(name)}\n" for number, name in enumerate(data.names))
    put("data.yaml", way.text(f"train: {json.dumps(place)}\nnames:\n{names}"))(root)
    if way.shift % 2:
        put("list.txt", way.text("".join(f"{way.path(f'{images}/{shot.file}')}\n" for shot in data.shots)))(root)


def _fractions(shot: Shot, box: Box) -> str:
    x1, y1, x2, y2 = box
    values = (x1 + x2) / 2 / shot.width, (y1 + y2) / 2 / shot.height, (x2 - x1) / shot.width, (y2 - y1) / shot.height
    return " ".join(f"{value:.9f}" for value in values)


WRITERS = {"coco": write_coco, "voc": write_voc, "yolo": write_yolo}


def read(root: Path) -> dict[str, list[tuple[str, list[float]]]]:
    dataset = open_dataset(root)
    found = {}
    for number in range(len(dataset)):
        targets = dataset[number].targets
        names = [dataset.classes[label] for label in targets.labels.tolist()]
        boxes_ = [[round(value, 2) for value in box] for box in targets.boxes.tolist()]
        found[Path(dataset.path(number)).name] = list(zip(names, boxes_, strict=True))
    return found


@pytest.mark.parametrize("family", WRITERS)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(data=datasets(), way=ways)
def test_a_dataset_reads_back_equal_or_is_refused_by_name(family: str, data: Dataset, way: Way) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "set"
        WRITERS[family](root, data, way)
        expected = {
            shot.file: [(data.names[label], [round(value, 2) for value in box]) for label, box in shot.objects]
            for shot in data.shots
        }
        found = read_or_reason(root)
        if found == expected:
            return
        assert refusable(family, data, way), found
        assert str(root) in str(found)
        assert refused(root)


def read_or_reason(root: Path) -> dict[str, list[tuple[str, list[float]]]] | str:
    try:
        return read(root)
    except FpnError as error:
        return str(error)


def refusable(family: str, data: Dataset, way: Way) -> bool:
    """What cannot be read for a reason: without an object VOC names no class, and YOLO may have no label file."""
    if any(shot.objects for shot in data.shots):
        return False
    if family == "voc":
        return not way.shift % 2
    return family == "yolo" and (way.layout == 3 or (way.layout == 2 and not way.sizes))


def refused(root: Path) -> bool:
    try:
        return not check(root, workers=1).passed
    except FpnError:
        return True


def test_what_is_written_is_what_the_test_believes(tmp_path: Path) -> None:
    data = Dataset([Shot("a", ".jpg", 40, 20, 6, [(0, (1.0, 2.0, 11.0, 12.0))])], ["bolt"])
    for family, write in WRITERS.items():
        write(tmp_path / family, data, Way(0, "", False, False, True, 0))
        assert read(tmp_path / family) == {"a.jpg": [("bolt", [1.0, 2.0, 11.0, 12.0])]}
    save_json(tmp_path / "not.json", {})
    assert refused(tmp_path / "not.json")
