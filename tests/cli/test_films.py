"""`fpn predict` of films: files, lines, refusals, and what is left of a film that is no film."""

from __future__ import annotations

import csv
import json
import os
import signal
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import fpn
from fpn.cli import fast_models
from fpn.cli.app import run_command
from fpn.films import Film, FilmWriter

av = pytest.importorskip("av", reason="needs the extra video")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    small = {"short_side": 32, "long_side": 64, "rpn_before_nms": (20, 20), "rpn_after_nms": (10, 10)}
    detector = fpn.faster_rcnn(
        classes=["=cat", "dog"], backbone="resnet18", weights=None, box_score_limit=0.0, box_limit=3, **small
    )
    return fpn.save(detector, tmp_path_factory.mktemp("model") / "m.safetensors")


@pytest.fixture(scope="module")
def loaded(model: Path) -> Any:
    return fast_models.load_fast(model, device="cpu")


@pytest.fixture(autouse=True)
def _loaded_once(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_models, "load_fast", lambda *_, **__: loaded)


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven frames, the last two later than usual, of odd width."""
    path = tmp_path_factory.mktemp("film") / "street.mp4"
    with FilmWriter(path, rate=Fraction(10)) as writer:
        for number, seconds in enumerate((0.0, 0.1, 0.2, 0.3, 0.4, 0.9, 1.5)):
            pixels = np.random.default_rng(number).integers(0, 255, (33, 49, 3), dtype=np.uint8)
            writer.write(Image.fromarray(pixels), seconds)
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_film_becomes_a_drawn_film_a_line_a_frame_and_rows(
    model: Path, street: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", str(model), str(street), "--output", str(tmp_path), "--score", "0", "--track"]
    assert run_command(words) == 0
    assert {each.name for each in tmp_path.iterdir()} == {"films.json", "street.mp4", "street.jsonl", "street.csv"}
    assert "street.mp4: 7 frames, the last at 1.50 s:" in capsys.readouterr().out
    told = lines(tmp_path / "street.jsonl")
    assert [each["frame"] for each in told] == list(range(7))
    assert [each["time"] for each in told] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.9, 1.5], abs=1e-3)
    assert {len(each["detections"]) for each in told} == {3}
    drawn = list(Film(tmp_path / "street.mp4"))
    assert [each.seconds for each in drawn] == pytest.approx([each["time"] for each in told], abs=1e-3)
    assert drawn[0].image.size == (50, 34)
    rows = list(csv.DictReader((tmp_path / "street.csv").read_text(encoding="utf-8-sig").splitlines()))
    assert len(rows) == 21
    assert {row["class"] for row in rows} <= {"'=cat", "dog"}  # no formula
    records = [each for line in told for each in line["detections"]]
    assert [row["class"].lstrip("'") for row in rows] == [each["label"] for each in records]
    assert [row["track"] for row in rows] == [str(each.get("track", "")) for each in records]
    listed = json.loads((tmp_path / "films.json").read_text())
    assert (listed["films"][0]["frames"], listed["films"][0]["damage"]) == (7, "")
    assert listed["categories"] == [{"id": 1, "name": "=cat"}, {"id": 2, "name": "dog"}]

    assert run_command([*words[:-3], "--every", "3", "--no-images"]) == 0  # what is ours is replaced
    told = lines(tmp_path / "street.jsonl")
    assert [each["frame"] for each in told] == [0, 3, 6]
    assert "track" not in told[1]["detections"][0]


def test_batches_and_threads_change_nothing(model: Path, street: Path, tmp_path: Path) -> None:
    for size in ("1", "4"):
        words = ["predict", str(model), str(street), "--output", str(tmp_path / size), "--track", "--batch-size", size]
        assert run_command([*words, "--no-images"]) == 0
    one, four = (lines(tmp_path / size / "street.jsonl") for size in ("1", "4"))
    assert [each["time"] for each in one] == [each["time"] for each in four]
    for a, b in zip(one, four, strict=True):
        boxes = [[each["bbox"] for each in line["detections"]] for line in (a, b)]
        assert np.abs(np.array(boxes[0]) - np.array(boxes[1])).max() < 1e-2


def test_what_is_no_film_leaves_nothing_and_the_other_is_done(
    model: Path, street: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no film")
    words = ["predict", str(model), str(bad), str(street), "--output", str(tmp_path / "out"), "--no-images"]
    assert run_command(words) == 1
    assert "skipped: " in capsys.readouterr().err
    assert {each.name for each in (tmp_path / "out").iterdir()} == {"films.json", "street.jsonl", "street.csv"}


def test_a_sigterm_leaves_nothing_of_the_film_at_hand(
    model: Path, street: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FilmWriter, "write", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    assert run_command(["predict", str(model), str(street), "--output", str(tmp_path)]) == 143
    assert capsys.readouterr().err.endswith("stopped by SIGTERM\n")
    assert [each.name for each in tmp_path.iterdir()] == ["films.json"]
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (lambda film: [film, "photo.jpg"], "is a film, and others of what is named are not"),
        (lambda _: ["photo.jpg", "--track"], "are about films, and none is named"),
        (lambda film: [film, "--tiles", "64"], "are about images, and films are named"),
    ],
    ids=["mixed", "image", "tiles"],
)
def test_what_does_not_go_together_is_said_before_any_work(
    words: Callable[[str], list[str]],
    told: str,
    street: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("no.safetensors", "photo.jpg"):
        Path(name).touch()
    assert run_command(["predict", "no.safetensors", *words(str(street)), "--output", str(tmp_path / "out")]) == 1
    assert told in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_a_film_of_the_users_is_not_replaced(
    model: Path, street: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "street.mp4").write_bytes(b"mine")
    assert run_command(["predict", str(model), str(street), "--output", str(tmp_path)]) == 1
    assert "is already there, and no earlier `fpn predict` wrote it" in " ".join(capsys.readouterr().err.split())
    assert [each.name for each in tmp_path.iterdir()] == ["street.mp4"]
    assert run_command(["predict", str(model), str(street), "--output", str(street.parent)]) == 1
    assert "would replace the image itself" in " ".join(capsys.readouterr().err.split())


def test_of_a_film_that_can_not_be_read_nothing_is_listed_as_written(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.mp4").write_text("no film")
    assert run_command(["predict", str(model), str(tmp_path / "text.mp4"), "--output", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert "text.mp4" in said.err
    assert "(films.json)" in " ".join(said.out.split())
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["films.json"]
