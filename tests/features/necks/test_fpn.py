from __future__ import annotations

import pytest
import torch
from torch import nn

from features.given import C2, C3, given, incoming, maps_of, plain_pyramid, pyramid_of, times
from fpn.errors import ConfigError
from fpn.features.necks.config import NeckConfig
from fpn.features.necks.fpn import FeaturePyramid
from fpn.structures import Level

C5 = torch.tensor([[1.0, -2.0, 3.0], [-4.0, 5.0, -6.0], [7.0, -8.0, 9.0]])


def test_merge_adds_the_unsmoothed_level() -> None:
    # Smoothing doubles. p2 is twice (c2 + c3), not twice (c2 + twice c3).
    maps = maps_of(plain_pyramid())
    assert maps["p3"] == [[200, 400], [600, 800]]
    assert maps["p2"] == [
        [202, 204, 406, 408],
        [210, 212, 414, 416],
        [618, 620, 822, 824],
        [626, 628, 830, 832],
    ]


def test_smooth_before_merge_sends_the_smoothed_level_down() -> None:
    maps = maps_of(plain_pyramid(smooth_before_merge=True))
    assert maps["p3"] == [[200, 400], [600, 800]]
    assert maps["p2"][0] == [402, 404, 806, 808]
    assert maps["p2"][3] == [1226, 1228, 1630, 1632]


def test_all_but_top_leaves_the_coarsest_level_as_it_is() -> None:
    maps = maps_of(plain_pyramid(smoothed="all_but_top"))
    assert maps["p3"] == [[100, 200], [300, 400]]
    assert maps["p2"][0] == [202, 204, 406, 408]


def test_none_smoothed_emits_the_plain_sums() -> None:
    maps = maps_of(plain_pyramid(smoothed="none"))
    assert maps["p2"][0] == [101, 102, 203, 204]


def test_bilinear_weighs_cell_centres_three_to_one() -> None:
    # Row 0 of the doubled [[100, 200], ...]: 100, 3/4*100 + 1/4*200, 1/4*100 + 3/4*200, 200.
    maps = maps_of(plain_pyramid(top_down="bilinear", smoothed="none"), {2: torch.zeros(4, 4), 3: C3})
    assert maps["p2"][0] == [100, 125, 175, 200]
    assert [row[0] for row in maps["p2"]] == [100, 150, 250, 300]


def test_bilinear_corners_stretches_from_corner_to_corner() -> None:
    given_maps = {2: torch.zeros(4, 4), 3: torch.tensor([[0.0, 3.0], [30.0, 33.0]])}
    maps = maps_of(plain_pyramid(top_down="bilinear_corners", smoothed="none"), given_maps)
    torch.testing.assert_close(
        torch.tensor(maps["p2"]),
        torch.tensor(
            [[0.0, 1.0, 2.0, 3.0], [10.0, 11.0, 12.0, 13.0], [20.0, 21.0, 22.0, 23.0], [30.0, 31.0, 32.0, 33.0]]
        ),
    )


def test_top_down_goes_to_the_size_of_the_lateral_be_it_odd() -> None:
    given_maps = {2: torch.zeros(3, 5), 3: torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])}
    maps = maps_of(plain_pyramid(smoothed="none"), given_maps)
    assert maps["p2"] == [[1, 1, 2, 2, 3], [1, 1, 2, 2, 3], [4, 4, 5, 5, 6]]


def test_without_top_down_each_level_stands_alone() -> None:
    maps = maps_of(plain_pyramid(top_down="none"))
    assert maps["p2"] == (2 * C2).tolist()
    assert maps["p3"] == (2 * C3).tolist()


def test_lateral_top_lets_only_the_coarsest_map_in() -> None:
    maps = maps_of(plain_pyramid(lateral="top", smoothed="none"))
    assert maps["p2"] == [
        [100, 100, 200, 200],
        [100, 100, 200, 200],
        [300, 300, 400, 400],
        [300, 300, 400, 400],
    ]


def test_emitted_finest_gives_the_same_p2_and_nothing_else() -> None:
    pyramid = plain_pyramid(emitted="finest")
    assert [level.name for level in pyramid.levels] == ["p2"]
    assert list(pyramid.smooths) == ["p2"]
    assert maps_of(pyramid) == {"p2": maps_of(plain_pyramid())["p2"]}


def test_top_kernel_is_that_of_the_coarsest_lateral_alone() -> None:
    pyramid = plain_pyramid(top_kernel=3)
    assert pyramid.laterals["c3"].kernel_size == (3, 3)
    assert pyramid.laterals["c2"].kernel_size == (1, 1)
    nn.init.ones_(pyramid.laterals["c3"].weight)
    # A 3x3 of ones over a 2x2 map sums all four of its cells everywhere: 1000, and smoothing doubles.
    assert maps_of(pyramid)["p3"] == [[2000, 2000], [2000, 2000]]


def test_subsampling_takes_every_second_cell_of_the_smoothed_top() -> None:
    pyramid = plain_pyramid(5, extra_levels="subsample")
    assert maps_of(pyramid, {5: C5})["p6"] == [[2, 6], [14, 18]]
    assert pyramid.levels == (Level("p5", 1, 32, 5), Level("p6", 1, 64, 6))


