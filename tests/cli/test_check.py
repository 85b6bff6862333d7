from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image
from planted_faults import Planted, a_box_without_height, a_crowd, a_file_twice_in_a_split, paint
from shell import Shell
from written_sets import Annotation, Shot, write_voc


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    return Planted(tmp_path / "set").save()


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    planted = Planted(tmp_path / "set")
    planted.save()
    for spoil in (a_box_without_height, a_crowd, a_file_twice_in_a_split):
        spoil(planted)
    return planted.save()


def test_a_sound_dataset_is_told_to_be_ready(fpn: Shell, sound: Path) -> None:
    ended = fpn("check", sound)
    assert ended.status == 0
    assert ended.out.startswith("set: COCO annotations/instances_train.json, annotations/instances_val.json\n")
    assert "Ready for training: 0 errors, 0 warnings, 0 notes" in ended.out
    assert "--fix" not in ended.out


def test_an_error_ends_with_status_1_and_tells_file_object_and_remedy(fpn: Shell, faulty: Path) -> None:
    ended = fpn("check", faulty)
    assert ended.status == 1
    lines = ended.out.splitlines()
    assert "     1  boxes without width or height" in lines
    # Not cut at 80 columns where it is read by another program.
    where = "annotations/instances_train.json: annotation id 23 of images/p11.png (bolt)"
    assert f"        {where} has box (2, 3, 22, 3): height 0" in lines
    remedy = "Label again. fpn train leaves up to 1 % of all boxes out; --drop-invalid any number."
    assert f"        > {remedy} --fix leaves them out." in lines
    assert "Not ready for training: 1 error, 1 warning, 1 note" in lines
    assert lines[-1] == f"A copy with what can be repaired: fpn check {faulty} --fix NEW-FOLDER"


def test_warnings_alone_do_not_fail(fpn: Shell, tmp_path: Path) -> None:
    planted = Planted(tmp_path / "set")
    a_file_twice_in_a_split(planted)
    ended = fpn("check", planted.save())
    assert (ended.status, "0 errors, 1 warning" in ended.out) == (0, True)


