"""Colours and textures of drawn scenes: backgrounds, fills, light, noise."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from fpn.data.synthetic.shapes import Patch, Pose

Random = np.random.Generator

# Squared distance of two RGB colours, weighted as the eye weighs the channels.
_EYE = np.array([0.30, 0.59, 0.11], dtype=np.float32)
# Below this weighted distance (0..255) an object would be a guess even for a person.
_MIN_CONTRAST = 45.0


def background(random: Random, height: int, width: int) -> np.ndarray:
    """A textured ground without objects: (height, width, 3) float32 in 0..255."""
    pattern = _PATTERNS[int(random.integers(len(_PATTERNS)))]
    values = pattern(random, height, width)
    # Texture of every scale lies on every pattern: nothing in a photo is flat.
    values = values + random.uniform(0.05, 0.25) * (_fractal(random, height, width, cells=12.0, octaves=2) - 0.5)
    painted = _ramp(values, _ground_colours(random))
    if random.random() < 0.5:
        _scratch(random, painted)
    return painted


def paint_object(random: Random, canvas: np.ndarray, pose: Pose, patch: Patch, *, shadow: bool) -> None:
    """Blend one object into the canvas, in place.

    Args:
        random: source of its colours and texture.
        canvas: (H, W, 3) float32 in 0..255.
        pose: how it stands.
        patch: its coverage, clipped to the canvas.
        shadow: whether it casts one to the lower right.
    """
    if shadow and pose.extent >= 16:
        _cast_shadow(canvas, pose)
    rows, columns = patch.window()
    below = canvas[rows, columns]
    cover = _share(patch)
    main = _contrasting(random, (below * cover).sum(axis=(0, 1)) / cover[..., 0].sum())
    fill = _fill(random, pose, patch, main)
    if random.random() < 0.4 and pose.extent >= 20:
        _line_rim(random, fill, pose, patch, main)
    below += cover * (fill - below)


def finish(random: Random, canvas: np.ndarray) -> Image.Image:
    """Light, lens and sensor: uneven brightness, sometimes blur, always some noise."""
    height, width = canvas.shape[:2]
    light = 1 + random.uniform(0.1, 0.5) * (_noise(random, height, width, cells=2.0) - 0.5)
    blur = random.uniform(0.3, 0.8) if random.random() < 0.3 else 0.0
    grain = _grain(random, height, width)
    bands = []
    # Band by band: numpy is several times faster on (H, W) than on (H, W, 3) with a factor a pixel.
    for band in range(3):
        values = canvas[:, :, band] * light
        values += grain[band]
        np.clip(values, 0, 255, out=values)
        bands.append(Image.fromarray(values.astype(np.uint8)))
    image = Image.merge("RGB", bands)
    return image.filter(ImageFilter.GaussianBlur(blur)) if blur else image


def _grain(random: Random, height: int, width: int) -> list[np.ndarray]:
    """Sensor noise of three bands, cut from one sheet: a third of the numbers, and the eye sees no difference."""
    shift = height // 3
    sheet = random.standard_normal((height + 2 * shift, width), dtype=np.float32)
    # Half a step more, because pixels are cut to whole numbers.
    sheet *= np.float32(random.uniform(1, 10))
    sheet += np.float32(0.5)
    return [sheet[band * shift : band * shift + height] for band in range(3)]


# --- colours ---


def _hsv(hue: float, saturation: float, value: float) -> np.ndarray:
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), dtype=np.float32) * 255


def _ground_colours(random: Random) -> list[np.ndarray]:
    """Three related, mostly muted colours."""
    hue, middle = random.random(), random.uniform(0.25, 0.8)
    spread = random.uniform(0.1, 0.3)
    return [
        _hsv(hue + random.normal(0, 0.08), random.uniform(0.05, 0.6), np.clip(middle + step * spread, 0.05, 0.98))
        for step in (-1, 0, 1)
    ]


def _contrasting(random: Random, ground: np.ndarray) -> np.ndarray:
    """A colour that stands out from the ground, by little or by much."""
    best, best_distance = np.zeros(3, dtype=np.float32), -1.0
    for _ in range(8):
        colour = _hsv(random.random(), random.uniform(0.2, 1.0), random.uniform(0.2, 1.0))
        distance = _distance(colour, ground)
        if distance >= _MIN_CONTRAST:
            return colour
        if distance > best_distance:
            best, best_distance = colour, distance
    return best


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    return math.sqrt(float((_EYE * (one - other) ** 2).sum()))


def _shade(colour: np.ndarray, factor: float) -> np.ndarray:
    return np.clip(colour * factor, 0, 255)


def _ramp(values: np.ndarray, colours: Sequence[np.ndarray]) -> np.ndarray:
    """Values (h, w) in about 0..1 -> colours (h, w, 3), blended between equally spaced stops."""
    stops = np.linspace(0, 255, len(colours))
    steps = np.arange(256)
    table = np.stack([np.interp(steps, stops, [c[k] for c in colours]) for k in range(3)], axis=1)
    level = np.clip(values * 255, 0, 255).astype(np.uint8)
    blended: np.ndarray = table.astype(np.float32).take(level, axis=0)
    return blended


# --- patterns: (random, height, width) -> (height, width) float32, about 0..1 ---


def _noise(random: Random, height: int, width: int, *, cells: float) -> np.ndarray:
    """Smooth noise with about `cells` bumps along the shorter side."""
    cell = min(height, width) / cells
    grid = random.random((math.ceil(height / cell) + 1, math.ceil(width / cell) + 1), dtype=np.float32)
    return np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))


def _fractal(random: Random, height: int, width: int, *, cells: float, octaves: int = 4) -> np.ndarray:
    total = np.zeros((height, width), dtype=np.float32)
    weight = 0.0
    for octave in range(octaves):
        total += 0.55**octave * _noise(random, height, width, cells=cells * 2**octave)
        weight += 0.55**octave
    # Averages of noise crowd around 0.5; spread them over 0..1.
    return 0.5 + 1.8 * (total / weight - 0.5)


def _slope(random: Random, height: int, width: int) -> np.ndarray:
    """A ramp in a random direction, in units of the shorter side."""
    angle = random.uniform(0, 2 * math.pi)
    y = np.arange(height, dtype=np.float32)[:, None] * np.float32(math.sin(angle) / min(height, width))
    x = np.arange(width, dtype=np.float32)[None] * np.float32(math.cos(angle) / min(height, width))
    return y + x


def _clouds(random: Random, height: int, width: int) -> np.ndarray:
    return _fractal(random, height, width, cells=random.uniform(2, 5))


def _gradient(random: Random, height: int, width: int) -> np.ndarray:
    slope = _slope(random, height, width)
    unit: np.ndarray = (slope - slope.min()) / np.ptp(slope)
    return unit


def _stripes(random: Random, height: int, width: int) -> np.ndarray:
    bend = random.uniform(0, 0.25) * _noise(random, height, width, cells=3.0)
    wave = np.sin((_slope(random, height, width) + bend) * (2 * math.pi * random.uniform(4, 20)))
    # From soft waves to hard bands.
    return 0.5 + 0.5 * np.clip(wave * random.uniform(0.6, 4), -1, 1)


def _weave(random: Random, height: int, width: int) -> np.ndarray:
    woven: np.ndarray = 0.5 + (_stripes(random, height, width) - 0.5) * (2 * _stripes(random, height, width) - 1)
    return woven


def _camouflage(random: Random, height: int, width: int) -> np.ndarray:
    levels = int(random.integers(3, 6))
    field = _fractal(random, height, width, cells=random.uniform(3, 7), octaves=2)
    steps: np.ndarray = np.clip(np.floor(field * levels), 0, levels - 1) / (levels - 1)
    return steps


def _sand(random: Random, height: int, width: int) -> np.ndarray:
    coarse = _noise(random, height, width, cells=3.0)
    fine = _noise(random, height, width, cells=min(height, width) / random.uniform(2, 5))
    return 0.5 * coarse + 0.5 * fine


_PATTERNS: tuple[Callable[[Random, int, int], np.ndarray], ...] = (
    _clouds,
    _gradient,
    _stripes,
    _weave,
    _camouflage,
    _sand,
)


def _scratch(random: Random, canvas: np.ndarray) -> None:
    """Thin strokes that are no objects, in place."""
    height, width = canvas.shape[:2]
    fine = Image.new("L", (width * 2, height * 2), 0)
    draw = ImageDraw.Draw(fine)
    for _ in range(int(random.integers(1, 7))):
        ends = random.uniform(-0.1, 1.1, size=(3, 2)) * (width * 2, height * 2)
        at = np.linspace(0, 1, 24)[:, None]
        curve = (1 - at) ** 2 * ends[0] + 2 * at * (1 - at) * ends[1] + at**2 * ends[2]
        draw.line(curve.ravel().tolist(), fill=int(random.integers(60, 200)), width=int(random.integers(2, 8)))
    cover = np.asarray(fine.reduce(2))
    # The strokes touch few pixels: leave the others alone.
    touched = cover > 0
    share = cover[touched].astype(np.float32)[:, None] / 255
    colour = _hsv(random.random(), random.uniform(0, 0.7), random.random())
    canvas[touched] += share * (colour - canvas[touched])


# --- objects ---


def _fill(random: Random, pose: Pose, patch: Patch, main: np.ndarray) -> np.ndarray:
    """The object's surface (h, w, 3): plain, shaded, striped or mottled around the main colour."""
    height, width = patch.coverage.shape
    kind = random.random()
    if kind < 0.25 or pose.extent < 12 or min(height, width) < 4:
        return np.broadcast_to(main, (height, width, 3)).copy()
    dark, light = _shade(main, random.uniform(0.6, 0.85)), _shade(main, random.uniform(1.1, 1.4))
    if kind < 0.6:
        return _ramp(_gradient(random, height, width), [dark, light])
    if kind < 0.8:
        return _ramp(_stripes(random, height, width), [dark, main])
    return _ramp(_fractal(random, height, width, cells=4.0, octaves=2), [dark, light])


