from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from parity.golden.cases import Case, case
from torch import Tensor

from fpn.ops.roi_align import cpu_index
from fpn.ops.roi_align.levels import choose_levels
from fpn.ops.roi_align.pool import pool_rois
from fpn.runtime import memory

STRIDES = (4, 8, 16, 32)
SCALES = [(1 / stride, 1 / stride) for stride in STRIDES]

# 0  1  2  3
# 4  5  6  7
# 8  9 10 11
# 12 13 14 15: a value is 4 * row + column, so that bilinear sampling is easy in the head.
RAMP = torch.arange(16.0).view(1, 1, 4, 4)


def pool_one(box: list[float], **options: Any) -> Tensor:
    index = torch.zeros(1, dtype=torch.int64)
    return pool_rois([RAMP], [(1.0, 1.0)], torch.tensor([box]), index, index, **options)[0, 0]


def pyramid(*, odd: bool = False, channels: int = 8, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    random = torch.Generator().manual_seed(1)
    sides = ((37, 45), (19, 23), (9, 11), (5, 6)) if odd else ((32, 48), (16, 24), (8, 12), (4, 6))
    return [torch.randn(2, channels, *side, generator=random, dtype=torch.float64).to(dtype) for side in sides]


def rois(count: int = 60) -> tuple[Tensor, Tensor, Tensor]:
    """Inside, across every rim and wholly outside of an image of 128 x 192; one without a size."""
    random = torch.Generator().manual_seed(2)
    corner = torch.rand(count, 2, generator=random) * torch.tensor([260.0, 190.0]) - 40
    boxes = torch.cat([corner, corner + torch.rand(count, 2, generator=random) ** 2 * 150], dim=1)
    boxes[3, 2:] = boxes[3, :2]
    boxes[4] = torch.tensor([900.0, 900.0, 950.0, 930.0])
    images = torch.randint(0, 2, (count,), generator=random)
    levels = torch.randint(0, 4, (count,), generator=random)
    return boxes, images, levels


def torchvision_align(
    maps: list[Tensor], boxes: Tensor, images: Tensor, levels: Tensor, size: int, ratio: int, aligned: bool
) -> Tensor:
    pooled = maps[0].new_zeros(len(boxes), maps[0].shape[1], size, size)
    for level, stride in enumerate(STRIDES):
        here = (levels == level).nonzero()[:, 0]
        listed = torch.cat([images[here, None].float(), boxes[here]], dim=1)
        part = torchvision.ops.roi_align(maps[level], listed, size, 1 / stride, ratio, aligned)
        pooled = pooled.index_copy(0, here, part)
    return pooled


# --- hand-computed -------------------------------------------------------------------------------------------------


def test_aligned_samples_lie_half_a_cell_before_the_edges() -> None:
    # Box 1..3 covers the cells 1 and 2; with one sample a bin these are read at their centres.
    pooled = pool_one([1.0, 1.0, 3.0, 3.0], output_size=2, sampling_ratio=1, aligned=True)
    assert pooled.tolist() == [[5.0, 6.0], [9.0, 10.0]]


def test_legacy_samples_take_edges_as_centres() -> None:
    pooled = pool_one([1.0, 1.0, 3.0, 3.0], output_size=2, sampling_ratio=1, aligned=False)
    assert pooled.tolist() == [[7.5, 8.5], [11.5, 12.5]]


def test_legacy_rois_are_at_least_one_cell_wide() -> None:
    assert pool_one([1.0, 1.0, 1.0, 1.0], output_size=1, sampling_ratio=1, aligned=False).item() == 7.5
    assert pool_one([1.0, 1.0, 1.0, 1.0], output_size=1, sampling_ratio=1, aligned=True).item() == 2.5


def test_more_samples_are_averaged() -> None:
    # One bin from -0.5 to 3.5 (in centres). One sample at 1.5; two at 0.5 and 2.5; on the first row of a map of
    # squares they read 2.5, and (0.5 + 6.5) / 2 = 3.5.
    squares = (torch.arange(4.0) ** 2).expand(1, 1, 4, 4)
    index = torch.zeros(1, dtype=torch.int64)
    box = torch.tensor([[0.0, 0.0, 4.0, 4.0]])

    def pooled(ratio: int) -> float:
        return pool_rois([squares], [(1.0, 1.0)], box, index, index, output_size=1, sampling_ratio=ratio).item()

    assert pooled(1) == 2.5
    assert pooled(2) == 3.5


def test_adaptive_sampling_takes_a_sample_for_every_begun_cell() -> None:
    # Side 4: four samples, on the centres 0..3: the mean of all cells.
    squares = (torch.arange(4.0) ** 2).expand(1, 1, 4, 4)
    index = torch.zeros(1, dtype=torch.int64)
    box = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    pooled = pool_rois([squares], [(1.0, 1.0)], box, index, index, output_size=1, sampling_ratio=0)
    assert pooled.item() == (0 + 1 + 4 + 9) / 4


def test_scales_are_down_and_across() -> None:
    index = torch.zeros(1, dtype=torch.int64)
    box = torch.tensor([[2.0, 20.0, 6.0, 40.0]])  # columns 1..3 and rows 2..4
    pooled = pool_rois([RAMP], [(0.1, 0.5)], box, index, index, output_size=2, sampling_ratio=1)
    assert torch.allclose(pooled[0, 0], torch.tensor([[9.0, 10.0], [13.0, 14.0]]))


def test_align_avg_is_one_cell_too_long_and_averages_points_in_pairs() -> None:
    # From 0 to 1, plus 1: points at 0, 1 and 2; pairs average to 0.5 and 1.5 along both axes.
    pooled = pool_one([0.0, 0.0, 1.0, 1.0], output_size=2, sampler="align_avg")
    assert pooled.tolist() == [[2.5, 3.5], [6.5, 7.5]]


def test_align_avg_continues_the_slope_beyond_the_last_centre() -> None:
    # Points at 3.5 and 4.5 along both axes (a side of -0.0 + 1): the first reads 4 * 3.5 + 3.5, the others 0.
    pooled = pool_one([3.5, 3.5, 3.5, 3.5], output_size=1, sampler="align_avg")
    assert pooled.item() == 17.5 / 4


def test_crop_reads_from_edge_to_edge_and_sees_zeros_around_the_map() -> None:
    pooled = pool_one([0.0, 0.0, 3.0, 3.0], output_size=2, sampler="crop")
    assert pooled.tolist() == [[0.0, 3.0], [12.0, 15.0]]
    half_of_15 = pool_one([3.5, 3.0, 3.5, 3.0], output_size=1, sampler="crop").item()
    assert half_of_15 == pytest.approx(7.5, abs=1e-5)


def test_crop_with_max_pool_keeps_the_largest_of_four_points() -> None:
    pooled = pool_one([0.0, 0.0, 3.0, 3.0], output_size=2, sampler="crop", max_pool=True)
    assert pooled.tolist() == [[5.0, 7.0], [13.0, 15.0]]


def test_crop_and_resize_reads_zero_beyond_the_outermost_centres() -> None:
    pooled = pool_one([0.0, 0.0, 3.5, 3.0], output_size=2, sampler="crop_and_resize")
    assert pooled.tolist() == [[0.0, 0.0], [12.0, 0.0]]


def test_crop_and_resize_lays_the_images_corner_centres_on_the_maps() -> None:
    # An image of 7 x 13 pixels: its last pixel (12, 6) is the map's last cell (3, 3).
    pooled = pool_one([0.0, 0.0, 12.0, 6.0], output_size=2, sampler="crop_and_resize", image_size=(7, 13))
    assert pooled.tolist() == [[0.0, 3.0], [12.0, 15.0]]


def test_pool_takes_the_maximum_of_each_bin() -> None:
    assert pool_one([0.0, 0.0, 3.0, 3.0], output_size=2, sampler="pool").tolist() == [[5.0, 7.0], [13.0, 15.0]]


# --- equal to torchvision --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("ratio", [0, 1, 2, 3])
@pytest.mark.parametrize("aligned", [True, False])
def test_values_and_gradients_equal_torchvisions(aligned: bool, ratio: int, odd: bool) -> None:
    boxes, images, levels = rois()
    ours = [m.requires_grad_() for m in pyramid(odd=odd)]
    theirs = [m.requires_grad_() for m in pyramid(odd=odd)]
    options: dict[str, Any] = {"output_size": 7, "sampling_ratio": ratio, "aligned": aligned}
    pooled = pool_rois(ours, SCALES, boxes, images, levels, **options)
    expected = torchvision_align(theirs, boxes, images, levels, 7, ratio, aligned)
    assert torch.allclose(pooled, expected, atol=1e-5)
    slope = torch.randn(pooled.shape, generator=torch.Generator().manual_seed(3))
    pooled.backward(slope)
    expected.backward(slope)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.grad is not None
        assert other.grad is not None
        assert torch.allclose(mine.grad, other.grad, atol=4e-5)


def test_inverted_boxes_equal_torchvisions() -> None:
    boxes, images, levels = rois()
    turned = boxes[:, [2, 3, 0, 1]]
    for aligned in (True, False):
        pooled = pool_rois(pyramid(), SCALES, turned, images, levels, output_size=5, aligned=aligned)
        assert torch.allclose(pooled, torchvision_align(pyramid(), turned, images, levels, 5, 2, aligned), atol=1e-5)


def test_channels_last_maps_give_the_same() -> None:
    boxes, images, levels = rois()
    last = [m.contiguous(memory_format=torch.channels_last) for m in pyramid()]
    first = pool_rois(pyramid(), SCALES, boxes, images, levels, output_size=7)
    assert torch.equal(pool_rois(last, SCALES, boxes, images, levels, output_size=7), first)


def test_small_portions_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes, images, levels = rois()

    def pooled_and_gradient() -> tuple[Tensor, Tensor]:
        maps = [m.requires_grad_() for m in pyramid()]
        pooled = pool_rois(maps, SCALES, boxes, images, levels, output_size=7, sampling_ratio=0)
        return pooled, torch.autograd.grad(pooled.square().sum(), maps[0])[0]

    whole = pooled_and_gradient()
    monkeypatch.setattr(cpu_index, "CHUNK_NUMBERS", 1000)
    monkeypatch.setattr(cpu_index, "_BLOCK_NUMBERS", 600)
    monkeypatch.setattr(memory, "_WORTH_IT_BYTES", 100)
    portions = pooled_and_gradient()
    assert torch.allclose(whole[0], portions[0], atol=1e-6)
    assert torch.allclose(whole[1], portions[1], atol=1e-5)


def test_pool_equals_torchvisions_roi_pool_in_the_order_of_the_rois() -> None:
    boxes, images, levels = rois()
    maps = pyramid()
    pooled = pool_rois(maps, SCALES, boxes, images, levels, output_size=7, sampler="pool")
    for i in range(len(boxes)):
        roi = torch.cat([images[i, None].float(), boxes[i]])[None]
        expected = torchvision.ops.roi_pool(maps[levels[i]], roi, 7, 1 / STRIDES[levels[i]])
        assert torch.equal(pooled[i], expected[0])


def test_bfloat16_maps_give_bfloat16_and_stay_near_float32() -> None:
    boxes, images, levels = rois()
    rough = [m.bfloat16() for m in pyramid()]
    exact = [m.float().requires_grad_() for m in rough]
    rough = [m.requires_grad_() for m in rough]
    pooled = pool_rois(rough, SCALES, boxes, images, levels, output_size=7)
    expected = pool_rois(exact, SCALES, boxes, images, levels, output_size=7)
    assert pooled.dtype == torch.bfloat16
    assert torch.allclose(pooled.float(), expected, atol=2e-2, rtol=1e-2)
    pooled.sum().backward()
    expected.sum().backward()
    assert rough[0].grad is not None
    assert exact[0].grad is not None
    assert rough[0].grad.dtype == torch.bfloat16
    assert torch.allclose(rough[0].grad.float(), exact[0].grad, atol=5e-2, rtol=2e-2)


@pytest.mark.parametrize("sampler", ["align", "align_avg", "crop", "crop_and_resize", "pool"])
def test_no_rois_give_an_empty_result_and_zero_gradients(sampler: Any) -> None:
    maps = [m.requires_grad_() for m in pyramid()]
    none = torch.zeros(0, dtype=torch.int64)
    pooled = pool_rois(maps, SCALES, torch.zeros(0, 4), none, none, output_size=7, sampler=sampler, sampling_ratio=0)
    assert pooled.shape == (0, 8, 7, 7)
    pooled.sum().backward()
    assert all(m.grad is not None and not m.grad.any() for m in maps)


def test_rois_outside_the_image_read_zero() -> None:
    index = torch.zeros(1, dtype=torch.int64)
    box = torch.tensor([[900.0, 900.0, 950.0, 930.0]])
    for sampler in ("align", "align_avg", "crop", "crop_and_resize", "pool"):
        pooled = pool_rois(pyramid(), SCALES, box, index, index, output_size=7, sampler=sampler)  # type: ignore[arg-type]
        assert not pooled.any(), sampler


def test_frozen_maps_get_no_gradient_and_the_others_do() -> None:
    boxes, images, levels = rois()
    maps = pyramid()
    maps[1].requires_grad_()
    pool_rois(maps, SCALES, boxes, images, levels, output_size=3).sum().backward()
    assert maps[0].grad is None
    assert maps[1].grad is not None


@pytest.mark.parametrize("sampler", ["align", "align_avg", "crop", "crop_and_resize"])
def test_the_plain_table_gives_the_same_as_level_by_level(sampler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    boxes, images, levels = rois()

    def pooled_and_gradients() -> tuple[Tensor, ...]:
        maps = [m.requires_grad_() for m in pyramid(odd=True)]
        pooled = pool_rois(maps, SCALES, boxes, images, levels, output_size=7, sampler=sampler)
        return pooled, *torch.autograd.grad(pooled.square().sum(), maps)

    ours = pooled_and_gradients()
    monkeypatch.setattr("fpn.ops.roi_align.pool._is_eager_cpu", lambda _: False)
    for mine, plain in zip(ours, pooled_and_gradients(), strict=True):
        assert torch.allclose(mine, plain, atol=4e-5)


def test_what_is_left_to_the_devices_kernel_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes, images, levels = rois()
    ours = pool_rois(pyramid(), SCALES, boxes, images, levels, output_size=7)
    monkeypatch.setattr("fpn.ops.roi_align.pool._device_has_its_own", lambda _: True)
    assert torch.allclose(pool_rois(pyramid(), SCALES, boxes, images, levels, output_size=7), ours, atol=1e-5)


# --- levels ----------------------------------------------------------------------------------------------------------


def squares(*sides: float) -> Tensor:
    return torch.tensor([[10.0, 20.0, 10.0 + side, 20.0 + side] for side in sides])


def test_the_papers_edges_are_at_112_224_and_448_pixels() -> None:
    sides = (0.0, 111.0, 112.0, 223.0, 224.0, 447.0, 448.0, 5000.0)
    levels = choose_levels(squares(*sides), finest=2, coarsest=5)
    assert levels.tolist() == [2, 2, 3, 3, 4, 4, 5, 5]
    assert levels.dtype == torch.int64


def test_rounding_the_binary_logarithm_moves_the_edges_to_79_158_and_317() -> None:
    levels = choose_levels(squares(79, 80, 158, 159, 316, 317), finest=2, coarsest=5, rule="round_log2")
    assert levels.tolist() == [2, 3, 3, 4, 4, 5]


def test_rounding_the_natural_logarithm_moves_the_edges_to_50_136_and_369() -> None:
    levels = choose_levels(squares(49, 50, 135, 136, 369, 370), finest=2, coarsest=5, rule="round_ln")
    assert levels.tolist() == [2, 3, 3, 4, 4, 5]


def test_the_legacy_plus_one_counts_both_ends() -> None:
    assert choose_levels(squares(223), finest=2, coarsest=5, legacy_plus_one=True).tolist() == [4]


def test_canonical_size_and_level_move_the_edges() -> None:
    assert choose_levels(squares(100), finest=2, coarsest=5, canonical_size=100.0).tolist() == [4]
    assert choose_levels(squares(224), finest=2, coarsest=5, canonical_level=3).tolist() == [3]


def test_sides_count_by_their_geometric_mean() -> None:
    box = torch.tensor([[0.0, 0.0, 448.0, 112.0]])
    assert choose_levels(box, finest=2, coarsest=5).tolist() == [4]


def test_there_are_no_levels_beyond_finest_and_coarsest() -> None:
    assert choose_levels(squares(0.0, 5000.0), finest=3, coarsest=4).tolist() == [3, 4]


# --- what the originals computed -------------------------------------------------------------------------------------


def stored(of: Case, name: str) -> Tensor:
    return torch.from_numpy(of[name])


def pixels(normalised: Tensor, height: int, width: int) -> Tensor:
    """Matterport's (y1, x1, y2, x2) in parts of (side - 1)."""
    side = torch.tensor([height - 1.0, width - 1.0] * 2)
    return (normalised * side)[:, [1, 0, 3, 2]]


def matterport_levels(boxes: Tensor, height: int, width: int) -> Tensor:
    size = 224 * ((height - 1) * (width - 1) / (height * width)) ** 0.5
    return choose_levels(boxes, finest=2, coarsest=5, rule="round_log2", canonical_size=size)


def test_levels_of_detectron2() -> None:
    figures = case("d2_3_levels")
    assert torch.equal(choose_levels(stored(figures, "boxes"), finest=2, coarsest=5), stored(figures, "level"))


def test_levels_of_fpn_pytorch() -> None:
    figures = case("fpnpt_e_levels")
    boxes = stored(figures, "rois")[:, 1:]
    levels = choose_levels(boxes, finest=2, coarsest=5, rule="round_ln", legacy_plus_one=True)
    assert torch.equal(levels, stored(figures, "level"))


def test_levels_of_matterport() -> None:
    figures = case("mrcnn_3_levels")
    boxes = pixels(stored(figures, "boxes"), 1024, 1024)
    assert torch.equal(matterport_levels(boxes, 1024, 1024), stored(figures, "level"))


@pytest.mark.parametrize(
    ("name", "ratio", "aligned"),
    [("roialign_aligned_sr0_7", 0, True), ("roialign_aligned_sr2_7", 2, True), ("roialign_legacy_sr2_7", 2, False)],
)
def test_align_of_detectron2(name: str, ratio: int, aligned: bool) -> None:
    figures = case("d2_8_roi_pool")
    boxes = stored(figures, "boxes")
    index = torch.zeros(len(boxes), dtype=torch.int64)
    maps = [stored(figures, "map0")]
    options: dict[str, Any] = {"output_size": 7, "sampling_ratio": ratio, "aligned": aligned}
    pooled = pool_rois(maps, SCALES[:1], boxes, index, index, **options)
    assert torch.allclose(pooled, stored(figures, name), atol=1e-4)


@pytest.mark.parametrize("size", [7, 14])
def test_all_levels_of_detectron2(size: int) -> None:
    figures = case("d2_8_roi_pool")
    maps = [torch.from_numpy(figures.normal(f"d2:pool:f{i}", (1, 8, 32 >> i, 40 >> i), 1.0)) for i in range(4)]
    boxes = stored(figures, "boxes")
    levels = choose_levels(boxes, finest=2, coarsest=5) - 2
    pooled = pool_rois(maps, SCALES, boxes, torch.zeros_like(levels), levels, output_size=size, sampling_ratio=0)
    part = figures.stored_part(f"roi_pooler_V2_{size}", pooled.numpy())
    assert torch.allclose(torch.from_numpy(part), stored(figures, f"roi_pooler_V2_{size}"), atol=1e-4)


@pytest.mark.parametrize(("scale", "text"), [(0.25, "025"), (25 / 96, "25_96")])
@pytest.mark.parametrize(("sampler", "name"), [("align_avg", "roi_align_avg_7"), ("pool", "roi_pool_7")])
def test_align_avg_and_pool_of_fpn_pytorch(sampler: Any, name: str, scale: float, text: str) -> None:
    figures = case("fpnpt_f_roi_ops")
    boxes = stored(figures, "rois")[:, 1:]
    index = torch.zeros(len(boxes), dtype=torch.int64)
    maps = [stored(figures, "feat")]
    pooled = pool_rois(maps, [(scale, scale)], boxes, index, index, output_size=7, sampler=sampler)
    assert torch.allclose(pooled, stored(figures, f"{name}_{text}"), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "size", "max_pool"), [("crop_7", 7, False), ("crop_14", 14, False), ("crop_14_maxpool", 7, True)]
)
def test_crop_of_fpn_pytorch(name: str, size: int, max_pool: bool) -> None:
    figures = case("fpnpt_f_roi_crop")
    boxes = stored(figures, "rois")[:, 1:]
    index = torch.zeros(len(boxes), dtype=torch.int64)
    options: dict[str, Any] = {"output_size": size, "sampler": "crop", "max_pool": max_pool}
    pooled = pool_rois([stored(figures, "feat")], [(1 / 16, 1 / 16)], boxes, index, index, **options)
    assert torch.allclose(pooled, stored(figures, name), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "size", "image"),
    [
        ("pooled_img128_7", 7, (128, 96)),
        ("pooled_img1024_7", 7, (1024, 768)),
        ("pooled_img1024_14", 14, (1024, 768)),
    ],
)
def test_crop_and_resize_of_matterport(name: str, size: int, image: tuple[int, int]) -> None:
    figures = case("mrcnn_3_pyramid_roi_align")
    maps = [torch.from_numpy(figures.normal(f"roialign:feat{i}", (1, 32 >> i, 24 >> i, 8), 1.0)) for i in range(4)]
    maps = [m.permute(0, 3, 1, 2) for m in maps]
    boxes = pixels(stored(figures, "boxes")[0], *image)
    levels = matterport_levels(boxes, *image) - 2
    options: dict[str, Any] = {"output_size": size, "sampler": "crop_and_resize", "image_size": image}
    pooled = pool_rois(maps, SCALES, boxes, torch.zeros_like(levels), levels, **options)
    assert torch.allclose(pooled.permute(0, 2, 3, 1), stored(figures, name)[0], atol=1e-4)
