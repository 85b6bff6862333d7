import math

import numpy as np
import pytest
import torch

from fpn.data.synthetic.scenes import CORNERS, SceneDataset
from fpn.data.synthetic.shapes import SHAPES, Pose
from fpn.errors import ConfigError


def test_a_scene_depends_on_seed_and_index_alone():
    asked_in_order = SceneDataset(4, seed=7)
    images = [np.asarray(sample.image) for sample in asked_in_order]
    asked_once = SceneDataset(1000, seed=7)[2]
    np.testing.assert_array_equal(np.asarray(asked_once.image), images[2])
    assert asked_once.targets.boxes.tolist() == asked_in_order.targets(2).boxes.tolist()


def test_another_seed_or_index_gives_another_scene():
    first, second = SceneDataset(2, seed=0, width=256), SceneDataset(2, seed=1, width=256)
    scenes = [np.asarray(sample.image, dtype=int) for dataset in (first, second) for sample in dataset]
    for number, one in enumerate(scenes):
        for other in scenes[number + 1 :]:
            assert abs(one - other).mean() > 10


def test_boxes_fit_tightly_around_the_visible_masks():
    scenes = SceneDataset(20, seed=3)
    for index in range(len(scenes)):
        targets = scenes.targets(index, masks=True)
        masks = targets.masks.dense()
        assert masks.shape == (len(targets), *scenes.size(index))
        for box, mask in zip(targets.boxes.tolist(), masks, strict=True):
            y, x = mask.nonzero().T
            assert box == [x.min(), y.min(), x.max() + 1, y.max() + 1]


def test_no_pixel_belongs_to_two_objects():
    scenes = SceneDataset(20, seed=3, objects=(8, 12))
    for index in range(len(scenes)):
        masks = scenes.targets(index, masks=True).masks.dense()
        assert masks.sum(dim=0).max() == 1


def test_objects_have_the_asked_extent_and_are_at_least_half_visible():
    scenes = SceneDataset(40, seed=0, objects=(5, 9), extent=(20.0, 40.0))
    for index in range(len(scenes)):
        boxes = scenes.targets(index).boxes
        sides = (boxes[:, 2:] - boxes[:, :2]).amax(dim=1)
        # Half of an area is visible: at least a third of the extent, for these shapes; and antialiasing adds a pixel.
        assert sides.min() >= 20 / 3
        assert sides.max() <= 41


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("extent", [8.0, 60.0, 150.0])
def test_a_whole_shape_is_as_long_as_its_extent(shape, extent):
    pose = Pose(shape, x=200.25, y=199.5, extent=extent, angle=0.7, stretch=1.2)
    patch = pose.patch()
    y, x = (patch.coverage >= 128).nonzero()
    longer = max(np.ptp(x), np.ptp(y)) + 1
    # Sharp tips cover less than half of their last pixels.
    assert extent - 3 <= longer <= extent + 1.5
    middle = (patch.left + (x.min() + x.max() + 1) / 2, patch.top + (y.min() + y.max() + 1) / 2)
    if shape in ("disc", "ring", "square", "cross"):
        assert middle == pytest.approx((200.25, 199.5), abs=0.8)


def test_areas_of_simple_shapes_are_those_of_geometry():
    def area(shape):
        pose = Pose(shape, x=100.0, y=100.0, extent=100.0, angle=0.0, stretch=1.0)
        return (pose.patch().coverage / 255).sum()

    assert area("disc") == pytest.approx(math.pi * 50**2, rel=0.02)
    assert area("square") == pytest.approx(100**2, rel=0.02)
    assert area("ring") == pytest.approx(math.pi * 50**2 * (1 - 0.55**2), rel=0.03)
    # Two bars of 0.34 of the side, which share the middle.
    assert area("cross") == pytest.approx(100**2 * (2 * 0.34 - 0.34**2), rel=0.03)


def test_objects_can_be_seen():
    """The painted image differs from the ground around inside an object's mask."""
    scenes = SceneDataset(30, seed=5, objects=(1, 1), extent=(40.0, 60.0))
    differences = []
    for index, sample in enumerate(scenes):
        masks = scenes.targets(index, masks=True).masks.dense()
        if len(masks):
            pixels, inside = np.asarray(sample.image, dtype=float), masks[0].numpy()
            differences.append(np.abs(pixels[inside].mean(axis=0) - pixels[~inside].mean(axis=0)).max())
    assert np.quantile(differences, 0.1) > 25


def test_a_scene_may_be_without_objects():
    empty = SceneDataset(1, objects=(0, 0))
    sample = empty[0]
    assert len(sample.targets) == 0
    assert sample.targets.boxes.shape == (0, 4)
    masks = empty.targets(0, masks=True).masks
    assert masks.dense().shape == (0, *empty.size(0))