def test_images_with_more_objects_than_a_model_gives_detections_are_told(fpn: Shell, tmp_path: Path) -> None:
    corners = [(20 * (k % 15), 20 * (k // 15)) for k in range(101)]
    many = tuple(Annotation("nut", (x, y, x + 15, y + 15)) for x, y in corners)
    ignored = (Annotation("nut", (1, 141, 30, 170), ignore=True),)
    shots = (Shot("a.png", 320, 180, many + ignored), Shot("b.png", 300, 200, many[:100] + ignored))
    ended = fpn("check", write_voc(tmp_path / "set", shots))
    assert ended.status == 0
    assert "     1  images with more objects than a model gives detections" in ended.out
    assert "a.png has 101 objects, a model gives 100" in ended.out
    assert "--max-detections" in ended.out


def test_only_the_first_few_of_a_kind_are_shown_unless_all_are_asked_for(fpn: Shell, tmp_path: Path) -> None:
    annotations = tuple(Annotation("nut", (10 * k, 5, 10 * k, 9)) for k in range(5))
    root = write_voc(tmp_path / "set", (Shot("a.png", 90, 40, (*annotations, Annotation("nut", (1, 1, 30, 30)))),))
    few, every = fpn("check", root).out, fpn("check", root, "--all-entries").out
    assert (few.count("(nut) has box"), every.count("(nut) has box")) == (3, 5)
    assert "        ... and 2 more (--all-entries, or --output report.json)\n" in few


def test_the_report_as_json_holds_findings_classes_sizes_and_anchors(fpn: Shell, faulty: Path, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    ended = fpn("check", faulty, "--output", file)
    assert (ended.status, f"report: {file}" in ended.out) == (1, True)
    rows = file.with_suffix(".csv").read_text("utf-8-sig").splitlines()
    assert rows[0] == "severity,kind,file,message,remedy,fix"
    assert [row.split(",")[1] for row in rows[1:]] == ["box-empty", "images-equal", "crowd"]
    report = json.loads(file.read_text())
    assert report["passed"] is False
    assert [(each["kind"], each["count"]) for each in report["findings"]] == [
        ("box-empty", 1),
        ("images-equal", 1),
        ("crowd", 1),
    ]
    assert report["anchors"]["objects"] == 70  # 72 without the empty box and the crowd
    assert [level["level"] for level in report["anchors"]["levels"]] == ["p2", "p3", "p4", "p5", "p6"]
    assert set(report["classes"]) == {"bolt", "nut"}


def test_anchors_that_fit_nothing_are_told_with_better_ones(fpn: Shell, sound: Path) -> None:
    ended = fpn("check", sound, "--short-side", "48", "--anchor-sizes", *["200", "220", "240", "260", "280"])
    assert ended.status == 0
    assert (
        "72 of 72 objects are fit by no anchor. With these it would be 0:\n  fpn train ... --anchor-sizes " in ended.out
    )
    assert "    72  objects that no anchor fits\n" in ended.out


def test_a_repaired_copy_passes_and_its_changes_are_listed(fpn: Shell, faulty: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in faulty.rglob("*") if path.is_file()}
    output = tmp_path / "repaired"
    ended = fpn("check", faulty, "--fix", output)
    assert ended.status == 1  # of what was checked
    assert (
        f"repaired copy: {output} (2 changes, of which 2 leave something out, listed in {output / 'CHANGES.txt'})"
        in ended.out
    )
    assert len((output / "CHANGES.txt").read_text().splitlines()) == 2
    assert fpn("check", output).status == 0
    assert {path: path.read_bytes() for path in faulty.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("option", "says"), [("--output", "set: is a folder. Name a file"), ("--fix", "set: is already there")]
)
def test_nothing_is_written_over(fpn: Shell, sound: Path, tmp_path: Path, option: str, says: str) -> None:
    file = tmp_path / "there"
    file.write_text("mine")
    message = fpn.fails("check", sound, option, file)
    assert "there: is already there" in message
    assert file.read_text() == "mine"
    assert says in fpn.fails("check", sound, option, sound)


def test_options_that_make_no_sense_stop_before_the_work(fpn: Shell, sound: Path, tmp_path: Path) -> None:
    assert "leave --split out" in fpn.fails("check", sound, "--split", "val", "--fix", tmp_path / "out")
    assert "Did you mean 'val'?" in fpn.fails("check", sound, "--split", "vall")
    assert "no such file or folder" in fpn.fails("check", tmp_path / "gone")


def test_images_above_the_limit_of_training_are_told(fpn: Shell, tmp_path: Path) -> None:
    planted = Planted(tmp_path / "set")
    paint(0).resize((128, 96)).save(planted.image(0))
    planted.entry(0).update(width=128, height=96)
    root = planted.save()
    ended = fpn("check", root, "--max-pixels", 128 * 96 - 1)
    assert ended.status == 1
    assert "images/p00.png: 128 x 96 is 12288 pixels, more than the limit of 12287 pixels" in ended.out
    assert fpn("check", root, "--max-pixels", 128 * 96).status == 0


def test_a_split_alone(fpn: Shell, sound: Path) -> None:
    ended = fpn("check", sound, "--split", "val")
    assert re.search(r"val +4 +8", ended.out)
    assert "train" not in ended.out.split("Classes")[0].split("\n", 1)[1]


def test_names_out_of_files_do_not_move_the_cursor(fpn: Shell, tmp_path: Path) -> None:
    planted = Planted(tmp_path / "set")
    planted.entry(0)["file_name"] = "\x1b[2Jp00.png"
    ended = fpn("check", planted.save())
    assert ended.status == 1
    assert "\x1b" not in ended.out
    assert "images/?[2Jp00.png does not exist" in ended.out


@pytest.mark.parametrize("columns", [80, 120])
def test_tables_and_findings_fit_a_terminal(
    fpn: Shell, faulty: Path, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"COLUMNS": str(columns), "TTY_COMPATIBLE": "1", "TERM": "dumb"}.items():
        monkeypatch.setenv(name, value)
    lines = fpn("check", faulty).out.splitlines()
    assert max(map(len, lines)) <= columns
    start = next(number for number, line in enumerate(lines) if "annotation id 23 of" in line)
    end = next(number for number, line in enumerate(lines) if "box (2, 3, 22, 3)" in line)
    # What does not fit goes on below, under its own beginning; how much fits depends on the folder's name.
    assert lines[start].startswith("        annotations/instances_train.json: annotation id 23 of")
    assert start < end or columns > 80
    assert all(line.startswith("        ") for line in lines[start : end + 1])


# --- what augmentation does to it ---


def test_each_kind_of_change_is_drawn_on_a_sheet(fpn: Shell, sound: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "kinds.jpg"
    ended = fpn("check", sound, "--augment-preview", sheet)
    assert ended.status == 0
    assert f"augmentation, each kind of change alone: {sheet}" in ended.out
    assert "grey and dashed: too little of it is left to learn from" in ended.out
    with Image.open(sheet) as drawn:
        assert (drawn.format, drawn.width) == ("JPEG", 4 * 440 + 3 * 11 + 6 * 11)


def test_the_changes_of_options_and_file_are_drawn_epoch_by_epoch(fpn: Shell, sound: Path, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("mosaic = 0.5\nepochs = 3\n")
    sheet = tmp_path / "epochs.png"
    ended = fpn("check", sound, "--augment-preview", sheet, "--config", file, "--jitter", "0.5", "1.5")
    assert f"as training would see it in its first epochs: {sheet}" in ended.out
    with Image.open(sheet) as drawn:
        assert (drawn.format, drawn.width) == ("PNG", 5 * 440 + 4 * 11 + 6 * 11)


def test_a_preview_that_can_not_be_kept_or_was_not_asked_for_stops_before_the_work(
    fpn: Shell, sound: Path, tmp_path: Path
) -> None:
    there = tmp_path / "there.png"
    there.write_bytes(b"mine")
    assert "there.png: is already there" in fpn.fails("check", sound, "--augment-preview", there)
    assert there.read_bytes() == b"mine"
    assert "expected a name that ends in .jpg" in fpn.fails("check", sound, "--augment-preview", tmp_path / "a.gif")
    assert "do nothing without --augment-preview" in fpn.fails("check", sound, "--mosaic", "1")
