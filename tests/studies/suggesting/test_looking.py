from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation.seer import Seer
from PIL import Image

from fpn.data.dataset import Dataset
from fpn.detectors import TwoStageDetector
from fpn.errors import ImageError
from fpn.evaluation.unfinished import Unfinished
from fpn.shapes import Size
from fpn.structures import Detections, Targets
from fpn.studies.suggesting.evidence import Evidence
from fpn.studies.suggesting.looking import Looker, agree
from fpn.studies.suggesting.suggest import pool_of


def detections(*found: tuple[list[float], float, int]) -> Detections:
    boxes, scores, labels = zip(*found, strict=True)
    return Detections(torch.tensor(boxes), torch.tensor(scores), torch.tensor(labels))


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8))


@dataclass
class Noise(Dataset):
    """Images of noise, by their seeds; `None`: one that can't be read, "stop": one at which the process ends."""

    seeds: Sequence[int | str | None]
    read: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.seeds)

    def image(self, index: int) -> Image.Image:
        seed = self.seeds[index]
        if seed is None:
            raise ImageError("text.jpg: no image")
        if isinstance(seed, str):
            raise KeyboardInterrupt
        self.read.append(index)
        return noise(seed)

    def image_id(self, index: int) -> int:
        raise NotImplementedError

    def path(self, index: int) -> str:
        raise NotImplementedError

    def size(self, index: int) -> Size:
        raise NotImplementedError

    def targets(self, index: int, *, masks: bool = False) -> Targets:
        raise NotImplementedError


def looked(detector: TwoStageDetector, dataset: Noise, unfinished: Unfinished | None = None) -> list[Evidence]:
    return Looker(detector, batch_size=1, mirror=False).look(dataset, unfinished=unfinished, progress=lambda _: None)


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
    one, again, other = looked(small, Noise([1, 1, 2]))
    # Three maps of 8 channels and the objects.
    assert len(one.descriptor) == 32
    assert same(one, again)
    assert one.descriptor.tolist() != other.descriptor.tolist()
    assert one.size == (48, 64)


def test_boxes_of_the_mirror_image_are_turned_back(tmp_path: Path) -> None:
    # It finds a box at the left of whatever it looks at: of the image, 60 wide, and of its mirror image.
    left = Seer(("nut",), {40: detections(([5.0, 5.0, 25.0, 20.0], 0.8, 0))})
    Image.new("RGB", (60, 30), (40, 40, 40)).save(tmp_path / "grey.png")
    grey = pool_of(left, [tmp_path / "grey.png"], None)
    (seen,) = Looker(left, batch_size=1, mirror=True).look(grey, progress=lambda _: None)
    assert seen.found.boxes.tolist() == [pytest.approx([5, 5, 25, 20]), pytest.approx([35, 5, 55, 20])]
    assert seen.found.scores.tolist() == pytest.approx([0.4, 0.4])


def test_an_unreadable_image_is_named_among_the_others(small: TwoStageDetector) -> None:
    found = looked(small, Noise([1, None, 2]))
    assert [each.problem for each in found] == ["", "text.jpg: no image", ""]


def test_after_a_stop_only_the_rest_is_looked_at(small: TwoStageDetector, tmp_path: Path) -> None:
    # Windows are of four images: the first is kept, the second was being looked at.
    stopped = Unfinished(tmp_path / "kept", often=0.0)
    with pytest.raises(KeyboardInterrupt), stopped:
        looked(small, Noise([0, 1, 2, 3, 4, "stop"]), stopped)
    rest = Noise([0, 1, 2, 3, 4, 5])
    with Unfinished(tmp_path / "kept") as again:
        assert sorted(again.known) == [0, 1, 2, 3]
        going_on = looked(small, rest, again)
    assert sorted(rest.read) == [4, 5]
    assert all(same(*pair) for pair in zip(going_on, looked(small, Noise(range(6))), strict=True))
    assert not (tmp_path / "kept").exists()


def test_a_window_that_is_not_whole_is_looked_at_again(small: TwoStageDetector, tmp_path: Path) -> None:
    lines = looked(small, Noise(range(6)))
    known = Unfinished(tmp_path, known={number: lines[number].to_finding() for number in (0, 1, 2, 4, 5)})
    images = Noise(range(6))
    looked(small, images, known)
    assert sorted(images.read) == [0, 1, 2, 3]


def test_what_could_not_be_read_is_kept_as_such() -> None:
    kept = Evidence.unreadable("text.jpg: no image").to_finding()
    assert Evidence.of_finding(kept).problem == "text.jpg: no image"
