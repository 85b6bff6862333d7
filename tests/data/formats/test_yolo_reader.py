from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from written_sets import SHOTS, save_image, write_text, write_yolo, yolo_lines

from fpn.data import list_splits, open_dataset
from fpn.errors import DataError, DataNotFoundError, FpnError

LABELS = "labels/train/a.txt"
CONFIG = "train: images/train\nnames: [bolt, nut, washer]\n"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("1 0.5 0.5 0.1", "line 2: 3 numbers after the class. A line is: class centre-x"),
        ("1 0.5 0.5 0.1 0.1 9", "line 2: 5 numbers after the class"),
        ("1 0.5 0.5 0.1 0.1 0.9", "line 2: a box and a fifth number, 0.9: a model's confidence?"),
        ("nut 0.5 0.5 0.1 0.1", "line 2: 'nut 0.5 0.5 0.1 0.1' holds something that is not a number"),
        ("3 0.5 0.5 0.1 0.1", "line 2: class 3 is unknown, there are 3 classes (0 to 2)"),
        ("-1 0.5 0.5 0.1 0.1", "class -1 is unknown"),
        ("0.5 0.5 0.5 0.1 0.1", "class 0.5 is unknown"),
        ("nan 0.5 0.5 0.1 0.1", "class nan is unknown"),
        ("1 0.5 0.5 -0.1 0.1", "line 2 (nut) has box (0.55, 0.45, 0.45, 0.55) in fractions of the image: width -0.1"),
        ("1 nan 0.5 0.1 0.1", "not finite numbers"),
        ("1 30 20 10 8", "fractions from 0 to 1, not pixels"),
    ],
)
def test_a_broken_line_is_named(line: str, says: str, tmp_path: Path) -> None:
    write_yolo(tmp_path)
    write_text(tmp_path / LABELS, f"0 0.5 0.5 0.2 0.2\n{line}\n")
    with pytest.raises(DataError) as caught:
        open_dataset(tmp_path)
    assert says in str(caught.value)
    assert "labels/train/a.txt, line 2" in str(caught.value)


def test_an_outline_becomes_its_bounds_and_a_mask_in_pixels(tmp_path: Path) -> None:
    write_yolo(tmp_path)
    save_image(tmp_path / "images/train/a.png", 40, 20)
    write_text(tmp_path / LABELS, "1 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75\n")
    dataset = open_dataset(tmp_path)
    assert dataset.targets(0).boxes.tolist() == [[10, 5, 30, 15]]
    masks = dataset.targets(0, masks=True).masks.dense()
    assert int(masks.sum()) == 20 * 10
    assert dataset.coco()["annotations"][0]["segmentation"] == [[10, 5, 30, 5, 30, 15, 10, 15]]


def test_sizes_are_read_from_headers_only_when_asked_for(tmp_path: Path) -> None:
    write_yolo(tmp_path)
    dataset = open_dataset(tmp_path)
    assert dataset.table.sizes.tolist() == [[0, 0], [0, 0], [0, 0]]
    torch.testing.assert_close(dataset.targets(0).boxes[1], torch.tensor([0.0, 0, 53, 37]))
    assert dataset.table.sizes.tolist() == [[37, 53], [0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ("names: {0: bolt, 1: nut, 2: washer}", ("bolt", "nut", "washer")),
        ("nc: 3", ("0", "1", "2")),
        # YAML 1.1 reads these as False, True and null; a class is called what is written.
        ("names: [no, yes, null]", ("no", "yes", "null")),
        ("nc: 3\nnames:\n- bolt\n- nut\n- washer", ("bolt", "nut", "washer")),
    ],
)
def test_names_may_be_a_list_a_mapping_or_a_count(config: str, names: tuple[str, ...], tmp_path: Path) -> None:
    write_yolo(tmp_path)
    write_text(tmp_path / "data.yaml", f"train: images/train\n{config}\n")
    dataset = open_dataset(tmp_path)
    assert (dataset.classes.names, dataset.classes.ids) == (names, (0, 1, 2))


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("train: images/train\nnames: [bolt, nut\n", "data.yaml, line 3, column 1: not YAML"),
        ("train: images/train\nnames: " + "[" * 100_000 + "\n", "brackets inside of brackets, 50 times and more"),
        ("train: images/train\nnc: 4\nnames: [bolt, nut, washer]\n", "nc is 4 but there are 3 names"),
        ("train: images/train\nnames: {0: bolt, 2: nut}\n", "names must have the indices 0 to 1"),
        ("train: images/train\nnames: {a: bolt}\n", "a key that is not a class index"),
        ("train: images/train\nnames: [bolt, bolt]\n", "class name bolt is given more than once"),
        ("train: images/train\nnames: [[bolt]]\n", "names is a list; it must be a list of names"),
        ("train: images/train\nnames: bolt\n", "names is 'bolt'; it must be a list of names"),
        ("train: images/train\nnc: many\n", "nc is 'many'; it must be the number of classes"),
        ("train: {a: b}\nnames: [bolt]\n", "train is a dict; it must be a folder"),
        ("train:\nnames: [bolt]\n", "names no split"),
        ("train: ../elsewhere\nnames: [bolt]\n", "'../elsewhere' leads out of the dataset's folder"),
        ("train: /etc\nnames: [bolt]\n", "'/etc' leads out of the dataset's folder"),
        ("path: /etc\ntrain: images\nnames: [bolt]\n", "its path '/etc' leads out of the folder that was opened"),
        ("train: images/trian\nnames: [bolt]\n", "should be in images/trian, which does not exist or is empty"),
        ("train: list.txt\nnames: [bolt]\n", "should be in list.txt, which does not"),
    ],
)
def test_a_broken_config_is_named(config: str, says: str, tmp_path: Path) -> None:
    write_yolo(tmp_path)
    write_text(tmp_path / "data.yaml", config)
    with pytest.raises(FpnError) as caught:
        open_dataset(tmp_path)
    assert says in str(caught.value)


