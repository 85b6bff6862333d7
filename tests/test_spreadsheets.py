from __future__ import annotations

import csv
from pathlib import Path

import pytest

from fpn.errors import OutputError
from fpn.files import maker, write_figures
from fpn.spreadsheets import beside, detection_row, refuse_others, write_csv


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


def test_figures_replace_only_what_the_same_command_wrote(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    assert beside(file) == tmp_path / "figures.csv"
    refuse_others(None)
    refuse_others(file)
    beside(file).write_text("mine")
    with pytest.raises(OutputError, match=r"figures\.csv: is already there, and figures\.json"):
        refuse_others(file)
    write_figures(file, "fpn compare", {"ap": 0.5})
    refuse_others(file, "fpn compare", "-images.csv")
    for other in ("fpn evaluate", ""):
        with pytest.raises(OutputError, match=r"figures\.json: is already there.*\. Name a new file; nothing of yours"):
            refuse_others(file, other)
    (tmp_path / "new-images.csv").write_text("mine")
    with pytest.raises(OutputError, match=r"new-images\.csv: is already there"):
        refuse_others(tmp_path / "new.json", "fpn compare", "-images.csv")
    with pytest.raises(OutputError, match=r"Call it \.json"):
        refuse_others(tmp_path / "other.csv")


@pytest.mark.parametrize(
    ("text", "whose"),
    [
        (
            '[{"image_id": 1, "category_id": 2, "score": 0.5, "bbox": [1, 2, 3, 4], "file_name": "a"}, {}]',
            "fpn evaluate",
        ),
        ('[{"image_id": 1, "category_id": 2, "score": 0.5, "bbox": [1, 2, 3, 4]}, {"file_name": "a"}]', ""),
        ('{"images": [], "annotations": [], "info": {"made_by": "fpn evaluate"}}', ""),
    ],
)
def test_labels_and_others_results_are_nobodys_figures(tmp_path: Path, text: str, whose: str) -> None:
    (tmp_path / "a.json").write_text(text)
    assert maker(tmp_path / "a.json") == whose
