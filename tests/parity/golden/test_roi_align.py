"""Every RoI sampler against the originals' kernels, RoIs inside, outside, inverted and without a size."""

import pytest
import torch

from fpn.heads.roi_pooler import RoIConfig, RoIPooler
from fpn.ops.roi_align.levels import choose_levels
from fpn.ops.roi_align.pool import pool_rois
from fpn.structures import ImageBatch, Level
from parity.golden.cases import case
from parity.golden.compare import OP_TOLERANCE, assert_near

YX = [1, 0, 3, 2]


def pool(feature, rois, scale, *, size=7, **options):
    """RoIs (batch index, x1, y1, x2, y2) or boxes of one image from one map."""
    rois = torch.from_numpy(rois)
    index = rois[:, 0].long() if rois.shape[1] == 5 else torch.zeros(len(rois), dtype=torch.int64)
    on_map = torch.zeros(len(rois), dtype=torch.int64)
    return pool_rois(
        [torch.from_numpy(feature)], [(scale, scale)], rois[:, -4:], index, on_map, output_size=size, **options
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("roialign_aligned_sr0_7", {"aligned": True, "sampling_ratio": 0}),
        ("roialign_aligned_sr2_7", {"aligned": True, "sampling_ratio": 2}),
        ("roialign_legacy_sr2_7", {"aligned": False, "sampling_ratio": 2}),
    ],
)
def test_detectron2_roi_align(name, options):
    figures = case("d2_8_roi_pool")
    assert_near(pool(figures["map0"], figures["boxes"], 1 / 4, **options), figures[name], OP_TOLERANCE)


@pytest.mark.parametrize("size", [7, 14])
def test_detectron2_pools_from_the_level_of_each_roi_and_keeps_their_order(size):
    figures = case("d2_8_roi_pool")
    batch, channels, height, width = figures["map0"].shape
    maps = {
        f"p{i + 2}": torch.from_numpy(figures.normal(f"d2:pool:f{i}", (batch, channels, height >> i, width >> i), 1.0))
        for i in range(4)
    }
    levels = tuple(Level(name, channels, 2**k, k) for k, name in enumerate(maps, 2))
    pooler = RoIPooler(levels=levels, config=RoIConfig(output_size=size, sampling_ratio=0))
    images = ImageBatch(torch.zeros(1, 3, height * 4, width * 4), torch.tensor([[height * 4, width * 4]]))
    found = pooler(maps, images, [torch.from_numpy(figures["boxes"])])
    name = f"roi_pooler_V2_{size}"
    assert_near(figures.stored_part(name, found.numpy()), figures[name], OP_TOLERANCE)


@pytest.mark.parametrize(("name", "scale"), [("025", 0.25), ("25_96", 25 / 96)])
def test_fpn_pytorch_align_avg_and_pool(name, scale):
    figures = case("fpnpt_f_roi_ops")
    averaged = pool(figures["feat"], figures["rois"], scale, sampler="align_avg")
    assert_near(averaged, figures[f"roi_align_avg_7_{name}"], OP_TOLERANCE)
    largest = pool(figures["feat"], figures["rois"], scale, sampler="pool")
    assert_near(largest, figures[f"roi_pool_7_{name}"], OP_TOLERANCE)


@pytest.mark.parametrize(
    ("name", "size", "max_pool"), [("crop_7", 7, False), ("crop_14", 14, False), ("crop_14_maxpool", 7, True)]
)
def test_fpn_pytorch_crop(name, size, max_pool):
    figures = case("fpnpt_f_roi_crop")
    found = pool(figures["feat"], figures["rois"], 1 / 16, size=size, sampler="crop", max_pool=max_pool)
    assert_near(found, figures[name], OP_TOLERANCE)


@pytest.mark.parametrize(("name", "size"), [("pooled_img128_7", 7), ("pooled_img1024_7", 7), ("pooled_img1024_14", 14)])
def test_matterport_crop_and_resize(name, size):
    figures = case("mrcnn_3_pyramid_roi_align")
    height, width = (
        int(n) for n in figures.meta["arrays"][name]["doc"].split("image_shape (")[1].split(")")[0].split(",")
    )
    normalised = torch.from_numpy(figures["boxes"])[0][:, YX]
    # The stored maps are those of a 128 x 96 image; which level a box is on depends on the size that is stated.
    channels = figures[name].shape[-1]
    maps = [
        torch.from_numpy(figures.normal(f"roialign:feat{i}", (1, 32 >> i, 24 >> i, channels), 1.0)).permute(0, 3, 1, 2)
        for i in range(4)
    ]
    level = choose_levels(
        normalised, finest=2, coarsest=5, rule="round_log2", canonical_size=224 / (height * width) ** 0.5
    )
    last = torch.tensor([width - 1, height - 1, width - 1, height - 1])
    found = pool_rois(
        maps,
        [(m.shape[2] / height, m.shape[3] / width) for m in maps],
        normalised * last,
        torch.zeros(len(level), dtype=torch.int64),
        level - 2,
        output_size=size,
        sampler="crop_and_resize",
        image_size=(height, width),
    )
    assert_near(found.permute(0, 2, 3, 1).numpy(), figures[name][0], OP_TOLERANCE * 10)