def test_aliases_that_multiply_do_not_fill_the_memory(tmp_path: Path) -> None:
    write_yolo(tmp_path)
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 30)]
    write_text(tmp_path / "data.yaml", "\n".join([*lines, "train: images/train", "names: *a29"]))
    with pytest.raises(DataError, match="names is a list; it must be a list of names"):
        open_dataset(tmp_path)


def test_a_path_elsewhere_is_followed_if_the_config_itself_was_named(tmp_path: Path) -> None:
    write_yolo(tmp_path / "screws")
    config = write_text(tmp_path / "configs/screws.yaml", f"path: ../screws\n{CONFIG}")
    assert len(open_dataset(config)) == 3
    with pytest.raises(DataError, match="If you trust the file, name it"):
        open_dataset(tmp_path / "configs")


def test_a_set_that_was_moved_from_its_old_path_opens(tmp_path: Path) -> None:
    write_yolo(tmp_path)
    write_text(tmp_path / "data.yaml", f"path: /home/somebody/datasets/screws\n{CONFIG}")
    assert len(open_dataset(tmp_path)) == 3


def test_roboflows_export_opens_though_its_paths_lead_up(tmp_path: Path) -> None:
    for split, shots in {"train": SHOTS[:2], "valid": SHOTS[2:]}.items():
        for shot in shots:
            save_image(tmp_path / split / "images" / shot.file, shot.width, shot.height)
            write_text(tmp_path / split / "labels" / f"{Path(shot.file).stem}.txt", yolo_lines(shot))
    write_text(
        tmp_path / "data.yaml",
        "train: ../train/images\nval: ../valid/images\nnc: 3\nnames: ['bolt', 'nut', 'washer']\n",
    )
    assert list_splits(tmp_path) == ("train", "val")
    assert open_dataset(tmp_path, split="valid").targets(0).labels.tolist() == [2]


def test_a_split_may_be_a_list_of_images(tmp_path: Path) -> None:
    write_yolo(tmp_path)
    write_text(tmp_path / "train.txt", f"./images/train/c.jpg\n{tmp_path}/images/train/a.png\n")
    write_text(tmp_path / "data.yaml", "train: train.txt\nnames: [bolt, nut, washer]\n")
    dataset = open_dataset(tmp_path)
    assert [dataset.targets(k).labels.tolist() for k in range(len(dataset))] == [[2], [1, 0]]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("./images/train/zz.png\n", "image images/train/zz.png is listed but does not exist"),
        ("./images/train/a.png\n./images/train/a.png\n", "image images/train/a.png is listed twice"),
        ("../../../etc/passwd\n", "leads out of the dataset's folder"),
        ("/etc/passwd\n", "leads out of the dataset's folder"),
    ],
)
def test_a_broken_list_of_images_is_named(lines: str, says: str, tmp_path: Path) -> None:
    write_yolo(tmp_path)
    write_text(tmp_path / "train.txt", lines)
    write_text(tmp_path / "data.yaml", "train: train.txt\nnames: [bolt, nut, washer]\n")
    with pytest.raises(FpnError) as caught:
        open_dataset(tmp_path)
    assert says in str(caught.value)


def test_labels_without_their_image_are_named(tmp_path: Path) -> None:
    write_yolo(tmp_path)
    (tmp_path / "images/train/c.jpg").unlink()
    with pytest.raises(DataNotFoundError, match=r"labels/train/c.txt has no image"):
        open_dataset(tmp_path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    labels=st.text(alphabet="0123456789.- \neinfax\x00\u0660", max_size=60)
    | st.binary(max_size=30).map(lambda raw: raw.decode("latin1"))
)
def test_any_label_file_opens_or_raises_our_error(labels: str, tmp_path: Path) -> None:
    if not (tmp_path / "images").exists():
        write_yolo(tmp_path)
    write_text(tmp_path / LABELS, labels)
    with suppress(FpnError):
        dataset = open_dataset(tmp_path, drop_invalid=True)
        assert torch.isfinite(dataset.targets(0, masks=True).boxes).all()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    start=st.integers(0, len(CONFIG)),
    length=st.integers(0, 20),
    patch=st.text(alphabet="abn:[]{}&*!-#'\"\n /.0", max_size=8),
)
def test_any_patched_config_opens_or_raises_our_error(start: int, length: int, patch: str, tmp_path: Path) -> None:
    if not (tmp_path / "images").exists():
        write_yolo(tmp_path)
    config = write_text(tmp_path / "data.yaml", CONFIG[:start] + patch + CONFIG[start + length :])
    with suppress(FpnError):
        open_dataset(config)
