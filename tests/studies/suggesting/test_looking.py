from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation.seer import Seer
from PIL import Image

from fpn.detectors import TwoStageDetector
from fpn.errors import ImageError
from fpn.structures import Detections
from fpn.studies.suggesting.evidence import Draft, Evidence
from fpn.studies.suggesting.looking import Looker, Opener, agree, fingerprint_weights


def detections(*found: tuple[list[float], float, int]) -> Detections:
    boxes, scores, labels = zip(*found, strict=True)
    return Detections(torch.tensor(boxes), torch.tensor(scores), torch.tensor(labels))


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8))


def unreadable() -> Image.Image:
    raise ImageError("text.jpg: no image")


def looked(detector: TwoStageDetector, openers: list[Opener], draft: Draft | None = None, **options: bool) -> list:
    looker = Looker(detector, batch_size=1, mirror=options.get("mirror", False))
    return looker.look(openers, draft or Draft(None, "", looker.window), lambda _: None)


def same(one: Evidence, other: Evidence) -> bool:
    equal = [
        torch.equal(getattr(one.found, what), getattr(other.found, what)) for what in ("boxes", "scores", "labels")
    ]
    return all(equal) and one.descriptor.tolist() == other.descriptor.tolist()


def test_two_looks_at_one_object_are_averaged_and_a_lonely_one_is_halved() -> None:
    one = detections(([0.0, 0.0, 10.0, 10.0], 0.8, 0), ([50.0, 50.0, 60.0, 60.0], 0.6, 0))
    # The first one again, a little moved; in its place another class; and something new.
    other = detections(
        ([0.0, 0.0, 10.0, 9.0], 0.4, 0), ([50.0, 50.0, 60.0, 60.0], 0.7, 1), ([20.0, 20.0, 30.0, 30.0], 0.2, 0)
    )
    both = agree(one, other)
    assert both.scores.tolist() == pytest.approx([0.6, 0.35, 0.3, 0.1])
    assert both.labels.tolist() == [0, 1, 0, 0]
    assert both.boxes[0].tolist() == [0, 0, 10, 10]


def test_each_look_is_used_once() -> None:
    one = detections(([0.0, 0.0, 10.0, 10.0], 0.8, 0), ([0.0, 0.0, 10.0, 9.0], 0.4, 0))
    other = detections(([0.0, 0.0, 10.0, 10.0], 0.6, 0))
    assert agree(one, other).scores.tolist() == pytest.approx([0.7, 0.2])


def test_nothing_on_one_side_leaves_half_of_the_other() -> None:
    nothing = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    found = detections(([0.0, 0.0, 10.0, 10.0], 0.8, 0))
    assert agree(found, nothing).scores.tolist() == pytest.approx([0.4])
    assert agree(nothing, found).scores.tolist() == pytest.approx([0.4])
    assert len(agree(nothing, nothing)) == 0


def test_an_image_is_described_by_what_it_looks_like(small: TwoStageDetector) -> None:
    one, again, other = looked(small, [partial(noise, 1), partial(noise, 1), partial(noise, 2)])
    # Three maps of 8 channels and the objects.
    assert len(one.descriptor) == 32
    assert same(one, again)
    assert one.descriptor.tolist() != other.descriptor.tolist()
    assert one.size == (48, 64)


def test_boxes_of_the_mirror_image_are_turned_back() -> None:
    # It finds a box at the left of whatever it looks at: of the image, 60 wide, and of its mirror image.
    left = Seer(("nut",), {40: detections(([5.0, 5.0, 25.0, 20.0], 0.8, 0))})
    looker = Looker(left, batch_size=1, mirror=True)
    grey = partial(Image.new, "RGB", (60, 30), (40, 40, 40))
    (seen,) = looker.look([grey], Draft(None, "", looker.window), lambda _: None)
    assert seen.found.boxes.tolist() == [pytest.approx([5, 5, 25, 20]), pytest.approx([35, 5, 55, 20])]
    assert seen.found.scores.tolist() == pytest.approx([0.4, 0.4])


def test_an_unreadable_image_is_named_among_the_others(small: TwoStageDetector) -> None:
    found = looked(small, [partial(noise, 1), unreadable, partial(noise, 2)])
    assert [each.problem for each in found] == ["", "text.jpg: no image", ""]


def test_after_a_kill_only_the_rest_is_looked_at(small: TwoStageDetector, tmp_path: Path) -> None:
    calls: list[int] = []

    def opener(number: int) -> Image.Image:
        calls.append(number)
        return noise(number)

    def killed() -> Image.Image:
        raise KeyboardInterrupt

    # Windows are of four images: the first is kept, the second was being looked at.
    openers: list[Opener] = [partial(opener, number) for number in range(6)]
    first = Draft(tmp_path / "d", "key", 4)
    first.open()
    with pytest.raises(KeyboardInterrupt):
        looked(small, [*openers[:5], killed], first)
    calls.clear()
    second = Draft(tmp_path / "d", "key", 4)
    second.open()
    assert len(second.lines) == 4
    going_on = looked(small, openers, second)
    assert sorted(calls) == [4, 5]
    assert all(same(*pair) for pair in zip(going_on, looked(small, openers), strict=True))


def test_other_weights_have_another_fingerprint(small: TwoStageDetector) -> None:
    before = fingerprint_weights(small)
    assert fingerprint_weights(small) == before
    weight = small.rpn.objectness.weight
    with torch.no_grad():
        weight += 1
    changed = fingerprint_weights(small)
    with torch.no_grad():
        weight -= 1
    assert changed != before
