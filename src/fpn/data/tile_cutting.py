"""A dataset of large images as one of their tiles, with the objects that each tile shows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from fpn.data.formats.writer import Annotation, ImageRecord, Part
from fpn.errors import ConfigError, DataError, FpnError
from fpn.image_io import has_wide_values
from fpn.image_windows import ImageWindows, open_windows
from fpn.ops.tiles import Tile, tile_places
from fpn.shapes import Size
from fpn.structures import Masks

# A piece that shows less of its object is marked: neither object nor background.
LEAST_SEEN = 0.3
_JPEG = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"})
_QUALITY = 95
# Rounding does not make a piece of a whole object.
_WHOLE = 0.999


@dataclass(frozen=True)
class TileSettings:
    """How images are cut.

    Attributes:
        side: of a tile, pixels.
        overlap: part of its side that a tile shares with the next one at least.
    """

    side: int
    overlap: float = 0.2

    def __post_init__(self) -> None:
        if not 32 <= self.side <= 16384 or not 0 <= self.overlap <= 0.75:
            raise ConfigError(
                f"tiles of {self.side} pixels with an overlap of {self.overlap:g}: expected 32 to 16384, and 0 to 0.75"
            )


@dataclass
class TileCutter:
    """Makes splits of tiles from splits of images, and cuts the tiles. As a context it closes what it has open.

    Attributes:
        settings: how images are cut.
        max_pixels, max_bytes: see `open_windows`.
        tiles: where each tile lies in its image, by its new name.
    """

    settings: TileSettings
    max_pixels: int
    max_bytes: int
    tiles: dict[str, Tile] = field(default_factory=dict)
    _pieces: dict[str, Counter[str]] = field(default_factory=dict)
    _seen: dict[tuple[str, int], float] = field(default_factory=dict)
    _open: ExitStack = field(default_factory=ExitStack)
    _source: Path | None = None
    _windows: ImageWindows | None = None
    _wide: set[Path] = field(default_factory=set)

    def __enter__(self) -> TileCutter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def split(self, part: Part, sizes: Sequence[Size], names: Mapping[str, str]) -> Part:
        """A split's tiles as a split.

        Args:
            part: the split.
            sizes: of its images.
            names: old path -> new name, of its images.
        """
        sources = []
        for source, size in zip(part.sources, sizes, strict=True):
            for tile in tile_places(size, self.settings.side, self.settings.overlap):
                name = _name(names[source], tile)
                self.tiles.setdefault(name, tile)
                sources.append(name)

        def images() -> Iterator[ImageRecord]:
            return (piece for image in part.images() for piece in self._cut(image))

        return replace(part, sources=sources, images=images, place=self._place)

    def losses(self) -> list[str]:
        """What tiles can't hold of the images, counted."""
        total: Counter[str] = sum(self._pieces.values(), Counter())
        lines = [f"{what}: {count}" for what, count in total.items()]
        split = sum(share < _WHOLE for share in self._seen.values())
        if split:
            lines.append(f"objects that no tile shows whole (a larger overlap shows more of them so): {split}")
        if self._wide:
            lines.append(f"values of more than 8 bits, of images: {len(self._wide)}")
        return lines

    def _cut(self, image: ImageRecord) -> Iterator[ImageRecord]:
        numbers = {name: number for number, name in enumerate(self.tiles, start=1)}
        for tile in tile_places(image.size, self.settings.side, self.settings.overlap):
            name, lost = _name(image.target, tile), Counter[str]()
            pieces = [
                piece
                for number, each in enumerate(image.annotations)
                if (piece := self._piece(image, number, each, tile, lost)) is not None
            ]
            self._pieces[name] = lost
            yield ImageRecord(image.source, name, numbers[name], Size(tile.height, tile.width), image.extra, pieces)

    def _piece(
        self, image: ImageRecord, number: int, whole: Annotation, tile: Tile, lost: Counter[str]
    ) -> Annotation | None:
        """What a tile shows of an object, if anything."""
        box = _inside(whole.box, tile)
        seen = _area(box) / max(_area(whole.box), 1e-9)
        if seen <= 0:
            return None
        outline, area, placed = None, math.nan, box - _corner(tile)
        if whole.outline is not None:
            mask = _outline_in(image, whole, tile)
            area = float(mask.areas()[0])
            if area == 0:
                return None
            (outline,) = mask.to_coco()
            placed = placed if seen >= _WHOLE else mask.boxes()[0].numpy()
        key = (image.source, number)
        self._seen[key] = max(self._seen.get(key, 0.0), seen)
        hidden = seen < LEAST_SEEN and not whole.ignore
        if hidden:
            lost[f"objects of which a tile shows less than {LEAST_SEEN:.0%} (marked there as crowds or difficult)"] += 1
        extra = {key: value for key, value in whole.extra.items() if key != "id"}
        if hidden and "ignore" in extra:
            extra["iscrowd"] = 1
        ignore, keypoints = whole.ignore or hidden, _keypoints_in(whole.keypoints, tile)
        return Annotation(placed, whole.label, ignore, area, outline, extra, keypoints)

    def _place(self, source: Path, target: Path) -> None:
        """Cut and write a tile."""
        if target.exists():
            return  # an image of two splits
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            tile = self._opened(source).read(self.tiles[target.name].box)
        except FpnError as error:
            raise DataError(f"{error} Run: fpn check") from error
        settings: dict[str, Any] = {"quality": _QUALITY, "subsampling": 0} if target.suffix == ".jpg" else {}
        tile.save(target, **settings)

    def _opened(self, source: Path) -> ImageWindows:
        """The image, which stays open until another one is asked for: its tiles come one after the other."""
        if self._windows is None or self._source != source:
            self._open.close()
            opening = open_windows(source, max_pixels=self.max_pixels, max_bytes=self.max_bytes)
            self._windows = self._open.enter_context(opening)
            self._source = source
            if has_wide_values(source):
                self._wide.add(source)
        return self._windows