def test_convolutions_on_c5_start_from_what_comes_in() -> None:
    # P5 is smoothed to twice c5, P6 is 10 x c5 all the same; the ReLU before P7 drops -20.
    pyramid = plain_pyramid(5, extra_levels="convolutions_on_c5")
    times(pyramid.extras["p6"], 10.0)
    times(pyramid.extras["p7"], 1.0)
    maps = maps_of(pyramid, {5: C5 - 3})
    assert maps["p6"] == [[-20, 0], [40, 60]]
    assert maps["p7"] == [[0]]
    assert [level.stride for level in pyramid.levels] == [32, 64, 128]


def test_convolutions_on_p5_start_from_the_smoothed_top() -> None:
    pyramid = plain_pyramid(5, extra_levels="convolutions_on_p5")
    times(pyramid.extras["p6"], 10.0)
    times(pyramid.extras["p7"], 1.0)
    assert maps_of(pyramid, {5: C5})["p6"] == [[20, 60], [140, 180]]


def test_without_extra_relu_negative_cells_reach_p7() -> None:
    pyramid = plain_pyramid(5, extra_levels="convolutions_on_c5", extra_relu=False)
    times(pyramid.extras["p6"], 10.0)
    times(pyramid.extras["p7"], 1.0)
    assert maps_of(pyramid, {5: C5 - 3})["p7"] == [[-20]]


def test_num_extra_adds_that_many_levels() -> None:
    pyramid = plain_pyramid(5, extra_levels="subsample", num_extra=2)
    assert maps_of(pyramid, {5: C5})["p7"] == [[2]]
    assert pyramid.levels[-1] == Level("p7", 1, 128, 7)


def test_extra_levels_sit_above_c3_when_that_is_the_coarsest() -> None:
    pyramid = plain_pyramid(extra_levels="subsample")
    assert [(level.name, level.stride) for level in pyramid.levels] == [("p2", 4), ("p3", 8), ("p4", 16)]
    assert maps_of(pyramid)["p4"] == [[200]]


def test_an_extra_level_doubles_the_stride_that_is_declared_not_two_to_the_k() -> None:
    pyramid = pyramid_of((Level("c5", 1, 16, 5),), channels=1, extra_levels="subsample")
    assert pyramid.levels[-1] == Level("p6", 1, 32, 6)


def test_numbers_are_those_declared_whatever_the_maps_are_called() -> None:
    pyramid = pyramid_of((Level("stage_3", 1, 16, 4), Level("stage_4", 1, 32, 5)), channels=1)
    assert [(level.name, level.number) for level in pyramid.levels] == [("p4", 4), ("p5", 5), ("p6", 6)]
    assert list(pyramid.laterals) == ["stage_3", "stage_4"]


def test_a_pyramid_reads_its_own_maps_and_leaves_others_alone() -> None:
    pyramid = plain_pyramid(2, extra_levels="convolutions_on_c5", num_extra=1)
    times(pyramid.extras["p3"], 10.0)
    maps = maps_of(pyramid, {2: C2, 3: C3})
    assert list(maps) == ["p2", "p3"]
    assert maps["p3"] == [[10, 30], [90, 110]]


def test_a_neck_without_maps_is_refused() -> None:
    with pytest.raises(ConfigError, match="FeaturePyramid got no levels"):
        FeaturePyramid((), config=NeckConfig())


def test_output_channels_are_those_of_every_emitted_level() -> None:
    pyramid = pyramid_of(incoming(2, 3), channels=6, output_channels=2)
    assert [level.channels for level in pyramid.levels] == [2, 2, 2]
    assert pyramid.laterals["c2"].out_channels == 6
    assert [map_.shape[1] for map_ in pyramid(given({2: C2, 3: C3})).values()] == [2, 2, 2]


@pytest.mark.parametrize("options", [{"smoothed": "none"}, {"smoothed": "all_but_top"}, {"smooth_before_merge": True}])
def test_another_output_width_needs_a_smoothing_after_every_merge(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="output_channels 2 differs from channels 6"):
        pyramid_of(incoming(2, 3), channels=6, output_channels=2, **options)


def test_bias_can_be_left_out() -> None:
    pyramid = plain_pyramid(bias=False)
    assert all(part.bias is None for part in [*pyramid.laterals.values(), *pyramid.smooths.values()])
    assert plain_pyramid().laterals["c2"].bias is not None


def test_convolutions_start_uniform_within_the_bound_of_kaiming_with_a_1() -> None:
    # a = 1: bound = sqrt(3 / fan_in); a 3x3 on 64 channels has fan_in 576.
    pyramid = pyramid_of(incoming(2), channels=64)
    weight = pyramid.smooths["p2"].weight
    bound = (3 / 576) ** 0.5
    assert 0.99 * bound < weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
    assert torch.equal(pyramid.smooths["p2"].bias, torch.zeros(64))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"extra_levels": "none", "num_extra": 1}, "num_extra is 1"),
        ({"top_down": "none", "lateral": "top"}, "without a source"),
        ({"emitted": "finest"}, "no place for extra_levels 'subsample'"),
    ],
)
def test_options_that_contradict_each_other_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        pyramid_of(incoming(2, 3), channels=1, **options)


def test_bfloat16_autocast_gives_bfloat16_maps_near_the_float32_ones() -> None:
    pyramid = pyramid_of(incoming(2, 3), channels=4)
    maps = given({2: C2 / 16, 3: C3 / 400})
    exact = pyramid(maps)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = pyramid(maps)
    for name, map_ in rough.items():
        assert map_.dtype == torch.bfloat16
        torch.testing.assert_close(map_.float(), exact[name], atol=0.05, rtol=0.05)
