"""ViTDet's plain vision transformer: most blocks look at windows, a few at the whole image.

Weights of Detectron2's `ViT` compute the same here. timm's `samvit_*` have nearly its blocks, but resample the table of
positions with antialiasing (another cubic kernel) and drop a block's windows one by one, not whole images.

Source: Li et al. 2022, arXiv:2203.16527, section 3; facebookresearch/detectron2, modeling/backbone/{vit,utils}.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn import functional

from fpn.errors import ConfigError
from fpn.features.backbones.plain_transformers import PATCH_PIXELS
from fpn.features.blocks import Linear
from fpn.features.extractor import BottomUp
from fpn.features.frozen import freeze
from fpn.sections import Positive, Section
from fpn.structures import Features, Level

# What recipes call it.
TRANSFORMER = "vitdet"
# Its one level, and the stage that all blocks are.
_NUMBER = 4
_EPSILON = 1e-6
_QUARTERS = 4

_Side = Annotated[int, Field(ge=1, le=1024)]


class ViTConfig(Section):
    """Section `backbone.vit`: what backbone vitdet is made of. The defaults are ViTDet-B's."""

    width: Positive[int] = Field(default=768, description="vitdet: numbers a token; 1024 in ViTDet-L, 1280 in H.")
    depth: Annotated[int, Field(ge=1, le=200)] = Field(
        default=12, description="vitdet: blocks; 24 in ViTDet-L, 32 in H."
    )
    heads: Positive[int] = Field(default=12, description="vitdet: attention heads of a block; 16 in ViTDet-L and H.")
    window: _Side = Field(default=14, description="vitdet: side of the windows that most blocks look at, in tokens.")
    global_blocks: tuple[Annotated[int, Field(ge=0, le=199)], ...] | None = Field(
        default=None,
        description="vitdet: blocks that look at the whole image, counted from 0; None: the last of each quarter.",
    )
    position_grid: Annotated[int, Field(ge=0, le=1024)] = Field(
        default=14,
        description="vitdet: side of the table of positions, in tokens, as of pretraining; it is resampled to the "
        "image. 0: there is none.",
    )
    relative_positions: bool = Field(
        default=True, description="vitdet: whether attention also depends on how far apart two tokens are."
    )
    relative_grid: _Side = Field(
        default=64,
        description="vitdet: side of the image that the relative positions of global blocks are made for, in tokens; "
        "they are resampled to others.",
    )
    drop_path: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.1,
        description="vitdet: how often the last block is left out in training, earlier ones less; 0.4 in ViTDet-L, 0.5 "
        "in H.",
    )

    @model_validator(mode="after")
    def _agree(self) -> ViTConfig:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} can't be shared by {self.heads} heads. Choose a multiple.")
        beyond = [block for block in self.global_blocks or () if block >= self.depth]
        if beyond:
            raise ValueError(f"global_blocks has {beyond[0]}, and there are {self.depth} blocks, counted from 0")
        return self

    @property
    def looks_far(self) -> tuple[int, ...]:
        """The blocks that look at the whole image."""
        return last_of_quarters(self.depth) if self.global_blocks is None else self.global_blocks


