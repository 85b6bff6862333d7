"""How the inputs of the table are made: a sound dataset of two images, then what people and tools do to it."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

Step: TypeAlias = Callable[[Path], None]
Objects: TypeAlias = dict[str, list[tuple[str, tuple[float, float, float, float]]]]

# Both are 64 x 48; the fractions of a YOLO line are exact.
A, B = (8.0, 6.0, 40.0, 30.0), (16.0, 12.0, 48.0, 36.0)
BOTH: Objects = {"a": [("bolt", A)], "b": [("nut", B)]}
LINE_A, LINE_B = "0 0.375 0.375 0.5 0.5\n", "1 0.5 0.5 0.5 0.5\n"
OUTLINE_A = [8, 6, 40, 6, 40, 30, 8, 30]
YAML = "train: images/train\nnames: [bolt, nut]\n"


def photo(seed: int, width: int = 64, height: int = 48) -> Image.Image:
    """Cells of grey that no other seed has."""
    cells = np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)
    return Image.fromarray(cells).resize((width, height), Image.Resampling.BILINEAR).convert("RGB")


# --- datasets -----------------------------------------------------------------------------------------------------


def coco(root: Path) -> None:
    """annotations/instances.json and images/."""
    for number, name in enumerate("ab"):
        draw(f"images/{name}.png", number)(root)
    images = [{"id": k, "file_name": f"{name}.png", "width": 64, "height": 48} for k, name in ((5, "a"), (9, "b"))]
    notes = [
        {"id": 1, "image_id": 5, "category_id": 3, "bbox": [8, 6, 32, 24], "iscrowd": 0},
        {"id": 2, "image_id": 9, "category_id": 7, "bbox": [16, 12, 32, 24], "iscrowd": 0},
    ]
    categories = [{"id": 3, "name": "bolt"}, {"id": 7, "name": "nut"}]
    save_json(root / "annotations/instances.json", {"images": images, "annotations": notes, "categories": categories})


def voc(root: Path) -> None:
    """Annotations/*.xml and JPEGImages/."""
    for number, (name, label, box) in enumerate((("a", "bolt", A), ("b", "nut", B))):
        draw(f"JPEGImages/{name}.png", number)(root)
        put(f"Annotations/{name}.xml", xml(f"{name}.png", thing(label, box)))(root)


def yolo(root: Path) -> None:
    """data.yaml, images/train, labels/train."""
    put("data.yaml", YAML)(root)
    for number, (name, line) in enumerate((("a", LINE_A), ("b", LINE_B))):
        draw(f"images/train/{name}.png", number)(root)
        put(f"labels/train/{name}.txt", line)(root)


def thing(label: str, box: tuple[float, float, float, float] | None, more: str = "") -> str:
    corners = "".join(f"<{k}>{v:g}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box or (), strict=False))
    return f"<object><name>{label}</name>{more}{f'<bndbox>{corners}</bndbox>' if box else ''}</object>"


def xml(file_name: str, things: str, size: str = "<width>64</width><height>48</height>") -> str:
    return f"<annotation><filename>{file_name}</filename><size>{size}</size>{things}</annotation>"


# --- what is done to them -------------------------------------------------------------------------------------------


def put(path: str, content: str | bytes) -> Step:
    """A file with this content, in place of what was there."""

    def step(root: Path) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content if isinstance(content, bytes) else content.encode())

    return step


def move(old: str, new: str) -> Step:
    def step(root: Path) -> None:
        (root / new).parent.mkdir(parents=True, exist_ok=True)
        (root / old).rename(root / new)

    return step


def copy(old: str, new: str) -> Step:
    def step(root: Path) -> None:
        (root / new).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / old, root / new)

    return step


def drop(path: str) -> Step:
    return lambda root: shutil.rmtree(root / path) if (root / path).is_dir() else (root / path).unlink()


def rewrite(path: str, old: str, new: str) -> Step:
    """Another text in a file."""

    def step(root: Path) -> None:
        text = (root / path).read_text(encoding="utf-8")
        assert old in text, f"{path}: has no {old!r}"
        (root / path).write_text(text.replace(old, new), encoding="utf-8")

    return step


def edit(change: Callable[[dict[str, Any]], object], path: str = "annotations/instances.json") -> Step:
    """Something done to a json."""

    def step(root: Path) -> None:
        data = json.loads((root / path).read_text(encoding="utf-8"))
        change(data)
        save_json(root / path, data)

    return step


def image(number: int, **fields: Any) -> Step:
    """Fields of an entry of 'images'."""
    return edit(lambda data: data["images"][number].update(fields))


def note(number: int, **fields: Any) -> Step:
    """Fields of an entry of 'annotations'."""
    return edit(lambda data: data["annotations"][number].update(fields))


def draw(path: str, seed: int, *, width: int = 64, height: int = 48, turn: int = 0, **options: Any) -> Step:
    """An image, perhaps stored so that EXIF's number `turn` makes it upright again."""

    def step(root: Path) -> None:
        shown = photo(seed, width, height)
        stored = shown.transpose(_UNDO[turn]) if turn else shown
        if turn:
            exif = Image.Exif()
            exif[0x0112] = turn
            options["exif"] = exif
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        stored.save(root / path, **options)

    return step


# What is done to an upright image so that a viewer which obeys the number shows it upright.
_UNDO = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270, 3: Image.Transpose.ROTATE_180}


def cut(path: str, share: float) -> Step:
    """A file without its end: the copying was interrupted."""

    def step(root: Path) -> None:
        raw = (root / path).read_bytes()
        (root / path).write_bytes(raw[: int(len(raw) * share)])

    return step


def deep(path: str, seed: int, highest: int) -> Step:
    """A grey image of 16 bits whose values use only those up to `highest`."""
    grey = np.asarray(photo(seed).convert("L")).astype(np.uint16) * (highest // 256)
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "PNG")
    return put(path, buffer.getvalue())


def save_json(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data), encoding="utf-8")


def flat(root: Path) -> None:
    """YOLO's label files beside the images, and no yaml."""
    for name in "ab":
        move(f"images/train/{name}.png", f"{name}.png")(root)
        move(f"labels/train/{name}.txt", f"{name}.txt")(root)
    for path in ("images", "labels", "data.yaml"):
        drop(path)(root)
