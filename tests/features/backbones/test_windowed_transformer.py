"""ViTDet's transformer against attention pair by pair in NumPy, and against figures of Detectron2's own code."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from parity.golden import rule

from fpn.errors import ConfigError
from fpn.features.backbones.windowed_transformer import ViTConfig, WindowedTransformer, last_of_quarters

TINY = {"width": 8, "depth": 3, "heads": 2, "window": 3, "global_blocks": (1,), "position_grid": 3, "relative_grid": 4}


def filled(seed: int = 0, **changes: object) -> WindowedTransformer:
    """With random numbers everywhere, also where a new one has zeros."""
    made = WindowedTransformer(config=ViTConfig(**{**TINY, **changes})).eval()
    generator = torch.Generator().manual_seed(seed)
    for weight in made.parameters():
        weight.data.normal_(0, 0.3, generator=generator)
    return made


# --- the formula, in float64 ------------------------------------------------------------------------------------------


def cubic(table: np.ndarray, size: int) -> np.ndarray:
    """Keys' kernel with a = -0.75 along the first axis; beyond the ends stands what is at the ends."""

    def kernel(x: float) -> float:
        x, a = abs(x), -0.75
        if x <= 1:
            return (a + 2) * x**3 - (a + 3) * x**2 + 1
        return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0

    rows, last = [], len(table) - 1
    for place in range(size):
        at = (place + 0.5) * len(table) / size - 0.5
        near = range(math.floor(at) - 1, math.floor(at) + 3)
        rows.append(sum(kernel(at - k) * table[min(max(k, 0), last)] for k in near))
    return np.stack(rows)


def linear(table: np.ndarray, size: int) -> np.ndarray:
    at = np.clip((np.arange(size) + 0.5) * len(table) / size - 0.5, 0, len(table) - 1)
    return np.stack([np.interp(at, np.arange(len(table)), column) for column in table.T], axis=1)


def norm(x: np.ndarray, state: dict[str, np.ndarray], name: str) -> np.ndarray:
    spread = np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return (x - x.mean(-1, keepdims=True)) / spread * state[f"{name}.weight"] + state[f"{name}.bias"]


def attend(x: np.ndarray, state: dict[str, np.ndarray], name: str, heads: int) -> np.ndarray:
    """Each pair of tokens of a rectangle (h, w, C) by itself."""
    height, width, channels = x.shape
    part = channels // heads
    qkv = x @ state[f"{name}.qkv.weight"].T + state[f"{name}.qkv.bias"]
    rows, columns = linear(state[f"{name}.rows"], 2 * height - 1), linear(state[f"{name}.columns"], 2 * width - 1)
    places = [(row, column) for row in range(height) for column in range(width)]
    seen = np.zeros_like(x)
    for head in range(heads):
        own = slice(head * part, (head + 1) * part)
        query, key, value = (qkv[..., each * channels : (each + 1) * channels][..., own] for each in range(3))
        for y, column in places:
            q = query[y, column]
            logits = [
                q @ key[v, u] / math.sqrt(part) + q @ rows[y - v + height - 1] + q @ columns[column - u + width - 1]
                for v, u in places
            ]
            weights = np.exp(np.array(logits) - max(logits))
            weights /= weights.sum()
            seen[y, column, own] = sum(w * value[place] for w, place in zip(weights, places, strict=True))
    return seen @ state[f"{name}.proj.weight"].T + state[f"{name}.proj.bias"]


def windowed(x: np.ndarray, state: dict[str, np.ndarray], name: str, heads: int, side: int) -> np.ndarray:
    height, width, _ = x.shape
    padded = np.pad(x, ((0, -height % side), (0, -width % side), (0, 0)))
    seen = np.zeros_like(padded)
    for top in range(0, len(padded), side):
        for left in range(0, padded.shape[1], side):
            window = np.s_[top : top + side, left : left + side]
            seen[window] = attend(padded[window], state, name, heads)
    return seen[:height, :width]


