from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fpn.data.formats.coco_writer import plain_box
from fpn.data.formats.writer import Losses, new_folder, refuse_filled, shortest, unique_names
from fpn.data.formats.yolo_writer import joined
from fpn.errors import OutputError


def test_names_stay_unless_two_would_be_alike_up_to_the_suffix() -> None:
    assert unique_names(["train/a.jpg", "train/b.jpg"]) == {"train/a.jpg": "a.jpg", "train/b.jpg": "b.jpg"}
    assert unique_names(["x/a.jpg", "y/a.png", "A.jpg"]) == {
        "x/a.jpg": "x_a.jpg",
        "y/a.png": "y_a.png",
        "A.jpg": "A.jpg",
    }
    assert unique_names(["a.jpg", "a.png", "a.jpg"]) == {"a.jpg": "a.jpg", "a.png": "a-2.png"}


def test_names_that_no_list_can_hold_are_replaced() -> None:
    names = ["a\nb.jpg", "a_b.jpg", " c\x85.jpg", "d\u2028\udcff.jpg", "x/e.jpg", "y\r/e.jpg", "\u3000.jpg"]
    assert list(unique_names(names).values()) == [
        "a_b.jpg", "a_b-2.jpg", "c_.jpg", "d__.jpg", "x_e.jpg", "y__e.jpg", "image.jpg",
    ]  # fmt: skip


def test_a_float32_is_written_in_the_fewest_digits_that_read_back_the_same() -> None:
    assert shortest(float(np.float32(0.1))) == "0.1"
    assert shortest(181.0) == "181"
    assert np.float32(shortest(float(np.float32(1 / 3)))) == np.float32(1 / 3)


def test_a_box_is_written_in_the_fewest_decimals_that_give_the_same_corners() -> None:
    assert plain_box(np.array([10.25, 3, 20.75, 33], dtype=np.float32)) == [10.25, 3, 10.5, 30]
    # In float32, 100.1 + 0.7 is not what 100.8 is nearest to; the decimals of the json come back all the same.
    x, y, width, height = 100.1, 7.3, 0.7, 11.9
    box = np.array([x, y, x + width, y + height]).astype(np.float32)
    assert plain_box(box) == [x, y, width, height]


def test_two_squares_become_one_polygon_with_the_area_of_both() -> None:
    square = np.array([[0, 0], [2, 0], [2, 2], [0, 2]], dtype=float)
    one = joined([square, square + np.array([5, 0])])
    x, y = one.T
    # The shoelace formula: 2 x 2 + 2 x 2.
    assert abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2 == 8
    # 4 corners, 4 corners and one again, and the way back.
    assert len(one) == 4 + 5 + 1


def test_losses_are_counted_and_cut_at_a_hundred_lines() -> None:
    losses = Losses()
    losses.add("crowds", 2)
    losses.add("crowds")
    losses.add("nothing", 0)
    losses.once("ids")
    losses.once("ids")
    assert losses.lines() == ["crowds: 3", "ids"]
    for number in range(200):
        losses.add(f"field {number}")
    assert len(losses.lines()) == 101
    assert losses.lines()[-1] == "102 more"


def test_a_new_folder_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    with new_folder(tmp_path / "deep/out") as draft:
        (draft / "a").write_text("a")
        assert not (tmp_path / "deep/out").exists()
    assert (tmp_path / "deep/out/a").read_text() == "a"
    with pytest.raises(KeyboardInterrupt):
        _stop_while_writing(tmp_path / "deep/other")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]


@pytest.mark.parametrize("way", ["here", "link", "folder"])
def test_an_empty_folder_is_filled_wherever_it_is_named_from(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    monkeypatch.chdir(tmp_path / "empty")
    output = {"here": Path(), "link": tmp_path / "link", "folder": tmp_path / "empty"}[way]
    with new_folder(output) as draft:
        (draft / "images").mkdir()
        (draft / "images/a").write_text("a")
        (draft / "b").write_text("b")
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["b", "images"]
    assert (tmp_path / "link/images/a").read_text() == "a"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "link"]


def test_an_empty_folder_stays_empty_if_not_all_can_be_moved_into_it(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"b: was put there meanwhile"):
        _write_while_another_writes(tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("b", "mine")]


def _write_while_another_writes(output: Path) -> None:
    with new_folder(output) as draft:
        for name in "ab":
            (draft / name).write_text("new")
        (output / "b").write_text("mine")


def test_what_a_killed_run_left_hidden_in_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / ".out-x1.fpn-draft").mkdir()
    with pytest.raises(
        OutputError, match=r"holds the hidden folder \.out-x1\.fpn-draft.*If none is running, remove it"
    ):
        refuse_filled(tmp_path)


def _stop_while_writing(output: Path) -> None:
    with new_folder(output) as draft:
        (draft / "a").write_text("a")
        raise KeyboardInterrupt


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=r"out: writing failed \(No space left on device\)"),
        new_folder(tmp_path / "out"),
    ):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []
