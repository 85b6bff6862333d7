from __future__ import annotations

import json
from pathlib import Path

import pytest
from planted_faults import paint
from shell import Shell
from written_sets import Annotation, Shot, write_coco, write_text, write_voc

from fpn.cli.held_out import (
    NOTE,
    HeldOut,
    find_held_out,
    find_learned,
    find_untrained,
    refuse_too_few,
    untrained_split,
    warn_of_learned,
)
from fpn.data import open_dataset
from fpn.data.split import image_name
from fpn.errors import ConfigError
from fpn.training.run import Run
from fpn.training.run_record import describe_data

BOX = (4, 4, 24, 24)
SHOTS = tuple(
    Shot(f"film{k // 2}_{k}.png", 64, 48, (Annotation("bolt", BOX), Annotation("nut", BOX))[: 1 + k % 2])
    for k in range(10)
)
SETTINGS = """
backbone: tf_efficientnet_lite0
weights: none
short-side: 32
long-side: 64
head-width: 16
channels: 16
epochs: 1
batch-size: 4
workers: 0
precision: float32
"""


@pytest.fixture
def words(tmp_path: Path) -> list[object]:
    """A command that needs only its output, and how to divide."""
    write_coco(tmp_path / "set", SHOTS)
    for number, shot in enumerate(SHOTS):
        paint(number).save(tmp_path / "set/images" / shot.file)
    return ["train", tmp_path / "set", "--config", write_text(tmp_path / "small.yaml", SETTINGS), "--output"]


def held_out(run: Path) -> list[str]:
    return json.loads((run / "run.json").read_text())["notes"]["held_out"]["images"]


def test_a_share_is_held_out_and_measured_on_by_training_resume_and_evaluate(
    fpn: Shell, tmp_path: Path, words: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, take_step = tmp_path / "run", Run.take_step

    def interrupted(self: Run, group: list) -> None:
        if self.position.step == 1:
            raise KeyboardInterrupt
        take_step(self, group)

    monkeypatch.setattr(Run, "take_step", interrupted)
    assert fpn(*words, run, "--validation-share", 0.2, "--by-group", r"(film\d)").status == 130
    monkeypatch.undo()
    held = held_out(run)
    assert len(held) == 2
    assert held[0][:12] == held[1][:12] == f"images/film{held[0][11]}"

    # Not chosen anew: a resumed run takes the images that are written down.
    monkeypatch.setattr("fpn.data.split.divide", None)
    ended = fpn("train", "--resume", run)
    assert ended.status == 0, ended.err
    assert held_out(run) == held
    record = json.loads((run / "run.json").read_text())
    assert (record["data"]["images"], record["data"]["validation"]["images"]) == (8, 2)
    measured = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])

    figures = tmp_path / "figures.json"
    evaluate = ["evaluate", run / "best.safetensors", tmp_path / "set", "--batch-size", 4, "--workers", 0]
    ended = fpn(*evaluate, "--output", figures)
    assert ended.status == 0, ended.err
    assert "measuring on the 2 images that training held out (for other images: --split NAME)" in ended.out
    assert json.loads(figures.read_text())["ap"] == pytest.approx(measured["ap"], abs=1e-6)
    assert "was trained on" not in ended.err
    ended = fpn(*evaluate, "--split", "all")
    assert "the model was trained on 8 of these 10 images" in " ".join(ended.err.split())

    others = write_text(tmp_path / "others.json", "[]")
    compare = ["compare", others, run / "best.safetensors", tmp_path / "set", "--workers", 0, "--resamples", 5]
    ended = fpn(*compare, "--split", "all")
    assert "But B has learned from 8 of these 10 images: the verdict is not to be trusted." in " ".join(
        ended.out.split()
    )


def test_a_dataset_without_the_images_that_were_held_out_is_another_one(
    tmp_path: Path, words: list, capsys: pytest.CaptureFixture[str]
) -> None:
    reading = {"images": None}
    record = {"notes": {"held_out": {"split": "all", "images": [f"images/{SHOTS[3].file}", "images/gone.png"]}}}
    assert find_held_out(tmp_path / "set", record, **reading) is None
    assert f"1 of the 2 images that the training held out are not in {tmp_path / 'set'}" in capsys.readouterr().err
    assert find_held_out(tmp_path / "set", {}, **reading) is None
    record["notes"]["held_out"]["images"].pop()
    found = find_held_out(tmp_path / "set", record, **reading)
    assert found is not None
    assert (len(found), found.image_id(0)) == (1, 103)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--by-group", "film"], "it needs --validation-share"),
        (["--validation-share", 0.2, "--validation-split", "val"], "Choose one."),
        (["--validation-share", 0.2, "--by-group", "film"], "no image is left for val"),
    ],
)
def test_wishes_that_contradict_each_other_are_refused(
    fpn: Shell, tmp_path: Path, words: list, options: list, message: str
) -> None:
    assert message in fpn.fails(*words, tmp_path / "run", *options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("splits", "used", "measured"),
    [
        (("test", "train", "trainval", "val"), "trainval", "test"),
        (("test", "train", "trainval", "val"), "train", "val"),
        (("test", "train"), "train", "test"),
        (("train2017", "val2017"), "train2017", "val2017"),
        (("train", "trainval", "val"), "trainval", None),  # val is a part of it
        (("all", "test"), "all", None),
        ((), None, None),
    ],
)
def test_what_is_measured_on_shares_no_image_with_what_was_trained_on(
    splits: tuple[str, ...], used: str | None, measured: str | None
) -> None:
    assert untrained_split(splits, used) == measured


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """Ten images: five to train, three to validate, two to test, in VOC's lists."""
    root = write_voc(tmp_path / "parts", SHOTS)
    names = [Path(shot.file).stem for shot in SHOTS]
    lists = {"all": names, "train": names[:5], "val": names[5:8], "trainval": names[:8], "test": names[8:]}
    for split, its in lists.items():
        write_text(root / f"ImageSets/Main/{split}.txt", "".join(f"{name}\n" for name in its))
    return root


@pytest.mark.parametrize(
    ("trained", "measured", "said"),
    [
        ("trainval", "trainval", "m was trained on these very images"),
        ("trainval", "val", "m was trained on these very images"),
        ("train", "trainval", "m was trained on 5 of these 8 images"),
        ("trainval", "test", ""),
        ("train", "val", ""),
        (
            "trainval",
            "all",
            "m was trained on 8 of these 10 images: it knows them by heart, and on others it is worse.",
        ),
        ("all", "val", "m was trained on these very images"),
        ("train", "all", "Measure with --split val, which it has not seen."),
    ],
)
def test_images_that_a_model_has_learned_from_are_counted(
    parts: Path, trained: str, measured: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    record = {"data": describe_data(open_dataset(parts, split=trained))}
    warn_of_learned("m", record, parts, open_dataset(parts, split=measured), images=None)
    told = capsys.readouterr().err
    assert said in told
    assert bool(told) == bool(said)


@pytest.mark.parametrize("moved", [False, True])
def test_images_of_a_divided_split_are_counted_without_those_held_out(tmp_path: Path, moved: bool) -> None:
    where = tmp_path / "set"
    write_coco(where, SHOTS)
    whole = open_dataset(where)
    held = HeldOut("all", tuple(image_name(whole, row) for row in (2, 5)))
    record = {"data": describe_data(held.divide(whole)[0]), "notes": {NOTE: held.to_json()}}
    where = where.rename(tmp_path / "elsewhere") if moved else where
    whole = open_dataset(where)
    found = find_learned(record, where, whole, images=None)
    assert found is not None
    assert (found.images, found.of) == (8, 10)
    assert str(found).endswith("Leave --split out to measure on the 2 images that its training held out.")
    apart = held.divide(whole)[1]
    assert find_learned(record, where, apart, images=None) is None
    refuse_too_few(apart)
    with pytest.raises(ConfigError, match=r"1 image that training held out.*--split.*--validation-share"):
        refuse_too_few(HeldOut("all", held.images[:1]).divide(whole)[1])
    # Other labels than it was trained on: nothing is known for sure.
    other = {**record, "data": {**record["data"], "labels": "0"}}
    assert find_learned(other, where, whole, images=None) is None


def test_without_a_wish_other_images_are_measured_on_than_were_trained_on(parts: Path) -> None:
    record = {"data": describe_data(open_dataset(parts, split="trainval"))}
    assert find_untrained(parts, record, None) == ("test", "trainval")
    assert find_untrained(parts, {"data": {"name": "others/trainval"}}, None) is None
    assert find_untrained(parts, {}, None) is None