def last_of_quarters(depth: int) -> tuple[int, ...]:
    """The last block of each quarter, counted from 0: of 12, blocks 2, 5, 8 and 11."""
    return tuple(sorted({max(depth * k // _QUARTERS, 1) - 1 for k in range(1, _QUARTERS + 1)}))


class WindowedTransformer(BottomUp):
    """Patches of 16 pixels, their positions, and the blocks; no norm at the end: pixels to c4.

    Submodules: `patches`, `positions`, `blocks`.

    Attributes:
        name: what recipes call it.
        frozen_stages: as in `Backbone`; 4 is all of it, fewer are patches and positions.
        pixel_mean, pixel_std: of ImageNet, RGB in 0..1.
    """

    def __init__(
        self,
        *,
        config: ViTConfig,
        weights: str | Path | None = None,
        out: Sequence[int] = (_NUMBER,),
        frozen_stages: int = 0,
    ) -> None:
        """Args:
            config: sizes.
            weights: None, as it begins at random: an imported model brings its own.
            out: (4,), as it has no other level.
            frozen_stages: stages that are not trained.

        Raises:
            ConfigError: other weights or levels, or more stages than there are.
        """
        super().__init__()
        _refuse_what_it_has_not(weights, tuple(out), frozen_stages)
        self.name, self.frozen_stages = TRANSFORMER, frozen_stages
        self.pixel_mean: tuple[float, float, float] = IMAGENET_DEFAULT_MEAN
        self.pixel_std: tuple[float, float, float] = IMAGENET_DEFAULT_STD
        self.levels = (Level(f"c{_NUMBER}", config.width, PATCH_PIXELS, _NUMBER),)
        self.patches = nn.Conv2d(3, config.width, PATCH_PIXELS, stride=PATCH_PIXELS)
        self.positions = Positions(config.position_grid, config.width)
        self.blocks = nn.Sequential(*(Block(config, number) for number in range(config.depth)))
        for layer in self.blocks.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        stages = [self.patches, self.positions] if frozen_stages > 0 else []
        freeze(self, [*stages, *(self.blocks.modules() if frozen_stages == _NUMBER else ())])

    def forward(self, pixels: Float[Tensor, "B 3 H W"]) -> Features:
        """The map c4. Images are padded with zeros to whole patches."""
        below, right = (-side % PATCH_PIXELS for side in pixels.shape[-2:])
        if below or right:
            pixels = functional.pad(pixels, (0, right, 0, below))
        tokens = self.patches(pixels).permute(0, 2, 3, 1)
        tokens = self.blocks(self.positions(tokens))
        return {self.levels[0].name: tokens.permute(0, 3, 1, 2)}


class Positions(nn.Module):
    """Adds to each token what stands for its place; the table is resampled to the image at hand."""

    table: nn.Parameter | None

    def __init__(self, side: int, width: int) -> None:
        """Args:
        side: of the table, in tokens; 0: nothing is added.
        width: numbers a token.
        """
        super().__init__()
        begun = nn.init.trunc_normal_(torch.zeros(side, side, width), std=0.02)
        self.register_parameter("table", nn.Parameter(begun) if side else None)

    def forward(self, tokens: Float[Tensor, "B h w C"]) -> Float[Tensor, "B h w C"]:
        """With positions; cubic interpolation whose kernel has a = -0.75."""
        if self.table is None:
            return tokens
        size = tokens.shape[1:3]
        # A graph whose sides are open can't ask; to resample to the same size changes nothing.
        if not torch.compiler.is_exporting() and self.table.shape[:2] == size:
            return tokens + self.table
        resampled = functional.interpolate(self.table.permute(2, 0, 1)[None], size=size, mode="bicubic")[0]
        return tokens + resampled.permute(1, 2, 0)


class Block(nn.Module):
    """Attention among tokens, then two layers on each token; both are added to what came in."""

    def __init__(self, config: ViTConfig, number: int) -> None:
        """Args:
        config: sizes.
        number: of the block, from 0: later ones are dropped more often.
        """
        super().__init__()
        far = number in config.looks_far
        self.window = None if far else config.window
        side = config.relative_grid if far else config.window
        self.norm1 = nn.LayerNorm(config.width, eps=_EPSILON)
        self.attention = Attention(config.width, config.heads, side if config.relative_positions else None)
        self.norm2 = nn.LayerNorm(config.width, eps=_EPSILON)
        wide = 4 * config.width
        self.mlp = nn.Sequential(Linear(config.width, wide), nn.GELU(), Linear(wide, config.width))
        self.drop_path = DropPath(config.drop_path * number / max(config.depth - 1, 1))

    def forward(self, tokens: Float[Tensor, "B h w C"]) -> Float[Tensor, "B h w C"]:
        """In training, either part is left out of some images."""
        normed = self.norm1(tokens)
        seen = self.attention(normed) if self.window is None else _in_windows(self.attention, normed, self.window)
        tokens = tokens + self.drop_path(seen)
        changed: Tensor = tokens + self.drop_path(self.mlp(self.norm2(tokens)))
        return changed


class Attention(nn.Module):
    """Attention of all tokens of a rectangle among each other, with relative positions by row and by column.

    A query q at (x, y) and a key at (x', y') have q . rows[y - y'] + q . columns[x - x'] added to their logit. That is
    computed as part of their product: queries are continued by these numbers for each row and column, keys by ones at
    their own row and column. So no table of all pairs of tokens has to be kept: 805 MB for 64 x 64 tokens and 12 heads.
    """

    rows: nn.Parameter | None
    columns: nn.Parameter | None

    def __init__(self, width: int, heads: int, side: int | None) -> None:
        """Args:
        width: numbers a token.
        heads: how many share it.
        side: of the rectangle that relative positions are made for; None: there are none.
        """
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width)
        self.proj = Linear(width, width)
        for name in ("rows", "columns"):
            table = None if side is None else nn.Parameter(torch.zeros(2 * side - 1, width // heads))
            self.register_parameter(name, table)

    def forward(self, tokens: Float[Tensor, "B h w C"]) -> Float[Tensor, "B h w C"]:
        """What each token makes of all others."""
        batch, height, width, channels = tokens.shape
        qkv = self.qkv(tokens).reshape(batch, height, width, 3, self.heads, channels // self.heads)
        queries, keys, values = qkv.permute(3, 0, 4, 1, 2, 5)  # (B, heads, h, w, c) each
        scaled = queries * (channels // self.heads) ** -0.5
        if self.rows is not None and self.columns is not None:
            by_row = torch.einsum("bnyxc,yzc->bnyxz", queries, relative_table(self.rows, height))
            by_column = torch.einsum("bnyxc,xzc->bnyxz", queries, relative_table(self.columns, width))
            scaled = torch.cat([scaled, by_row, by_column], dim=-1)
            keys = torch.cat([keys, _own_row_and_column(keys)], dim=-1)
            # The fused kernels want values as wide as keys.
            values = functional.pad(values, (0, height + width))
        scaled, keys, values = (part.flatten(2, 3) for part in (scaled, keys, values))
        seen = functional.scaled_dot_product_attention(scaled, keys, values, scale=1.0)
        seen = seen[..., : channels // self.heads].transpose(1, 2)
        found: Tensor = self.proj(seen.reshape(batch, height, width, channels))
        return found


def relative_table(table: Float[Tensor, "r c"], side: int) -> Float[Tensor, "s s c"]:
    """What stands for the way from each place of a row to each other one.

    Args:
        table: for ways from -(r - 1) / 2 to (r - 1) / 2; resampled linearly where a row is not of that length.
        side: length of the row.
    """
    if torch.compiler.is_exporting() or len(table) != 2 * side - 1:
        table = functional.interpolate(table.T[None], size=2 * side - 1, mode="linear")[0].T
    place = torch.arange(side, device=table.device)
    return table[place[:, None] - place + side - 1]


def _own_row_and_column(keys: Float[Tensor, "B n h w c"]) -> Float[Tensor, "B n h w r"]:
    """Ones at each key's row, then at its column; zeros elsewhere."""
    batch, heads, height, width, _ = keys.shape
    rows = torch.eye(height, dtype=keys.dtype, device=keys.device)[:, None].expand(height, width, height)
    columns = torch.eye(width, dtype=keys.dtype, device=keys.device).expand(height, width, width)
    return torch.cat([rows, columns], dim=-1).expand(batch, heads, height, width, height + width)


def _in_windows(
    attend: Callable[[Tensor], Tensor], tokens: Float[Tensor, "B h w C"], side: int
) -> Float[Tensor, "B h w C"]:
    """Attention within each window. The last ones are filled up with zeros, which are looked at like tokens."""
    batch, height, width, channels = tokens.shape
    padded = functional.pad(tokens, (0, 0, 0, -width % side, 0, -height % side))
    rows, columns = padded.shape[1] // side, padded.shape[2] // side
    windows = padded.reshape(batch, rows, side, columns, side, channels).transpose(2, 3).flatten(0, 2)
    seen = attend(windows).reshape(batch, rows, columns, side, side, channels).transpose(2, 3)
    return seen.reshape(padded.shape)[:, :height, :width]


def _refuse_what_it_has_not(weights: str | Path | None, out: tuple[int, ...], frozen_stages: int) -> None:
    if weights is not None:
        raise ConfigError(
            f"backbone {TRANSFORMER!r}: has no weights {str(weights)!r} to begin with. Begin with a model that "
            "fpn import made of Detectron2's weights (--init), or at random (--weights none)."
        )
    if out != (_NUMBER,):
        raise ConfigError(
            f"backbone {TRANSFORMER!r} has levels c{_NUMBER}, asked for {', '.join(f'c{k}' for k in out) or 'none'}. "
            "A plain transformer has no other: use neck simple_pyramid, which makes all levels of it."
        )
    if frozen_stages > _NUMBER:
        raise ConfigError(f"backbone {TRANSFORMER!r} has {_NUMBER} stages, frozen_stages is {frozen_stages}")
