from __future__ import annotations

import csv
from pathlib import Path

import pytest

from fpn.errors import OutputError
from fpn.spreadsheets import beside, detection_row, refuse_other_csv, write_csv


def test_a_table_holds_what_its_rows_say_in_any_script_with_commas_quotes_and_gaps(tmp_path: Path) -> None:
    rows = [{"file_name": 'Sch\u00e4den, "1".png', "score": 0.5}, {"file_name": "\u87ba.png", "class": None}]
    write_csv(tmp_path / "deep/a.csv", rows)
    text = (tmp_path / "deep/a.csv").read_bytes()
    assert text.startswith(b"\xef\xbb\xbffile_name,score,class\n")
    with (tmp_path / "deep/a.csv").open(encoding="utf-8-sig", newline="") as stream:
        read = list(csv.DictReader(stream))
    assert read[0] == {"file_name": 'Sch\u00e4den, "1".png', "score": "0.5", "class": ""}
    assert read[1] == {"file_name": "\u87ba.png", "score": "", "class": ""}


def test_a_table_without_rows_has_its_header(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [], ("file_name", "score"))
    assert (tmp_path / "a.csv").read_text("utf-8-sig") == "file_name,score\n"


def test_a_name_that_is_no_text_is_written_with_a_question_mark(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [{"file_name": b"a\xff.png".decode("utf-8", "surrogateescape")}])
    assert (tmp_path / "a.csv").read_text("utf-8-sig") == "file_name\na?.png\n"


def test_no_text_out_of_a_file_is_a_formula_and_a_path_still_names_its_file(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [{"file_name": "=1+1.png", "class": "@nut", "score": -0.5, "message": "a=b"}])
    assert (tmp_path / "a.csv").read_text("utf-8-sig").splitlines()[1] == "./=1+1.png,'@nut,-0.5,a=b"
    (tmp_path / "=1+1.png").touch()
    assert (tmp_path / "./=1+1.png").exists()


def test_a_detection_is_corners_in_pixels() -> None:
    record = {"image_id": 7, "category_id": 3, "bbox": [1.5, 2.0, 10.12345, 4.0], "score": 0.123456789}
    assert detection_row(record, "a.png", "bolt") == {
        "file_name": "a.png",
        "image_id": 7,
        "class": "bolt",
        "category_id": 3,
        "score": 0.123457,
        "x_min": 1.5,
        "y_min": 2.0,
        "x_max": 11.623,
        "y_max": 6.0,
    }


def test_a_csv_that_came_without_the_json_is_never_replaced(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    assert beside(file) == tmp_path / "figures.csv"
    refuse_other_csv(None)
    refuse_other_csv(file)
    beside(file).write_text("mine")
    with pytest.raises(OutputError, match=r"figures\.csv: is already there, and figures\.json"):
        refuse_other_csv(file)
    file.write_text("{}")
    refuse_other_csv(file)
    with pytest.raises(OutputError, match=r"Call it \.json"):
        refuse_other_csv(tmp_path / "other.csv")