def test_all_shapes_and_every_octave_of_extent_appear():
    scenes = SceneDataset(150, seed=0)
    targets = [scenes.targets(index) for index in range(len(scenes))]
    assert set(torch.cat([t.labels for t in targets]).tolist()) == {0, 1, 2, 3, 4, 5}
    boxes = torch.cat([t.boxes for t in targets])
    octaves = (boxes[:, 2:] - boxes[:, :2]).amax(dim=1).log2().floor()
    for octave in (3, 4, 5, 6, 7):  # 8.., 16.., 32.., 64.., 128.. pixels
        assert (octaves == octave).float().mean() > 0.08


def test_ids_paths_and_sizes_follow_the_datasets_rules():
    scenes = SceneDataset(10, seed=4, height=(100, 140), width=200)
    part = scenes.subset([7, 2])
    assert part[0].image_id == 8
    assert part[1].path == "scene 2 of seed 4"
    assert part.size(1) == scenes.size(2)
    assert {scenes.size(index).width for index in range(10)} == {200}
    assert len({scenes.size(index).height for index in range(10)}) > 3
    image = scenes[3].image
    assert (image.height, image.width) == scenes.size(3)


def test_coco_masks_decode_to_the_masks():
    from hotcoco import mask as coco_mask

    scenes = SceneDataset(3, seed=1, height=64, width=80, extent=(8.0, 60.0))
    truth = scenes.coco()
    assert [category["name"] for category in truth["categories"]] == list(SHAPES)
    for index in range(3):
        masks = scenes.targets(index, masks=True).masks.dense()
        records = [record for record in truth["annotations"] if record["image_id"] == index + 1]
        assert len(records) == len(masks) > 0
        for record, mask in zip(records, masks.numpy(), strict=True):
            decoded = coco_mask.decode(coco_mask.frPyObjects(record["segmentation"], 64, 80))
            np.testing.assert_array_equal(decoded, mask)
            assert record["area"] == mask.sum()


@pytest.mark.parametrize(
    "settings",
    [
        {"count": -1},
        {"count": 1, "seed": -1},
        {"count": 1, "objects": (3, 2)},
        {"count": 1, "extent": (2.0, 10.0)},
        {"count": 1, "extent": (100.0, 120.0), "height": 64},
    ],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError):
        SceneDataset(**settings)


def test_corners_are_the_ends_of_the_whole_outline() -> None:
    """A square of side 20 that stands on a corner: its four corners."""
    pose = Pose("square", x=50.0, y=40.0, extent=20.0, angle=math.pi / 4, stretch=1.0)
    assert pose.corners() == pytest.approx(np.array([[50, 30], [60, 40], [50, 50], [40, 40]]))
    assert pose.corners(inset=0.5) == pytest.approx(np.array([[50, 35], [55, 40], [50, 45], [45, 40]]))


def test_scenes_have_keypoints_when_asked_and_are_the_same_scenes() -> None:
    plain, pointed = SceneDataset(40, seed=3), SceneDataset(40, seed=3, keypoints=True)
    assert plain.skeleton is None
    assert pointed.skeleton is CORNERS
    seen = []
    for index in range(40):
        bare, targets, size = plain.targets(index), pointed.targets(index), pointed.size(index)
        assert torch.equal(bare.boxes, targets.boxes)
        assert bare.keypoints is None
        assert targets.keypoints is not None
        x, y, shown = targets.keypoints.unbind(-1)
        seen += shown.flatten().tolist()
        assert bool(((shown > 0) == ((x > 0) & (x < size.width) & (y > 0) & (y < size.height))).all())
        whole = (shown == 2).all(dim=1)
        around = torch.stack((x[:, 3], y[:, 0], x[:, 1], y[:, 2]), dim=1)
        # Where all four are seen, the box is around them but for the rounding to whole pixels.
        assert bool(((around - targets.boxes)[whole].abs() < 1.5).all())
    assert {0.0, 1.0, 2.0} == set(seen)
    assert seen.count(2.0) > len(seen) / 2


def test_without_classes_all_objects_are_one_class_and_nothing_else_changes() -> None:
    scenes = SceneDataset(3, seed=4, objects=(2, 5))
    plain = scenes.without_classes()
    assert list(plain.classes) == ["object"]
    assert plain.without_classes() is plain
    for index in range(3):
        own, given = plain.targets(index, masks=True), scenes.targets(index, masks=True)
        assert own.labels.tolist() == [0] * len(given)
        assert torch.equal(own.boxes, given.boxes)
        assert own.masks == given.masks
    truth = plain.subset([2]).coco()
    assert truth["categories"] == [{"id": 1, "name": "object"}]
    assert {each["category_id"] for each in truth["annotations"]} == {1}
    assert len(truth["annotations"]) == len(scenes.targets(2))
    assert len(scenes.classes) == 6
