"""What toolkits' masks and keypoints are like, and that every such setting reaches the detector."""

from __future__ import annotations

import pytest
from torch import nn

from fpn.detectors.builder import build_keypoint_head, build_mask_head
from fpn.detectors.roi_toolkits import KEYPOINT_DIALECTS, MASK_DIALECTS, with_keypoints, with_masks
from fpn.detectors.toolkits import DIALECTS, PAPER
from fpn.features.frozen import FrozenNorm
from fpn.heads.keypoint import KeypointConfig
from fpn.heads.mask import MaskConfig
from fpn.sections import options_of
from fpn.structures import Level

LEVELS = tuple(Level(f"p{k}", 6, 2**k, k) for k in (2, 3, 4, 5, 6))

OTHER_MASKS = {
    "roi_size": 7,
    "convolutions": 2,
    "channels": 5,
    "norm": "batch",
    "class_agnostic": True,
    "sampling": "pixels",
    "aligned": False,
    "threshold": None,
}
OTHER_KEYPOINTS = {"roi_size": 7, "convolutions": 2, "channels": 5, "normaliser": "sampled", "score": "logit"}


def fingerprint(head: nn.Module) -> list[str]:
    shapes = {name: tuple(value.shape) for name, value in head.state_dict().items()}
    return [repr(head.config), repr(head.pooler), repr(shapes)]


def test_no_setting_is_forgotten_here() -> None:
    assert {option.path for option in options_of(MaskConfig)} == set(OTHER_MASKS)
    assert {option.path for option in options_of(KeypointConfig)} == set(OTHER_KEYPOINTS)


@pytest.mark.parametrize("name", OTHER_MASKS)
def test_a_setting_of_masks_reaches_the_head(name: str) -> None:
    small = with_masks(PAPER).changed(mask_channels=4)
    other = small.changed(mask={name: OTHER_MASKS[name]})
    assert fingerprint(build_mask_head(LEVELS, 3, other)) != fingerprint(build_mask_head(LEVELS, 3, small))


@pytest.mark.parametrize("name", OTHER_KEYPOINTS)
def test_a_setting_of_keypoints_reaches_the_head(name: str) -> None:
    small = with_keypoints(PAPER).changed(keypoint_channels=4)
    other = small.changed(keypoint={name: OTHER_KEYPOINTS[name]})
    assert fingerprint(build_keypoint_head(LEVELS, 3, other)) != fingerprint(build_keypoint_head(LEVELS, 3, small))


def test_they_read_the_levels_and_in_the_way_that_boxes_do() -> None:
    for name, dialect in MASK_DIALECTS.items():
        pooler = build_mask_head(LEVELS, 1, dialect.changed(mask={"channels": 1, "convolutions": 1})).pooler
        assert [level.name for level in pooler.levels] == ["p2", "p3", "p4", "p5"]
        assert pooler.config == DIALECTS[name].roi.changed(output_size=14)


def test_the_other_sections_are_those_of_the_toolkits_faster_rcnn() -> None:
    assert list(MASK_DIALECTS) == list(KEYPOINT_DIALECTS) == list(DIALECTS)
    for name, dialect in DIALECTS.items():
        for other in (MASK_DIALECTS[name], KEYPOINT_DIALECTS[name]):
            assert all(getattr(other, field) == getattr(dialect, field) for field in type(dialect).model_fields)


def test_toolkits_differ_in_what_a_mask_shall_become() -> None:
    said = {name: MASK_DIALECTS[name].mask for name in ("detectron2", "torchvision", "mmdetection")}
    assert [each.sampling for each in said.values()] == ["outline", "pixels", "pixels"]
    assert [each.threshold for each in said.values()] == [0.5, None, 0.5]


def test_matterports_convolutions_have_biases_beside_their_norms() -> None:
    head = build_mask_head(LEVELS, 2, MASK_DIALECTS["matterport"].changed(mask_channels=4))
    convolution, norm, _ = head.tower[0]
    assert convolution.bias is not None
    assert type(norm) is FrozenNorm
    assert norm.eps == 1e-3


def test_the_normaliser_of_keypoints_counts_what_may_be_sampled() -> None:
    dialect = with_keypoints(PAPER).changed(keypoint_channels=4, box_sampling_count=64)
    assert build_keypoint_head(LEVELS, 2, dialect).most_positive == 64 * 0.25
