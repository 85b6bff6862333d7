"""Convolutions with a quarter to an eighth of the multiplications (Winograd's F(4x4, 3x3)), by products on a CPU.

An output tile of 4x4 needs a 6x6 patch of the input. Seen in another basis, patch and kernel are multiplied number by
number: 36 multiplications instead of 144. Over all input channels these are 36 matrix products, at which a CPU is
as fast as it gets. Basis points 0, +-1/sqrt(2), +-sqrt(2) and infinity keep the rounding error of float32 at that of
the plain sum (2e-6 of the largest value with 256 channels; the usual 0, +-1, +-2 make it four times as large).

Of a 5x5 kernel such a tile takes 64 multiplications instead of 400 (error 7e-6 with 128 channels), of a 7x7 kernel 100
instead of 784 (4e-5; one of 3x3 would take half as many again for half the error).

Source: Lavin & Gray 2015, arXiv:1509.09308; on points: Barabasz et al. 2018, arXiv:1803.10986.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from fpn.ops.matrix_products import add_products, multiply, multiply_pairs, onednn_is_faster


class WinogradForm(NamedTuple):
    """How kernels of one side are computed.

    Attributes:
        kernel: its side.
        tile: side of the outputs that are made together.
        points: of the basis, beside infinity.
    """

    kernel: int
    tile: int
    points: tuple[float, ...]

    @property
    def patch(self) -> int:
        """Side of what a tile sees."""
        return self.tile + self.kernel - 1

    @property
    def rim(self) -> int:
        """Cells that an output sees on each side of its own."""
        return self.kernel // 2


def _both_signs(*points: float) -> tuple[float, ...]:
    return tuple(signed for point in points for signed in (point, -point))


# By the kernel's side. Points are those of least error among combinations of some sixteen.
FORMS = {
    form.kernel: form
    for form in (
        WinogradForm(3, 4, (0.0, *_both_signs(math.sqrt(0.5), math.sqrt(2.0)))),
        WinogradForm(5, 4, (0.0, *_both_signs(0.5, 1.0, 2.0))),
        WinogradForm(7, 4, (0.0, *_both_signs(0.5, 0.8, 1.2, 2.5))),
    )
}
_BY_PRODUCTS = {form.patch**2: form for form in FORMS.values()}
_THREE = FORMS[3]
# So many maps of at most so many cells are convolved together, and fewer where they have few tiles.
MANY, SMALL = 16, 256
# Tiles a matrix product: more leave the cache (1088 took 1.6 times as long as 136), fewer leave the cores idle.
_TILES, _TILES_BY_ONEDNN = 192, 384
# And bytes of its results: what is larger than 32 MiB the C library gives back each time, and fetching it anew takes
# longer than the products (of 5x5 with 512 outputs 59 us a tile instead of 4).
_BYTES = 24 << 20
# Outputs whose kernels are moved into the other basis together.
_OUTPUTS = 32


def transform_weight(weight: Float[Tensor, "o c k k"], *, exact: bool = True) -> Float[Tensor, "p c o"]:
    """A kernel in the other basis, float32; it takes two to four times its memory.

    Args:
        weight: the kernel, of one of the sides in `FORMS`.
        exact: by way of float64, for a kernel that stays; else in a fraction of the time, for one that changes.
    """
    form = FORMS[weight.shape[2]]
    kernel = _bases(form)[0]
    both, cells = torch.kron(kernel, kernel), form.kernel**2
    if exact:
        moved = weight.new_empty(form.patch**2, weight.shape[1], len(weight), dtype=torch.float32)
        # A few outputs at a time: all of 512 at once took 190 MB, which the C library then kept.
        for part, found in zip(torch.split(weight, _OUTPUTS), torch.split(moved, _OUTPUTS, dim=2), strict=True):
            found.copy_((both @ part.double().permute(2, 3, 1, 0).reshape(cells, -1)).view(found.shape))
        return moved
    both = both.float()
    return multiply(both, weight.permute(2, 3, 1, 0).reshape(cells, -1)).view(form.patch**2, weight.shape[1], -1)


def count_tiles(height: int, width: int, *, kernel: int = 3) -> int:
    """Tiles that a map is cut into for a kernel of that side."""
    tile = FORMS[kernel].tile
    return -(-height // tile) * -(-width // tile)


def convolve(
    x: Float[Tensor, "b c h w"],
    weight: Float[Tensor, "p c o"],
    bias: Float[Tensor, " o"] | None = None,
    *,
    relu: bool = False,
    tiles: int | None = None,
) -> Float[Tensor, "b o h w"]:
    """A convolution of stride 1, padded so that the map stays as large as it is, without gradients.

    Args:
        x: float32 map; fastest in channels-last order.
        weight: of `transform_weight`.
        bias: added.
        relu: negative results become 0.
        tiles: the most that are worked on together; None: as many as are fastest, which take the most memory.

    Returns:
        The map, in channels-last order.
    """
    form, (batch, _, height, width) = _BY_PRODUCTS[len(weight)], x.shape
    layout = torch.channels_last
    result = torch.empty((batch, weight.shape[2], height, width), dtype=x.dtype, device=x.device, memory_format=layout)
    cells, found = x.permute(0, 2, 3, 1), result.permute(0, 2, 3, 1)
    if _together(x, form):
        tall = _stack(cells, form)
        whole = x.new_empty(*tall.shape[:2], weight.shape[2])
        _image(tall, whole, weight, bias, relu, tiles)
        found.copy_(whole.view(batch, -1, width, weight.shape[2])[:, :height])
        return result
    for source, target in zip(cells, found, strict=True):
        _image(source, target, weight, bias, relu, tiles)
    return result


def weight_gradient(
    maps: Sequence[Float[Tensor, "_ c _ _"]], grads: Sequence[Float[Tensor, "_ o _ _"]]
) -> Float[Tensor, "o c 3 3"]:
    """What a 3x3 kernel of `convolve` gets back from what all its results get: the other basis saves as much here.

    Args:
        maps: what was convolved, float32, of any sizes.
        grads: gradients of what became of each.
    """
    total = maps[0].new_zeros(_THREE.patch**2, maps[0].shape[1], grads[0].shape[1])
    for x, grad in zip(maps, grads, strict=True):
        cells, wanted = x.permute(0, 2, 3, 1), grad.permute(0, 2, 3, 1)
        together = _together(x, _THREE)
        pairs = [(_stack(cells, _THREE), _stack(wanted, _THREE))] if together else zip(cells, wanted, strict=True)
        for source, target in pairs:
            _add_image_gradient(total, source, target)
    kernel = _bases(_THREE)[0].to(total)
    found = multiply(torch.kron(kernel, kernel).T.contiguous(), total.flatten(1))
    return found.view(3, 3, *total.shape[1:]).permute(3, 2, 0, 1)


def _together(x: Tensor, form: WinogradForm) -> bool:
    """Whether the images of a batch go as one: those with so few tiles that their products would be small ones."""
    batch, _, height, width = x.shape
    if batch >= MANY and height * width <= SMALL:
        return True
    return batch > 1 and 2 * count_tiles(height + form.rim, width, kernel=form.kernel) <= _most_tiles()


def _image(source: Tensor, target: Tensor, weight: Tensor, bias: Tensor | None, relu: bool, tiles: int | None) -> None:
    """One image (H, W, C) -> (H, W, O), a few rows of tiles at a time."""
    form = _BY_PRODUCTS[len(weight)]
    rows = _rows(source.shape[1], form, weight.shape[2], tiles)
    for top in range(0, len(source), rows):
        _strip(source, target[top : top + rows], top, weight, bias, relu)


def _add_image_gradient(total: Tensor, source: Tensor, grad: Tensor) -> None:
    """Of one image (H, W, C) whose result got (H, W, O), into (36, C, O)."""
    _, into, back = (basis.to(total) for basis in _bases(_THREE))
    tile, rows = _THREE.tile, _rows(source.shape[1], _THREE, grad.shape[2], None)
    for top in range(0, len(source), rows):
        own = grad[top : top + rows]
        patches, down, across = _patches(source, top, len(own), _THREE)
        moved = multiply(into, patches.reshape(len(into), -1)).view(len(into), down * across, -1)
        whole = _framed(own, (0, down * tile - len(own)), (0, across * tile - own.shape[1]))
        tiles = whole.view(down, tile, across, tile, -1).permute(1, 3, 0, 2, 4)  # -> (4, 4, down, across, O)
        wanted = multiply(back.T, tiles.reshape(tile**2, -1)).view(len(into), down * across, -1)
        add_products(total, moved.transpose(1, 2), wanted)


def _most_tiles() -> int:
    return _TILES_BY_ONEDNN if onednn_is_faster() else _TILES


def _rows(width: int, form: WinogradForm, outputs: int, tiles: int | None) -> int:
    """Rows of cells that are worked on together."""
    together = min(_most_tiles(), tiles or _most_tiles(), _BYTES // (4 * outputs * form.patch**2))
    return max(1, round(together / -(-width // form.tile))) * form.tile


def _stack(cells: Tensor, form: WinogradForm) -> Tensor:
    """Many small maps (R, H, W, C), such as RoIs, as one tall image (R * rows, W, C): rows of zeros between any two are
    what each of them is padded with, and 7 rows and one of zeros are two whole tiles."""
    batch, height, width, channels = cells.shape
    rows = -(-(height + form.rim) // form.tile) * form.tile
    tall = cells.new_zeros(batch, rows, width, channels)
    tall[:, :height] = cells
    return tall.flatten(0, 1)


def _strip(source: Tensor, target: Tensor, top: int, weight: Tensor, bias: Tensor | None, relu: bool) -> None:
    """Some rows of one image: (H, W, C) -> (rows, W, O), from row `top` on."""
    form = _BY_PRODUCTS[len(weight)]
    _, into, back = _bases(form)
    patches, down, across = _patches(source, top, len(target), form)
    moved = multiply(into.float(), patches.reshape(len(into), -1)).view(len(into), down * across, -1)
    product, tile = multiply_pairs(moved, weight), form.tile
    tiles = multiply(back.float(), product.flatten(1)).view(tile, tile, down, across, -1)
    if bias is not None:
        tiles += bias
    if relu:
        tiles.relu_()
    rows = tiles.permute(2, 0, 3, 1, 4)  # (t, t, down, across, O) -> (down, t, across, t, O)
    if target.shape[:2] == (down * tile, across * tile):
        target.view(down, tile, across, tile, -1).copy_(rows)
    else:
        target.copy_(rows.reshape(down * tile, across * tile, -1)[: target.shape[0], : target.shape[1]])


def _patches(source: Tensor, top: int, rows: int, form: WinogradForm) -> tuple[Tensor, int, int]:
    """(p, p, down, across, C) view of overlapping patches, a rim of zeros around the image."""
    height, width, channels = source.shape
    tile, rim = form.tile, form.rim
    down, across = -(-rows // tile), -(-width // tile)
    first, last = max(top - rim, 0), min(top + down * tile + rim, height)
    above = first - (top - rim)
    below = down * tile + 2 * rim - above - (last - first)
    padded = _framed(source[first:last], (above, below), (rim, across * tile + rim - width))
    row, column, channel = padded.stride()
    shape = (form.patch, form.patch, down, across, channels)
    return padded.as_strided(shape, (row, column, row * tile, column * tile, channel)), down, across


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


@lru_cache(maxsize=len(FORMS))
def _bases(form: WinogradForm) -> tuple[Tensor, Tensor, Tensor]:
    """(p, k) for kernels; (p*p, p*p) for flat patches; (t*t, p*p) from flat products to flat tiles; float64."""
    with torch.inference_mode(False):
        kernel = _powers(form, form.kernel)
        patch = torch.linalg.inv(_powers(form, form.patch)).T.contiguous()
        tile = _powers(form, form.tile).T.contiguous()
        return kernel, torch.kron(patch, patch), torch.kron(tile, tile)


def _powers(form: WinogradForm, count: int) -> Tensor:
    """(p, count): each point's powers 0, 1, ...; of infinity only the highest one counts."""
    rows = [[point**power for power in range(count)] for point in form.points]
    return torch.tensor([*rows, [0.0] * (count - 1) + [1.0]], dtype=torch.float64)
