import numpy as np
import pytest
import torch
from PIL import Image

from fpn.data.synthetic.scenes import SceneDataset
from fpn.drawing import _place, colour_of, contact_sheet, draw
from fpn.errors import ConfigError
from fpn.shapes import Size
from fpn.structures import OBJECT, Classes, Detections, Masks, Skeleton, Targets

CLASSES = Classes.of(["red cell", "platelet"])


def grey(width=200, height=120):
    return Image.new("RGB", (width, height), (128, 128, 128))


def found(boxes, scores, labels):
    return Detections(torch.tensor(boxes).reshape(-1, 4), torch.tensor(scores), torch.tensor(labels))


def changed(before, after):
    """Box around the pixels that differ."""
    y, x = (np.asarray(before) != np.asarray(after)).any(axis=2).nonzero()
    return [x.min(), y.min(), x.max() + 1, y.max() + 1]


def test_a_box_is_framed_in_its_classs_colour_and_its_inside_stays():
    image = grey()
    drawn = draw(image, found([[60.0, 50.0, 140.0, 100.0]], [0.9], [1]), CLASSES)
    assert drawn.getpixel((59, 75)) == colour_of(1)
    assert drawn.getpixel((140, 75)) == colour_of(1)
    assert drawn.getpixel((100, 100)) == colour_of(1)
    assert (np.asarray(drawn)[50:100, 60:140] == 128).all()


def test_the_image_given_is_left_as_it_was():
    image = grey()
    draw(image, found([[60.0, 50.0, 140.0, 100.0]], [0.9], [1]), CLASSES)
    assert (np.asarray(image) == 128).all()


@pytest.mark.parametrize(
    "box", [[0.0, 0.0, 200.0, 120.0], [190.0, 0.0, 200.0, 9.0], [0.0, 111.0, 9.0, 120.0], [-5.0, 40.0, 3.0, 50.0]]
)
def test_labels_stay_inside_the_image(box):
    drawn = draw(grey(), found([box], [0.5], [0]), CLASSES)
    colours = np.asarray(drawn).reshape(-1, 3)
    chip = (np.abs(colours.astype(int) - colour_of(0)).max(axis=1) < 14).sum()
    # "red cell 0.50" at 10 pixels: at least 60 by 12 pixels of coloured chip.
    assert chip > 700


def test_text_is_dark_on_light_colours_and_light_on_dark_ones():
    def darkest_and_lightest(label):
        drawn = np.asarray(draw(grey(), found([[60.0, 50.0, 140.0, 100.0]], [0.9], [label]), many), dtype=int)
        inside = drawn[36:47, 62:120].sum(axis=2)  # the chip above the box
        return inside.min(), inside.max()

    many = Classes.of([f"class {number}" for number in range(7)])
    assert darkest_and_lightest(3)[0] < 60  # yellow: black text
    assert darkest_and_lightest(6)[1] > 700  # deep blue: white text


def test_detections_below_the_threshold_are_left_out():
    image = grey()
    objects = found([[60.0, 50.0, 100.0, 90.0], [150.0, 50.0, 190.0, 90.0]], [0.9, 0.2], [0, 0])
    assert changed(image, draw(image, objects, CLASSES, min_score=0.5))[2] < 145
    assert changed(image, draw(image, objects, CLASSES))[2] > 189


def test_nothing_found_gives_the_image():
    assert (
        draw(grey(), found([], [], torch.zeros(0, dtype=torch.int64).tolist()), CLASSES).tobytes() == grey().tobytes()
    )


def test_ignored_truth_is_dashed_and_grey():
    truth = Targets(torch.tensor([[60.0, 50.0, 140.0, 100.0]]), torch.tensor([1]), torch.tensor([True]))
    side = np.asarray(draw(grey(), truth, CLASSES))[50:100, 59]
    assert {tuple(pixel) for pixel in side.tolist()} == {(170, 170, 170), (128, 128, 128)}


def test_masks_are_tinted_where_they_are_and_nowhere_else():
    masks = torch.zeros(1, 120, 200, dtype=torch.bool)
    masks[0, 60:90, 70:110] = True
    masks = Masks.from_dense(masks, Size(120, 200))
    truth = Targets(torch.tensor([[60.0, 50.0, 140.0, 100.0]]), torch.tensor([1]), masks=masks)
    inside = np.asarray(draw(grey(), truth, CLASSES))[50:100, 60:140]
    tinted = (inside != 128).any(axis=2)
    assert tinted[10:40, 10:50].all()
    assert tinted.sum() == 30 * 40
    assert (np.asarray(draw(grey(), truth, CLASSES, masks=False))[50:100, 60:140] == 128).all()


def test_scaling_enlarges_image_boxes_and_masks():
    scenes = SceneDataset(1, seed=0, width=256)
    drawn = draw(scenes[0].image, scenes.targets(0, masks=True), scenes.classes, scale=2.0)
    assert drawn.size == (512, 512)
    larger = draw(grey(), found([[60.0, 50.0, 140.0, 100.0]], [0.9], [1]), CLASSES, scale=2.0)
    assert larger.getpixel((119, 150)) == colour_of(1)
    with pytest.raises(ConfigError, match="scale"):
        draw(grey(), found([[60.0, 50.0, 140.0, 100.0]], [0.9], [1]), CLASSES, scale=0.0)


