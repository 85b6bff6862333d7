from __future__ import annotations

from pathlib import Path

import pytest
import torch
from evaluation.seer import Seer, greys
from PIL import Image

import fpn
from fpn.errors import ConfigError, DataError
from fpn.structures import Detections
from fpn.studies.suggesting.suggest import Suggestions, suggest

CLASSES = ("bolt", "nut", "washer")


def detections(*found: tuple[str, float]) -> Detections:
    boxes = torch.tensor([[8.0 * number, 4.0, 8.0 * number + 7, 24.0] for number in range(len(found))]).reshape(-1, 4)
    scores = torch.tensor([score for _, score in found])
    return Detections(boxes, scores, torch.tensor([CLASSES.index(name) for name, _ in found], dtype=torch.int64))


# Grey value -> what the detector finds in an image of it.
KNOWN = {
    40: detections(("nut", 0.98), ("bolt", 0.97)),
    60: detections(*[("bolt", 0.45)] * 7),
    80: detections(("bolt", 0.9)),
    100: detections(("washer", 0.5)),
    120: detections(),
    160: detections(("nut", 0.05)),
}


def pool(folder: Path, shades: tuple[int, ...]) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{number}-{shade}.png" for number, shade in enumerate(shades)]
    for path, shade in zip(paths, shades, strict=True):
        Image.new("RGB", (60, 40), (shade, shade, shade)).save(path)
    return paths


def suggested(paths: list[Path], **options: object) -> Suggestions:
    return suggest(Seer(CLASSES, KNOWN), paths, mirror=False, **options)  # type: ignore[arg-type]


def names(found: Suggestions) -> list[str]:
    return [each.name for each in found.chosen]


def test_an_image_of_unsure_detections_comes_first_and_says_so(tmp_path: Path) -> None:
    found = suggested(pool(tmp_path, (40, 120, 60, 80)), count=1)
    assert names(found) == ["2-60.png"]
    assert found.chosen[0].unsure == 7
    assert found.chosen[0].reason == "7 detections between 0.2 and 0.6"
    assert [each.name for each in found.others][-1] == "1-120.png"
    assert found.others[-1].reason == "nothing found for sure"


def test_of_equal_files_one_is_chosen(tmp_path: Path) -> None:
    found = suggested(pool(tmp_path, (60, 60, 80)), count=3)
    assert names(found) == ["0-60.png", "2-80.png"]
    assert found.aside == {"1-60.png": "is the same file as 0-60.png"}


def test_what_is_labelled_already_is_not_chosen(tmp_path: Path) -> None:
    labelled = greys(tmp_path / "labelled")
    # Of 30 x 60, as its labelled twin.
    Image.open(labelled.path(0)).save(tmp_path / "again.png")
    found = suggested([tmp_path / "again.png", *pool(tmp_path / "new", (60,))], count=2, labelled=labelled)
    assert names(found) == ["new/0-60.png"]
    assert found.aside == {"again.png": "shows what 40.png shows, which is labelled"}
    assert found.objects == {"bolt": 2, "nut": 1, "washer": 1}


def test_where_all_is_labelled_there_is_nothing_to_choose(tmp_path: Path) -> None:
    labelled = greys(tmp_path / "labelled")
    with pytest.raises(DataError, match="all of 1 images show what is labelled already"):
        suggested([Path(labelled.path(0))], labelled=labelled)


def test_a_rare_class_comes_before_more_of_a_common_one(tmp_path: Path) -> None:
    labelled = greys(tmp_path / "labelled")
    bolts = labelled.subset([2] * 30)
    found = suggested(pool(tmp_path / "new", (60, 100)), count=2, labelled=bolts)
    # One unsure washer, of which none is labelled, before seven bolts, of which 30 are.
    assert names(found) == ["1-100.png", "0-60.png"]
    assert found.chosen[0].reason == "1 detection between 0.2 and 0.6; perhaps washer, of which there are few"


def test_more_than_there_are_gives_all(tmp_path: Path) -> None:
    found = suggested(pool(tmp_path, (40, 80)), count=50)
    assert len(found.chosen) == 2
    assert not found.others


def test_unreadable_images_are_named_and_left_aside(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("cats")
    found = suggested([tmp_path / "text.png", tmp_path / "none.png", *pool(tmp_path, (60,))], count=5)
    assert names(found) == ["0-60.png"]
    assert list(found.unreadable) == ["text.png", "none.png"]
    assert found.unreadable["none.png"] == "no such file"
    with pytest.raises(DataError, match=r"none of 1 images can be read.*text\.png"):
        suggested([tmp_path / "text.png"])


def test_the_same_images_give_the_same_ranking(tmp_path: Path) -> None:
    paths = pool(tmp_path, (40, 60, 80, 100, 120, 160))
    one, other = suggested(paths, count=4), suggested(paths, count=4)
    assert [(each.name, each.gain) for each in one.chosen] == [(each.name, each.gain) for each in other.chosen]


def test_what_cannot_be_done_is_refused(tmp_path: Path) -> None:
    paths = pool(tmp_path / "in", (60,))
    with pytest.raises(ConfigError, match="count 0"):
        suggested(paths, count=0)
    with pytest.raises(ConfigError, match="no images to choose from"):
        suggested([])
    detector = Seer(("cat",), {})
    with pytest.raises(ConfigError, match="another dataset than this model is for"):
        suggest(detector, paths, labelled=greys(tmp_path / "labelled"))


def test_it_is_a_public_name() -> None:
    assert fpn.suggest is suggest
