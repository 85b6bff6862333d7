from __future__ import annotations

import pytest
import torch

from fpn.errors import ConfigError
from fpn.shapes import Size
from fpn.structures import Skeleton
from fpn.structures.keypoints import COCO_PERSON, cut_keypoints, map_keypoints

FACE = Skeleton(("nose", "left eye", "right eye"), flip_pairs=((1, 2),))
# Seen at (5, 2), hidden at (3, 1), not labelled.
POINTS = torch.tensor([[[5.0, 2.0, 2.0], [3.0, 1.0, 1.0], [0.0, 0.0, 0.0]]])


def test_cocos_person_has_seventeen_keypoints_in_eight_pairs() -> None:
    assert len(COCO_PERSON) == len(COCO_PERSON.sigmas) == 17
    assert COCO_PERSON.names[:3] == ("nose", "left_eye", "right_eye")
    for one, other in COCO_PERSON.flip_pairs:
        assert COCO_PERSON.names[one].replace("left", "right") == COCO_PERSON.names[other]
    assert len(COCO_PERSON.edges) == 19
    assert COCO_PERSON.edges[0] == (COCO_PERSON.names.index("left_ankle"), COCO_PERSON.names.index("left_knee"))


def test_pairs_are_found_by_left_and_right_in_the_names() -> None:
    assert Skeleton.named(("tail", "Left wing", "right wing", "left")).flip_pairs == ((1, 2),)
    assert Skeleton.named(COCO_PERSON.names).sigmas == COCO_PERSON.sigmas
    assert Skeleton.named(("a", "b")).sigmas == ()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"flip_pairs": ((0, 2),)}, "flip_pairs names keypoint 2, there are 0 to 1"),
        ({"edges": ((-1, 0),)}, "edges names keypoint -1"),
        ({"flip_pairs": ((0, 1), (1, 0))}, "in two flip_pairs"),
        ({"sigmas": (0.1,)}, "1 sigmas for 2 keypoints"),
    ],
)
def test_a_skeleton_that_contradicts_itself_is_refused(fields: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Skeleton(("a", "b"), **fields)


def test_labelled_points_move_and_the_others_stay_zero() -> None:
    moved = map_keypoints(POINTS, scale=(10.0, 2.0), offset=(3.0, 1.0))
    assert moved.tolist() == [[[11, 23, 2], [7, 13, 1], [0, 0, 0]]]
    scored = map_keypoints(POINTS, scale=(10.0, 2.0), offset=(3.0, 1.0), scored=True)
    assert scored[0, 2].tolist() == [1, 3, 0]


def test_points_outside_of_a_cut_are_no_longer_labelled() -> None:
    assert cut_keypoints(POINTS, Size(6, 5)).equal(POINTS)
    assert cut_keypoints(POINTS, Size(6, 4)).tolist() == [[[0, 0, 0], [3, 1, 1], [0, 0, 0]]]
