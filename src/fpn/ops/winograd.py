"""3x3 convolutions with a quarter of the multiplications (Winograd's F(4x4, 3x3)), as matrix products on a CPU.

An output tile of 4x4 needs a 6x6 patch of the input. Seen in another basis, patch and kernel are multiplied number by
number: 36 multiplications instead of 144. Over all input channels these are 36 matrix products, at which a CPU is
as fast as it gets. Basis points 0, +-1/sqrt(2), +-sqrt(2) and infinity keep the rounding error of float32 at that of
the plain sum (2e-6 of the largest value with 256 channels; the usual 0, +-1, +-2 make it four times as large).

Source: Lavin & Gray 2015, arXiv:1509.09308; on points: Barabasz et al. 2018, arXiv:1803.10986.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from fpn.ops.matrix_products import add_products, multiply, multiply_pairs, onednn_is_faster

TILE = 4
PATCH = TILE + 2
_POINTS = (0.0, math.sqrt(0.5), -math.sqrt(0.5), math.sqrt(2.0), -math.sqrt(2.0))
# So many maps of at most so many cells are convolved together, and fewer where they have few tiles.
MANY, SMALL = 16, 256
# Tiles a matrix product: more leave the cache (1088 took 1.6 times as long as 136), fewer leave the cores idle.
_TILES, _TILES_BY_ONEDNN = 192, 384
# Outputs whose kernels are moved into the other basis together.
_OUTPUTS = 32


def transform_weight(weight: Float[Tensor, "o c 3 3"], *, exact: bool = True) -> Float[Tensor, "36 c o"]:
    """A kernel in the other basis, float32; it takes four times its memory.

    Args:
        weight: the kernel.
        exact: by way of float64, for a kernel that stays; else in a fraction of the time, for one that changes.
    """
    kernel = _bases()[0]
    both = torch.kron(kernel, kernel)
    if exact:
        moved = weight.new_empty(PATCH**2, weight.shape[1], len(weight), dtype=torch.float32)
        # A few outputs at a time: all of 512 at once took 190 MB, which the C library then kept.
        for part, found in zip(torch.split(weight, _OUTPUTS), torch.split(moved, _OUTPUTS, dim=2), strict=True):
            found.copy_((both @ part.double().permute(2, 3, 1, 0).reshape(9, -1)).view(found.shape))
        return moved
    both = both.float()
    return multiply(both, weight.permute(2, 3, 1, 0).reshape(9, -1)).view(PATCH**2, weight.shape[1], -1)


def count_tiles(height: int, width: int) -> int:
    """Tiles that a map is cut into."""
    return -(-height // TILE) * -(-width // TILE)


def convolve(
    x: Float[Tensor, "b c h w"],
    weight: Float[Tensor, "36 c o"],
    bias: Float[Tensor, " o"] | None = None,
    *,
    relu: bool = False,
) -> Float[Tensor, "b o h w"]:
    """A 3x3 convolution of stride 1 and padding 1, without gradients.

    Args:
        x: float32 map; fastest in channels-last order.
        weight: of `transform_weight`.
        bias: added.
        relu: negative results become 0.

    Returns:
        The map, in channels-last order.
    """
    batch, _, height, width = x.shape
    layout = torch.channels_last
    result = torch.empty((batch, weight.shape[2], height, width), dtype=x.dtype, device=x.device, memory_format=layout)
    cells, found = x.permute(0, 2, 3, 1), result.permute(0, 2, 3, 1)
    if _together(x):
        tall = _stack(cells)
        whole = x.new_empty(*tall.shape[:2], weight.shape[2])
        _image(tall, whole, weight, bias, relu)
        found.copy_(whole.view(batch, -1, width, weight.shape[2])[:, :height])
        return result
    for source, target in zip(cells, found, strict=True):
        _image(source, target, weight, bias, relu)
    return result


def weight_gradient(
    maps: Sequence[Float[Tensor, "_ c _ _"]], grads: Sequence[Float[Tensor, "_ o _ _"]]
) -> Float[Tensor, "o c 3 3"]:
    """What the kernel of `convolve` gets back from what all its results get: the other basis saves as much here.

    Args:
        maps: what was convolved, float32, of any sizes.
        grads: gradients of what became of each.
    """
    total = maps[0].new_zeros(PATCH**2, maps[0].shape[1], grads[0].shape[1])
    for x, grad in zip(maps, grads, strict=True):
        cells, wanted = x.permute(0, 2, 3, 1), grad.permute(0, 2, 3, 1)
        pairs = [(_stack(cells), _stack(wanted))] if _together(x) else list(zip(cells, wanted, strict=True))
        for source, target in pairs:
            _add_image_gradient(total, source, target)
    kernel = _bases()[0].to(total)
    found = multiply(torch.kron(kernel, kernel).T.contiguous(), total.flatten(1))
    return found.view(3, 3, *total.shape[1:]).permute(3, 2, 0, 1)


def _together(x: Tensor) -> bool:
    """Whether the images of a batch go as one: those with so few tiles that their products would be small ones."""
    batch, _, height, width = x.shape
    if batch >= MANY and height * width <= SMALL:
        return True
    return batch > 1 and 2 * count_tiles(height + 1, width) <= _most_tiles()


def _image(source: Tensor, target: Tensor, weight: Tensor, bias: Tensor | None, relu: bool) -> None:
    """One image (H, W, C) -> (H, W, O), a few rows of tiles at a time."""
    rows = _rows(source.shape[1])
    for top in range(0, len(source), rows):
        _strip(source, target[top : top + rows], top, weight, bias, relu)


def _add_image_gradient(total: Tensor, source: Tensor, grad: Tensor) -> None:
    """Of one image (H, W, C) whose result got (H, W, O), into (36, C, O)."""
    _, into, back = (basis.to(total) for basis in _bases())
    rows = _rows(source.shape[1])
    for top in range(0, len(source), rows):
        own = grad[top : top + rows]
        patches, down, across = _patches(source, top, len(own))
        moved = multiply(into, patches.reshape(PATCH**2, -1)).view(PATCH**2, down * across, -1)
        whole = _framed(own, (0, down * TILE - len(own)), (0, across * TILE - own.shape[1]))
        tiles = whole.view(down, TILE, across, TILE, -1).permute(1, 3, 0, 2, 4)  # -> (4, 4, down, across, O)
        wanted = multiply(back.T, tiles.reshape(TILE**2, -1)).view(PATCH**2, down * across, -1)
        add_products(total, moved.transpose(1, 2), wanted)


def _most_tiles() -> int:
    return _TILES_BY_ONEDNN if onednn_is_faster() else _TILES


def _rows(width: int) -> int:
    """Rows of cells that are worked on together."""
    return max(1, round(_most_tiles() / -(-width // TILE))) * TILE


def _stack(cells: Tensor) -> Tensor:
    """Many small maps (R, H, W, C), such as RoIs, as one tall image (R * rows, W, C): a row of zeros between any two is
    what each of them is padded with, and 7 rows and one of zeros are two whole tiles."""
    batch, height, width, channels = cells.shape
    rows = -(-(height + 1) // TILE) * TILE
    tall = cells.new_zeros(batch, rows, width, channels)
    tall[:, :height] = cells
    return tall.flatten(0, 1)


def _strip(source: Tensor, target: Tensor, top: int, weight: Tensor, bias: Tensor | None, relu: bool) -> None:
    """Some rows of one image: (H, W, C) -> (rows, W, O), from row `top` on."""
    _, into, back = _bases()
    patches, down, across = _patches(source, top, len(target))
    moved = multiply(into.float(), patches.reshape(PATCH**2, -1))
    product = multiply_pairs(moved.view(PATCH**2, down * across, -1), weight)
    tiles = multiply(back.float(), product.flatten(1)).view(TILE, TILE, down, across, -1)
    if bias is not None:
        tiles += bias
    if relu:
        tiles.relu_()
    rows = tiles.permute(2, 0, 3, 1, 4)  # (4, 4, down, across, O) -> (down, 4, across, 4, O)
    if target.shape[:2] == (down * TILE, across * TILE):
        target.view(down, TILE, across, TILE, -1).copy_(rows)
    else:
        target.copy_(rows.reshape(down * TILE, across * TILE, -1)[: target.shape[0], : target.shape[1]])


def _patches(source: Tensor, top: int, rows: int) -> tuple[Tensor, int, int]:
    """(6, 6, down, across, C) view of overlapping patches, a rim of zeros around the image."""
    height, width, channels = source.shape
    down, across = -(-rows // TILE), -(-width // TILE)
    first, last = max(top - 1, 0), min(top + down * TILE + 1, height)
    above = first - (top - 1)
    below = down * TILE + 2 - above - (last - first)
    padded = _framed(source[first:last], (above, below), (1, across * TILE + 1 - width))
    row, column, channel = padded.stride()
    shape = (PATCH, PATCH, down, across, channels)
    return padded.as_strided(shape, (row, column, row * TILE, column * TILE, channel)), down, across


def _framed(cells: Tensor, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    """(H, W, C) with so many rows of zeros above and below, and columns left and right, which alone are cleared."""
    height, width, channels = cells.shape
    (above, below), (left, right) = rows, columns
    if not any((*rows, *columns)):
        return cells
    framed = cells.new_empty(above + height + below, left + width + right, channels)
    framed[:above].zero_()
    framed[above + height :].zero_()
    inner = framed[above : above + height]
    inner[:, :left].zero_()
    inner[:, left + width :].zero_()
    inner[:, left : left + width] = cells
    return framed


@lru_cache(maxsize=1)
def _bases() -> tuple[Tensor, Tensor, Tensor]:
    """(6, 3) for kernels; (36, 36) for flat patches; (16, 36) from flat products to flat tiles; float64."""
    with torch.inference_mode(False):
        kernel = _powers(3)
        patch = torch.linalg.inv(_powers(PATCH)).T.contiguous()
        tile = _powers(TILE).T.contiguous()
        return kernel, torch.kron(patch, patch), torch.kron(tile, tile)


def _powers(count: int) -> Tensor:
    """(6, count): each point's powers 0, 1, ...; of infinity only the highest one counts."""
    rows = [[point**power for power in range(count)] for point in _POINTS]
    return torch.tensor([*rows, [0.0] * (count - 1) + [1.0]], dtype=torch.float64)
