import numpy as np
import pytest
import torch
from PIL import Image

from fpn.data.dataset import Sample
from fpn.data.loading.augmentation.augment import Augment
from fpn.data.loading.augmentation.chances import random_for
from fpn.data.loading.augmentation.compositing import Partners
from fpn.data.synthetic.scenes import SceneDataset
from fpn.errors import ConfigError
from fpn.shapes import Size
from fpn.structures import Masks, Targets


def sample_of(boxes, *, width=100, height=60, ignore=None, masks=None):
    """A black image with white boxes."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    for x1, y1, x2, y2 in boxes:
        pixels[y1:y2, x1:x2] = 255
    labels = torch.arange(len(boxes))
    flags = torch.tensor(ignore or [False] * len(boxes), dtype=torch.bool)
    if masks is not None:
        masks = Masks.from_dense(masks, Size(height, width))
    targets = Targets(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), labels, flags, masks)
    return Sample(Image.fromarray(pixels), targets, image_id=1, path="drawn")


def box_of_white(image):
    y, x = (np.asarray(image)[:, :, 0] > 127).nonzero()
    return [x.min(), y.min(), x.max() + 1, y.max() + 1]


def test_a_flip_mirrors_image_boxes_and_masks():
    masks = torch.zeros(1, 60, 100, dtype=torch.bool)
    masks[0, 20:50, 10:30] = True
    changed = Augment(flip=1.0)(sample_of([[10, 20, 30, 50]], masks=masks), random_for(0, 0, 0))
    assert changed.targets.boxes.tolist() == [[70, 20, 90, 50]]
    assert box_of_white(changed.image) == [70, 20, 90, 50]
    assert changed.targets.masks is not None
    assert changed.targets.masks.boxes().tolist() == [[70, 20, 90, 50]]
    assert changed.targets.masks.areas().tolist() == [600]


def test_a_vertical_flip_turns_upside_down():
    changed = Augment(flip=0.0, vertical_flip=1.0)(sample_of([[10, 20, 30, 50]]), random_for(0, 0, 0))
    assert changed.targets.boxes.tolist() == [[10, 10, 30, 40]]
    assert box_of_white(changed.image) == [10, 10, 30, 40]


def test_boxes_types_stay_plain_tensors():
    changed = Augment(flip=1.0, scale=(2.0, 2.0), colour=1.0)(sample_of([[10, 20, 30, 50]]), random_for(0, 0, 0))
    assert type(changed.targets.boxes) is torch.Tensor
    assert changed.targets.boxes.dtype == torch.float32


@pytest.mark.parametrize("index", range(20))
def test_zooming_in_keeps_pixels_and_cuts_boxes(index):
    sample = sample_of([[40, 20, 60, 40]])
    changed = Augment(flip=0.0, scale=(2.0, 2.0))(sample, random_for(0, 0, index))
    assert changed.image.size == (50, 30)
    # The centre of the only object is inside, so a quarter of it is left at least.
    assert changed.targets.boxes.tolist() == [box_of_white(changed.image)]
    x1, y1, x2, y2 = changed.targets.boxes[0].tolist()
    left = (x2 - x1) * (y2 - y1) / 400
    assert left >= 0.25
    assert changed.targets.ignore.tolist() == [left < 0.3]


@pytest.mark.parametrize("index", range(20))
def test_zooming_out_keeps_the_whole_image(index):
    changed = Augment(flip=0.0, scale=(0.5, 0.5))(sample_of([[40, 20, 60, 40]]), random_for(0, 0, index))
    assert changed.image.size == (200, 120)
    assert changed.targets.boxes.tolist() == [box_of_white(changed.image)]
    assert changed.targets.boxes[0, 2] - changed.targets.boxes[0, 0] == 20


def test_what_is_cut_away_is_dropped_or_ignored():
    # A cut of 50x30 around the object in the upper left corner starts at (0, 0) in x and y: its centre is (2, 2).
    boxes = [[0, 0, 4, 4], [45, 0, 65, 10], [40, 0, 60, 10], [80, 40, 90, 50]]
    sample = sample_of(boxes, ignore=[False, True, True, True])
    for index in range(200):
        changed = Augment(flip=0.0, scale=(2.0, 2.0), min_visible=0.3)(sample, random_for(0, 0, index))
        if changed.targets.boxes[0].tolist() == [0, 0, 4, 4]:
            break
    assert changed.targets.boxes.tolist() == [[0, 0, 4, 4], [45, 0, 50, 10], [40, 0, 50, 10]]
    assert changed.targets.labels.tolist() == [0, 1, 2]
    sample = sample_of(boxes)
    for index in range(500):
        changed = Augment(flip=0.0, scale=(2.0, 2.0), min_visible=0.3)(sample, random_for(0, 0, index))
        if changed.targets.boxes[0].tolist() == [0, 0, 4, 4]:
            break
    # A quarter of the second is left: neither object nor background; half of the third: still an object.
    assert changed.targets.ignore.tolist() == [False, True, False]


def test_a_cut_box_is_tight_around_what_its_mask_still_shows():
    mask = torch.zeros(1, 60, 100, dtype=torch.bool)
    mask[0, 10:20, 10:90] = True  # an L lying on its side:
    mask[0, 20:50, 80:90] = True  # the lower arm is at the right
    scenes_left = 0
    for index in range(60):
        changed = Augment(flip=0.0, scale=(1.4, 1.4))(
            sample_of([[10, 10, 90, 50]], masks=mask), random_for(0, 0, index)
        )
        if len(changed.targets) == 0:
            continue
        assert changed.targets.masks is not None
        y, x = changed.targets.masks.dense()[0].nonzero().T
        assert changed.targets.boxes[0].tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]
        scenes_left += int(y.max() + 1 - y.min() == 10)
    assert scenes_left > 0


def test_boxes_and_masks_of_scenes_stay_together():
    scenes = SceneDataset(12, seed=2)
    augment = Augment(flip=0.5, vertical_flip=0.5, scale=(0.6, 1.8), colour=0.5)
    for index in range(len(scenes)):
        whole = scenes[index]
        sample = Sample(whole.image, scenes.targets(index, masks=True), whole.image_id, whole.path)
        changed = augment(sample, random_for(0, 3, index))
        targets, size = changed.targets, (changed.image.height, changed.image.width)
        assert targets.masks is not None
        assert (len(targets.masks), targets.masks.size) == (len(targets), size)
        for box, mask in zip(targets.boxes.tolist(), targets.masks.dense(), strict=True):
            y, x = mask.nonzero().T
            assert box == [x.min(), y.min(), x.max() + 1, y.max() + 1]


def test_colour_changes_pixels_but_not_boxes():
    sample = SceneDataset(1)[0]
    changed = Augment(flip=0.0, colour=1.0)(sample, random_for(0, 0, 0))
    assert changed.targets.boxes.equal(sample.targets.boxes)
    assert np.abs(np.asarray(changed.image, dtype=int) - np.asarray(sample.image)).mean() > 3


def test_grey_stays_grey_under_all_colour_changes():
    """Hue and saturation leave it alone; brightness and contrast change all channels alike, within 0.6 to 1.4."""
    levels = np.linspace(40, 160, 64, dtype=np.uint8).reshape(8, 8)
    sample = Sample(Image.fromarray(np.stack([levels] * 3, axis=2)), Targets.empty(), 1, "drawn")
    brightest, darkest = 0.0, 1000.0
    for index in range(50):
        changed = np.asarray(Augment(flip=0.0, colour=1.0)(sample, random_for(0, 0, index)).image, dtype=int)
        assert np.ptp(changed, axis=2).max() <= 1
        brightest, darkest = max(brightest, changed.mean()), min(darkest, changed.mean())
    assert 100 * 1.2 < brightest <= 101 * 1.4
    assert 99 * 0.6 <= darkest < 100 * 0.8


def test_a_hue_change_turns_colours_about_grey():
    red = Sample(Image.new("RGB", (8, 8), (180, 90, 90)), Targets.empty(), 1, "drawn")
    turned = [Augment(flip=0.0, colour=1.0)(red, random_for(0, 0, index)).image.getpixel((0, 0)) for index in range(50)]
    # Towards yellow in some, towards purple in others; never the other side of the circle.
    assert any(green > blue + 10 for _, green, blue in turned)
    assert any(blue > green + 10 for _, green, blue in turned)
    assert all(r >= max(green, blue) for r, green, blue in turned)


def test_changes_are_a_function_of_seed_epoch_and_index():
    sample, augment = SceneDataset(1)[0], Augment(scale=(0.5, 2.0), colour=1.0)

    def once(*key):
        torch.rand(3)  # what others draw from torch's own source doesn't matter
        changed = augment(sample, random_for(*key))
        return changed.image.tobytes(), changed.targets.boxes.tolist()

    assert once(1, 2, 3) == once(1, 2, 3)
    assert len({once(*key)[0] for key in [(1, 2, 3), (2, 2, 3), (1, 3, 3), (1, 2, 4), (3, 2, 1)]}) == 5


def test_todays_changes_are_what_they_were():
    """Numbers of the first version: runs that were begun with it go on with the same images."""
    scene = SceneDataset(1, seed=2)[0]
    changed = Augment(scale=(0.5, 2.0))(scene, random_for(0, 1, 5))
    # 310 x 256 before, zoomed by 1.71: a cut that begins at x 15, y 18.
    assert changed.image.size == (181, 150)
    assert changed.targets.boxes.tolist() == [[0, 81, 75, 150], [66, 146, 75, 150], [78, 109, 154, 150]]


def test_one_change_leaves_the_chances_of_the_others_alone():
    sample, other = sample_of([[10, 20, 30, 50]]), Partners(1, lambda number: sample_of([], width=70))
    for index in range(12):
        alone = Augment(crop=0.5, rotate=0.5)(sample, random_for(0, 0, index))
        beside = Augment(crop=0.5, rotate=0.5, mix_up=1.0, blur=1.0, noise=1.0)(sample, random_for(0, 0, index), other)
        assert beside.targets.boxes.equal(alone.targets.boxes)
        assert beside.image.size == alone.image.size


def test_mosaic_without_other_images_is_refused():
    with pytest.raises(ConfigError, match="mosaic, mix-up and copy-paste need other images"):
        Augment(mosaic=0.1)(sample_of([]), random_for(0, 0, 0))


def test_masks_are_wanted_for_pasting_alone():
    assert [Augment(**{name: 0.1}).wants_masks for name in ("copy_paste", "mosaic", "mix_up")] == [True, False, False]


def test_images_are_read_as_large_as_the_greatest_zoom_needs_them():
    assert Augment().config.zoom == 1.0
    assert Augment(scale=(0.5, 0.8)).config.zoom == 0.8
    assert Augment(scale=(1.0, 2.0), jitter=(0.5, 1.5), crop=0.1, crop_sides=(0.25, 1.0)).config.zoom == 12.0


def test_torchs_own_source_is_left_alone():
    before = torch.get_rng_state()
    Augment(scale=(0.5, 2.0), colour=1.0)(SceneDataset(1)[0], random_for(0, 0, 0))
    assert torch.get_rng_state().equal(before)


def test_half_of_the_images_are_flipped():
    sample, augment = sample_of([[10, 20, 30, 50]]), Augment(flip=0.5)
    flipped = [augment(sample, random_for(0, 0, index)).targets.boxes[0, 0] == 70 for index in range(400)]
    assert 160 < sum(bool(each) for each in flipped) < 240


@pytest.mark.parametrize(
    "settings", [Augment(), Augment(flip=1.0, scale=(2.0, 2.0)), Augment(flip=1.0, scale=(0.5, 0.5))]
)
def test_a_image_without_objects_stays_one(settings):
    changed = settings(sample_of([]), random_for(0, 0, 0))
    assert changed.targets.boxes.shape == (0, 4)


def test_a_image_of_one_pixel_survives():
    changed = Augment(flip=1.0, scale=(10.0, 10.0), colour=1.0)(sample_of([], width=1, height=1), random_for(0, 0, 0))
    assert changed.image.size == (1, 1)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"flip": 1.5}, r"flip 1\.5: expected 1 or less"),
        ({"colour": -1.0}, "colour -1"),
        ({"scale": (2.0, 1.0)}, r"scale 2 1: expected least and greatest, from 0\.1 to 10"),
        ({"scale": (0.0, 1.0)}, "scale 0 1"),
        ({"jpeg_quality": (20, 99)}, "jpeg_quality 20 99: expected least and greatest, from 1 to 95"),
        ({"copy_paste_objects": 0}, "copy_paste_objects 0"),
        ({"mosiac": 0.5}, r"unknown setting 'mosiac'\. Did you mean 'mosaic'"),
    ],
)
def test_settings_out_of_range_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        Augment(**settings)
