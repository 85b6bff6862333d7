"""RoI pooling over four levels, side by side with torchvision.ops.roi_align.

Both sides get the same values and the same contiguous gradient of the result; torchvision gets the maps in its own
order (B, C, H, W), ours channels-last too, in which our pyramid works. torchvision's kernel has no bfloat16 on a CPU:
there it converts the maps to float32 and the result back, as it does under autocast.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torchvision.ops import roi_align

from fpn.errors import FpnError
from fpn.ops.roi_align.levels import choose_levels
from fpn.ops.roi_align.pool import bag_rois, pool_rois
from fpn.studies.benchmark.agreement import largest_difference
from fpn.studies.benchmark.turns import Side, in_turns

STRIDES = (4, 8, 16, 32)
HEIGHT, WIDTH = 800, 1088
SIZE = 7
TOLERANCE = {torch.float32: 4e-5, torch.bfloat16: 6e-2}
# A GPU multiplies and adds in one rounding, so that a place differs in its last digits from the bag's: 8.8e-5 was seen.
_ON_GPU = 10

Outcome = tuple[Tensor, list[Tensor]]


@dataclass(frozen=True)
class Rois:
    """Boxes (R, 4) and for each its level, 0 for the finest."""

    boxes: Tensor
    levels: Tensor
    images: Tensor = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "images", torch.zeros_like(self.levels))


@dataclass(frozen=True)
class Pooling:
    """One comparison.

    Attributes:
        work: "forward" or "forward + backward".
        dtype: "float32" or "bfloat16".
        maps: how ours lay in memory.
        ours, theirs: their times.
        difference: the largest one of results and gradients, relative to 1 + the value.
    """

    work: str
    dtype: str
    maps: str
    ours: Side
    theirs: Side
    difference: float


def draw_rois(count: int, device: torch.device | None = None) -> Rois:
    """RoIs of log-uniform size, 16 to 512 pixels, on the levels that equation 1 gives them."""
    random = torch.Generator().manual_seed(0)
    low, high = math.log(16), math.log(512)
    side = (torch.rand(count, generator=random) * (high - low) + low).exp()
    stretch = ((torch.rand(count, generator=random) - 0.5) * 1.4).exp()
    sides = torch.stack([(side * stretch).clamp(max=WIDTH - 1), (side / stretch).clamp(max=HEIGHT - 1)], dim=1)
    corner = torch.rand(count, 2, generator=random) * (torch.tensor([WIDTH, HEIGHT]) - sides)
    boxes = torch.cat([corner, corner + sides], dim=1).to(device)
    return Rois(boxes, choose_levels(boxes, finest=2, coarsest=5) - 2)


def draw_maps(channels: int, dtype: torch.dtype, device: torch.device | None = None) -> list[Tensor]:
    """Four levels of one image."""
    random = torch.Generator().manual_seed(1)
    shapes = [(1, channels, HEIGHT // s, WIDTH // s) for s in STRIDES]
    return [torch.randn(*shape, generator=random).to(device, dtype) for shape in shapes]


def ours(maps: list[Tensor], rois: Rois) -> Tensor:
    """All levels in one call."""
    scales = [(1 / stride, 1 / stride) for stride in STRIDES]
    return pool_rois(maps, scales, rois.boxes, rois.images, rois.levels, output_size=SIZE, sampling_ratio=2)


def bags(maps: list[Tensor], rois: Rois) -> Tensor:
    """All levels in one call by the embedding bag, which `ours` is on a CPU alone."""
    edges = rois.boxes / rois.boxes.new_tensor(STRIDES)[rois.levels][:, None]
    return bag_rois(maps, edges, rois.images, rois.levels, output_size=SIZE, sampling_ratio=2)


def torchvisions(maps: list[Tensor], rois: Rois) -> Tensor:
    """As torchvision's MultiScaleRoIAlign does: level by level, into the order of the RoIs."""
    pooled = maps[0].new_zeros(len(rois.boxes), maps[0].shape[1], SIZE, SIZE)
    for level, (feature, stride) in enumerate(zip(maps, STRIDES, strict=True)):
        here = torch.where(rois.levels == level)[0]
        listed = torch.cat([rois.boxes.new_zeros(len(here), 1), rois.boxes[here]], dim=1)
        part = roi_align(feature.float(), listed, SIZE, 1 / stride, 2, True)
        pooled[here] = part.to(feature.dtype)
    return pooled


def forward(pool: Callable[[list[Tensor], Rois], Tensor], maps: list[Tensor], rois: Rois, _: Tensor) -> Outcome:
    """Without gradients."""
    with torch.no_grad():
        return pool(maps, rois), []


def forward_backward(
    pool: Callable[[list[Tensor], Rois], Tensor], maps: list[Tensor], rois: Rois, slope: Tensor
) -> Outcome:
    """With those of all maps."""
    leaves = [m.detach().requires_grad_() for m in maps]
    pooled = pool(leaves, rois)
    return pooled.detach(), list(torch.autograd.grad(pooled, leaves, slope))


WORKS = {"forward": forward, "forward + backward": forward_backward}


def compare(
    name: str,
    dtype: torch.dtype,
    rois: Rois,
    *,
    channels: int,
    repeats: int,
    channels_last: bool = True,
    pool: Callable[[list[Tensor], Rois], Tensor] | None = None,
) -> Pooling:
    """Time one of `WORKS` on both sides; `pool` is our side, such as `bags`. None: `ours`.

    Raises:
        FpnError: the results differ.
    """
    device = rois.boxes.device
    maps = draw_maps(channels, dtype, device)
    form = torch.channels_last if channels_last else torch.contiguous_format
    laid = [m.contiguous(memory_format=form) for m in maps]
    shape = (len(rois.boxes), channels, SIZE, SIZE)
    slope = torch.randn(shape, generator=torch.Generator().manual_seed(2)).to(device, dtype)
    work = WORKS[name]
    sides = in_turns(
        {
            "ours": lambda: work(pool or ours, laid, rois, slope),
            "theirs": lambda: work(torchvisions, maps, rois, slope),
        },
        repeats=repeats,
        device=device,
    )
    mine, other = (sides[side].outcome for side in ("ours", "theirs"))
    difference = largest_difference([mine[0], *mine[1]], [other[0], *other[1]])
    if not difference <= TOLERANCE[dtype] * (1 if device.type == "cpu" else _ON_GPU):
        raise FpnError(f"pooling, {name}, {dtype}: results differ by {difference}; a fast wrong answer is no answer")
    layout = "channels-last" if channels_last else "contiguous"
    return Pooling(name, str(dtype).removeprefix("torch."), layout, sides["ours"], sides["theirs"], difference)
