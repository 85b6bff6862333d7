from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fpn import fonts
from fpn.drawing import contact_sheet, draw
from fpn.fonts import FontWarning, fit_font, is_drawable, missing_letters
from fpn.structures import Classes, Detections

CACHES = (
    fonts._warn_once,
    fonts._file_for,
    fonts._fullest,
    fonts._has,
    fonts._shape,
    fonts._probe,
    fonts._opened,
    fonts._font_files,
)


def forget() -> None:
    for cache in CACHES:
        cache.cache_clear()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The only folder of fonts, empty."""
    monkeypatch.setattr(fonts, "_folders", lambda: iter([tmp_path]))
    forget()
    yield tmp_path
    forget()


def with_umlauts() -> Path:
    """A font of this machine that has Latin letters with accents, Cyrillic ones, and no Chinese ones."""
    for file in fonts._font_files():
        if all(fonts._has(file, letter) for letter in "aäöЖ") and not fonts._has(file, "螺"):
            return Path(file)
    pytest.skip("no font with Latin and Cyrillic letters on this machine")


def shown(name: str) -> np.ndarray:
    found = Detections(torch.tensor([[20.0, 40, 90, 100]]), torch.tensor([0.75]), torch.tensor([0]))
    image = Image.new("RGB", (200, 120), (90, 90, 90))
    return np.asarray(draw(image, found, Classes((name,), (7,))))


def test_ascii_needs_no_font_but_pillows(folder: Path) -> None:
    font, text = fit_font("bolt 0.95", 20)
    assert (font.getname()[0], text, font.size) == ("Aileron", "bolt 0.95", 20)
    assert missing_letters(["bolt", "nut"]) is None


def test_letters_of_other_scripts_differ_from_each_other_and_from_what_is_missing(
    tmp_path_factory: pytest.TempPathFactory, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    forget()
    file = with_umlauts()
    monkeypatch.setattr(fonts, "_folders", lambda: iter([folder]))
    forget()
    shutil.copy(file, folder)
    assert missing_letters(["Schäden", "Жук", "Ελλάδα"]) is None
    font, text = fit_font("Schäden 0.95", 20)
    assert text == "Schäden 0.95"
    assert font.path == str(folder / file.name)
    shapes = {fonts._shape(str(folder / file.name), letter) for letter in "äöЖ"}
    assert len(shapes) == 3
    pictures = [shown(name) for name in ("ä", "ö", "Ж", "a")]
    assert not any((one == other).all() for k, one in enumerate(pictures) for other in pictures[:k])
    assert fit_font("Scha\u0308den", 20)[1] == "Schäden"  # as macOS writes it


def test_one_font_is_taken_for_all_classes_where_it_has_all_their_letters(folder: Path) -> None:
    assert fit_font("bolt", 20, ["bolt", "nut"])[0].getname()[0] == "Aileron"
    assert fit_font("bolt", 20, ["Schäden"])[0].getname()[0] == "Aileron"  # there is none that has both


def test_without_a_font_accents_go_and_other_letters_become_the_id(folder: Path) -> None:
    assert fit_font("Schäden Ñandú", 20)[1] == "Schaden Nandu"
    assert fit_font("螺 1", 20)[1] == "? 1"
    assert is_drawable("Schäden")
    assert is_drawable("what?")
    assert not is_drawable("螺栓")
    with pytest.warns(FontWarning):
        assert (shown("螺栓") == shown("#7")).all()


def test_what_no_font_has_is_said_once_with_a_remedy(folder: Path) -> None:
    with pytest.warns(FontWarning, match=r"no font on this machine has 螺 栓:.*fpn\[fonts\].*fonts-noto-cjk") as told:
        assert (shown("螺栓") == shown("螺栓")).all()
    assert len(told) == 1
    with pytest.warns(FontWarning, match="has ü"):
        contact_sheet([[Image.new("RGB", (9, 9))]], ["geprüft"])


@pytest.mark.parametrize("content", [b"", b"no font", b"\x00\x01\x00\x00" + b"\xff" * 400])
def test_a_broken_font_file_is_passed_over(content: bytes, folder: Path) -> None:
    (folder / "dejavusans.ttf").write_bytes(content)
    (folder / "LastResort.otf").write_bytes(b"has a sign for all, and says nothing")
    assert len(fonts._font_files()) == 1
    assert fit_font("ä", 20)[1] == "a"


@pytest.mark.parametrize(
    ("better", "worse"),
    [("NotoSansCJK-Regular.ttc", "DejaVuSans.ttf"), ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf"), ("arial.ttf", "z.otf")],
)
def test_plain_fonts_with_many_letters_come_first(better: str, worse: str, folder: Path) -> None:
    for name in (worse, better):
        (folder / name).touch()
    assert list(map(Path, fonts._font_files())) == [folder / better, folder / worse]