def _name(image: str, tile: Tile) -> str:
    """A tile's file: JPEG where its image was, else PNG, which loses nothing."""
    suffix = ".jpg" if Path(image).suffix.lower() in _JPEG else ".png"
    return f"{Path(image).stem}_x{tile.left}_y{tile.top}{suffix}"


def _corner(tile: Tile) -> np.ndarray:
    return np.array([tile.left, tile.top] * 2, dtype=np.float32)


def _inside(box: np.ndarray, tile: Tile) -> np.ndarray:
    low, high = np.array([*tile.box[:2]] * 2, np.float32), np.array([*tile.box[2:]] * 2, np.float32)
    return np.asarray(np.minimum(np.maximum(box, low), high))


def _area(box: np.ndarray) -> float:
    return float(np.prod(np.maximum(box[2:] - box[:2], 0)))


def _outline_in(image: ImageRecord, whole: Annotation, tile: Tile) -> Masks:
    assert whole.outline is not None, "only what has one is asked"
    try:
        mask = Masks.from_coco([whole.outline], image.size)
    except DataError as error:
        raise DataError(f"{image.source}: {error}. Run: fpn check") from error
    return mask.shifted(top=-tile.top, left=-tile.left, size=Size(tile.height, tile.width)).clipped()


def _keypoints_in(keypoints: np.ndarray | None, tile: Tile) -> np.ndarray | None:
    """In the tile's pixels; those outside of it are not labelled."""
    if keypoints is None:
        return None
    moved = keypoints - np.array([tile.left, tile.top, 0], dtype=np.float32)
    outside = (moved[:, :2] < 0).any(axis=1) | (moved[:, 0] >= tile.width) | (moved[:, 1] >= tile.height)
    return np.where(outside[:, None], np.float32(0), moved)