def test_a_label_gives_way_to_others_and_is_left_out_where_all_is_taken():
    box = (50.0, 50.0, 90.0, 90.0)
    boxes = np.array([box])

    def place(placed):
        return _place(box, 30.0, 10.0, 1, (200, 200), np.array(placed).reshape(-1, 4), boxes)

    assert place([]) == (49, 39, 79, 49)  # above, at the left
    assert place([(40.0, 30.0, 100.0, 49.0)]) == (49, 91, 79, 101)  # below
    assert place([(0.0, 0.0, 200.0, 200.0)]) is None


def test_the_surest_label_lies_on_top():
    boxes = [[60.0, 50.0, 140.0, 100.0], [62.0, 51.0, 142.0, 101.0]]
    drawn = draw(grey(), found(boxes, [0.2, 0.9], [0, 1]), CLASSES)
    # The chip above the second box, at its left edge, shows that box's class.
    assert drawn.getpixel((66, 37)) == pytest.approx(colour_of(1), abs=14)


def test_colours_are_stable_and_differ_within_three_palettes():
    colours = [colour_of(label) for label in range(21)]
    assert len(set(colours)) == 21
    assert colours[0] == (230, 159, 0)
    assert colour_of(80) == colour_of(80 - 21)


def test_a_contact_sheet_holds_rows_side_by_side():
    red, blue = Image.new("RGB", (200, 100), "red"), Image.new("RGB", (100, 200), "blue")
    sheet = contact_sheet([[red, blue]] * 3, ["truth", "prediction"], across=2, cell=100)
    pixels = np.asarray(sheet)
    # A lying image becomes 100x50 pixels, an upright one 50x100: three of each.
    assert (pixels == (255, 0, 0)).all(axis=2).sum() == 3 * 100 * 50
    assert (pixels == (0, 0, 255)).all(axis=2).sum() == 3 * 50 * 100
    assert sheet.width > 400
    assert (pixels[:24] < 100).all(axis=2).sum() > 50  # the titles


def test_a_contact_sheet_needs_a_image_for_each_title():
    with pytest.raises(ConfigError, match="truth"):
        contact_sheet([[grey()]], ["truth", "prediction"])
    with pytest.raises(ConfigError):
        contact_sheet([], ["truth"])


def with_points(*points):
    one = found([[60.0, 50.0, 140.0, 100.0]], [0.9], [1])
    return Detections(one.boxes, one.scores, one.labels, keypoints=torch.tensor([points]).float())


def test_keypoints_are_joined_by_the_edges_of_their_skeleton():
    skeleton = Skeleton(("a", "b", "c"), edges=((0, 1),))
    objects = with_points((70, 60, 0.9), (130, 60, 0.9), (100, 90, 0.9))
    joined, alone = (draw(grey(), objects, CLASSES, skeleton=each) for each in (skeleton, None))
    assert joined.getpixel((100, 60)) == colour_of(1)
    assert alone.getpixel((100, 60)) == (128, 128, 128)
    for drawn in (joined, alone):
        assert sum(drawn.getpixel((100, 90))) > 3 * 240  # light inside
        assert joined.getpixel((85, 75)) == (128, 128, 128)


def test_keypoints_that_were_hardly_found_are_not_drawn_nor_their_edges():
    skeleton = Skeleton(("a", "b"), edges=((0, 1),))
    drawn = draw(grey(), with_points((70, 60, 0.9), (130, 60, 0.01)), CLASSES, skeleton=skeleton)
    assert drawn.getpixel((130, 60)) == drawn.getpixel((100, 60)) == (128, 128, 128)


def test_of_the_truth_hidden_keypoints_are_hollow_and_those_not_labelled_are_left_out():
    points = torch.tensor([[[70.0, 60.0, 2.0], [100.0, 60.0, 1.0], [130.0, 60.0, 0.0]]])
    truth = Targets(torch.tensor([[60.0, 50.0, 140.0, 100.0]]), torch.tensor([1]), keypoints=points)
    drawn = draw(grey(), truth, CLASSES)
    assert sum(drawn.getpixel((70, 60))) > 3 * 240
    assert sum(drawn.getpixel((100, 60))) < 3 * 160
    assert drawn.getpixel((130, 60)) == (128, 128, 128)


def test_objects_without_classes_have_a_colour_each():
    image = grey()
    two = found([[20.0, 50.0, 60.0, 100.0], [120.0, 50.0, 160.0, 100.0]], [0.6, 0.9], [0, 0])
    drawn = draw(image, two, OBJECT)
    assert drawn.getpixel((119, 75)) == colour_of(0)  # the surest is the first
    assert drawn.getpixel((19, 75)) == colour_of(1)