def _line_rim(random: Random, fill: np.ndarray, pose: Pose, patch: Patch, main: np.ndarray) -> None:
    """Give the surface a rim of another brightness, in place."""
    inner = pose.patch(inset=random.uniform(0.08, 0.18))
    rim = np.ones((*patch.coverage.shape, 3), dtype=np.float32)
    top, left = inner.top - patch.top, inner.left - patch.left
    local = Patch(top, left, inner.coverage).clipped(*patch.coverage.shape)
    rows, columns = local.window()
    rim[rows, columns] -= _share(local)
    colour = _shade(main, random.uniform(0.3, 0.6) if random.random() < 0.5 else random.uniform(1.5, 2.2))
    fill += rim * (colour - fill)


def _cast_shadow(canvas: np.ndarray, pose: Pose) -> None:
    height, width = canvas.shape[:2]
    distance = 0.04 * pose.extent + 1
    moved = Pose(pose.shape, pose.x + distance, pose.y + distance, pose.extent, pose.angle, pose.stretch)
    margin = int(distance) + 2
    solid = moved.patch()
    padded = Image.fromarray(np.pad(solid.coverage, margin)).filter(ImageFilter.BoxBlur(distance))
    soft = Patch(solid.top - margin, solid.left - margin, np.asarray(padded)).clipped(height, width)
    if soft.coverage.size:
        rows, columns = soft.window()
        canvas[rows, columns] *= 1 - 0.45 * _share(soft)


def _share(patch: Patch) -> np.ndarray:
    """Coverage as (h, w, 3) float32 in 0..1. Repeated, because numpy is six times slower on a last axis of one."""
    return np.repeat(patch.coverage.astype(np.float32)[..., None] / 255, 3, axis=2)