def expected(net: WindowedTransformer, pixels: torch.Tensor, config: ViTConfig) -> np.ndarray:
    state = {name: value.double().numpy() for name, value in net.state_dict().items()}
    rows, columns = (-(-side // 16) for side in pixels.shape[-2:])
    image = np.zeros((3, 16 * rows, 16 * columns))
    image[:, : pixels.shape[-2], : pixels.shape[-1]] = pixels[0].double().numpy()
    cells = image.reshape(3, rows, 16, columns, 16)
    x = np.tensordot(cells.transpose(1, 3, 0, 2, 4), state["patches.weight"], axes=((2, 3, 4), (1, 2, 3)))
    table = cubic(cubic(state["positions.table"], rows).swapaxes(0, 1), columns).swapaxes(0, 1)
    x = x + state["patches.bias"] + table
    for number in range(config.depth):
        name, block = f"blocks.{number}.attention", f"blocks.{number}"
        far = number in config.looks_far
        normed = norm(x, state, f"{block}.norm1")
        x = x + (
            attend(normed, state, name, config.heads)
            if far
            else windowed(normed, state, name, config.heads, config.window)
        )
        hidden = norm(x, state, f"{block}.norm2") @ state[f"{block}.mlp.0.weight"].T + state[f"{block}.mlp.0.bias"]
        gelu = 0.5 * hidden * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
        x = x + gelu @ state[f"{block}.mlp.2.weight"].T + state[f"{block}.mlp.2.bias"]
    return x.transpose(2, 0, 1)


@pytest.mark.parametrize(
    "size",
    [(48, 48), (64, 64), (61, 75), (32, 100)],
    ids=["table of positions as it is", "relative positions as they are", "windows filled up", "all resampled"],
)
def test_it_is_what_the_formula_says(size: tuple[int, int]) -> None:
    net, pixels = filled(), torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = net(pixels)["c4"]
    np.testing.assert_allclose(found[0].numpy(), expected(net, pixels, ViTConfig(**TINY)), atol=2e-5)


# --- Detectron2's own figures -----------------------------------------------------------------------------------------

# Of its ViT (02b5c4e, torch 2.12) with img_size=64, embed_dim=8, depth=3, num_heads=2, window_size=3, block 1 global,
# use_rel_pos, pretrain_img_size=48 and a class token; two images of 80 x 112.
FIRST = (-0.805719, -6.499401, -4.525183, -1.340768, 4.332133, -1.709840, 1.028183, 5.536591)
LAST = (-2.601540, -0.606241, -2.190187, -5.984040, 2.945525, 1.408474, -5.929490, -4.378566)
TOTAL = 1936.959
# Our names and the places of theirs that follow: (ours, theirs).
NAMES = {
    "attention.rows": "attn.rel_pos_h",
    "attention.columns": "attn.rel_pos_w",
    "attention": "attn",
    "mlp.0": "mlp.fc1",
    "mlp.2": "mlp.fc2",
    "patches": "patch_embed.proj",
}


def by_rule(name: str, shape: torch.Size) -> torch.Tensor:
    """The weight that Detectron2 had in this place."""
    if name == "positions.table":
        whole = rule.weight("public/", "pos_embed", (1, 10, 8), [("pos_embed$", 20.0)])
        return torch.from_numpy(whole[0, 1:]).view(shape)
    for own, theirs in NAMES.items():
        name = name.replace(own, theirs)
    return torch.from_numpy(rule.weight("public/", name, tuple(shape)))


def test_it_gives_the_figures_of_detectron2() -> None:
    net = WindowedTransformer(config=ViTConfig(**TINY)).eval()
    net.load_state_dict({name: by_rule(name, value.shape) for name, value in net.state_dict().items()})
    pixels = torch.from_numpy(rule.normal("public/", "input:vit", (2, 3, 80, 112), 1.0))
    with torch.no_grad():
        found = net(pixels)["c4"]
    assert found.shape == (2, 8, 5, 7)
    np.testing.assert_allclose(found[0, :, 0, 0], FIRST, atol=1e-5)
    np.testing.assert_allclose(found[1, :, 4, 6], LAST, atol=1e-5)
    assert float(found.abs().sum()) == pytest.approx(TOTAL, abs=0.01)


# --- training and settings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stages", "frozen"), [(0, ()), (2, ("patches", "positions")), (4, ("patches", "positions", "blocks"))]
)
def test_frozen_stages_get_no_gradients(stages: int, frozen: tuple[str, ...]) -> None:
    net = WindowedTransformer(config=ViTConfig(**TINY), frozen_stages=stages)
    still = {name.split(".")[0] for name, weight in net.named_parameters() if not weight.requires_grad}
    moving = {name.split(".")[0] for name, weight in net.named_parameters() if weight.requires_grad}
    assert (still, moving) == (set(frozen), {"patches", "positions", "blocks"} - set(frozen))
    with pytest.raises(ConfigError, match="'vitdet' has 4 stages, frozen_stages is 5"):
        WindowedTransformer(config=ViTConfig(**TINY), frozen_stages=5)


def test_the_last_block_is_left_out_of_some_images_and_the_first_never() -> None:
    net = filled(drop_path=0.5).train()
    assert [block.drop_path.drop_prob for block in net.blocks] == [0.0, 0.25, 0.5]
    tokens = torch.ones(64, 2, 2, 8)
    torch.manual_seed(0)
    with torch.no_grad():
        changed = net.blocks[2](tokens)
    untouched = [bool((image == 1).all()) for image in changed]
    assert 4 <= sum(untouched) <= 32  # a quarter of 64: either part is dropped in half of the images
    assert torch.equal(net.blocks[0](tokens), net.eval().blocks[0](tokens))


def test_last_blocks_of_quarters() -> None:
    assert last_of_quarters(12) == (2, 5, 8, 11)
    assert last_of_quarters(32) == (7, 15, 23, 31)
    assert last_of_quarters(3) == (0, 1, 2)
    assert last_of_quarters(1) == (0,)


def test_without_positions_and_relative_positions() -> None:
    net = filled(position_grid=0, relative_positions=False)
    assert {name.rpartition(".")[2] for name in net.state_dict()} == {"weight", "bias"}
    with torch.no_grad():
        tokens = net(torch.full((1, 3, 48, 48), 0.5))["c4"].flatten(2)
    torch.testing.assert_close(tokens, tokens[..., :1].expand_as(tokens))  # nothing tells one place from another


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 3}, "width 8 can't be shared by 3 heads"),
        ({"global_blocks": (3,)}, "global_blocks has 3, and there are 3 blocks, counted from 0"),
        ({"drop_path": 1.0}, "drop_path 1.0: expected less than 1"),
        ({"depth": 0}, "depth 0"),
    ],
)
def test_sizes_that_can_not_be(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ViTConfig(**{**TINY, **changes})
