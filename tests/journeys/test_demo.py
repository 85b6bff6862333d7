from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from shell import Shell

from fpn.studies import demo
from fpn.training.config import TrainConfig

from .conftest import SMALL


@pytest.fixture
def tiny_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo's story in seconds."""
    training = TrainConfig(steps=2, batch_size=2, workers=0, precision="float32", validate_every=0)
    usual = {"scenes": 4, "held_out": 3, "shown": 2, "kept": 2, "detector": SMALL, "training": training}

    real = demo.DemoRecipe.__init__

    def begin(self: demo.DemoRecipe, **given: Any) -> None:
        real(self, **{**usual, **given})

    monkeypatch.setattr(demo.DemoRecipe, "__init__", begin)


@pytest.mark.usefixtures("tiny_recipe")
def test_the_demo_leaves_a_model_figures_a_contact_sheet_and_scenes_that_its_advice_works_on(
    fpn: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = fpn("demo")
    assert ended.status == 0, ended.err
    left = Path("fpn-demo")
    assert json.loads((left / "metrics.json").read_text())["images"] == 3
    with Image.open(left / "contact-sheet.png") as sheet:
        assert sheet.width > sheet.height
    advice = [line.split()[1:] for line in ended.out.splitlines() if line.startswith("  fpn ")]
    assert [words[0] for words in advice] == ["predict", "evaluate", "check", "train"]
    for words in advice[:2]:
        assert fpn(*words).status == 0
    assert len(list((left / "predictions").glob("*.jpg"))) == 2


@pytest.mark.usefixtures("tiny_recipe")
def test_a_second_demo_leaves_the_first_as_it_is(fpn: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("fpn-demo").mkdir()
    Path("fpn-demo/model.safetensors").write_text("my first one")
    ended = fpn("demo", "--scenes", 4)
    assert ended.status == 0, ended.err
    assert "fpn-demo holds something already" in ended.out
    assert Path("fpn-demo/model.safetensors").read_text() == "my first one"
    assert Path("fpn-demo-2/model.safetensors").exists()


def test_nowhere_to_write_is_noticed_before_training(fpn: Shell, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert "can't write there" in fpn.fails("demo", "--output", tmp_path / "file" / "demo")
    assert (tmp_path / "file").read_text() == "mine"
