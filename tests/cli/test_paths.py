"""A path that is not there is told by every verb in one way, before anything is imported for it."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel
from shell import Shell

from fpn.cli.app import COMMANDS
from fpn.cli.paths import There, hints_of
from fpn.suggestions import nearest_path

# Paths that are written.
WRITTEN = {"output", "report", "fix", "detections", "augment_preview"}
WORDS = [
    ("train", "cels"),
    ("train", "cells", "--output", "r", "--images", "cels"),
    ("train", "cells", "--output", "r", "--validation", "cels"),
    ("train", "--resume", "rums/first"),
    ("train", "cells", "--init", "runs/frist/best.safetensors"),
    ("train", "cells", "--config", "runs/first/setings.toml"),
    ("evaluate", "runs/first/best", "cells"),
    ("evaluate", "runs/first/best.safetensors", "cels"),
    ("compare", "runs/first/best.safetensors", "runs/first/bst.safetensors", "cells"),
    ("calibrate", "runs/first", "cells"),
    ("report", "runs/first/best.safetensors", "cells", "--output", "r", "--run-folder", "runs/frist"),
    ("predict", "runs/frist/best.safetensors", "cells"),
    ("predict", "runs/first/best.safetensors", "CELS"),
    ("predict", "runs/first/best.safetensors", "cells", "--ids", "runs/first/setings.toml"),
    ("batch", "runs/first/best.safetensors", "cels", "--output", "o"),
    ("serve", "cells=runs/first/Best.safetensor"),
    ("suggest", "runs/first/best.safetensors", "cels"),
    ("suggest", "runs/first/best.safetensors", "cells", "--labelled", "cels"),
    ("explain", "runs/first/bets.safetensors"),
    ("diagnose", "runs/first/best.safetensors", "cels"),
    ("plan", "cels"),
    ("ablate", "cels", "--output", "o"),
    ("check", "cels"),
    ("check", "cells", "--config", "runs/first/settngs.toml"),
    ("benchmark", "--exported", "runs/first/bets.safetensors"),
    ("split", "cels", "o"),
    ("convert", "cels", "o", "--to", "coco"),
    ("import", "runs/first/bets.safetensors", "--output", "new.safetensors"),
    ("export", "runs/first/bets.safetensors", "--format", "onnx", "--output", "o.onnx"),
    ("export", "runs/first/best.safetensors", "--format", "onnx", "--output", "o.onnx", "--int8", "cels"),
]


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cells").mkdir()
    (tmp_path / "runs" / "first").mkdir(parents=True)
    for name in ("best.safetensors", "settings.toml"):
        (tmp_path / "runs" / "first" / name).touch()
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("beside")
@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_a_path_that_is_not_there_is_told_with_the_nearest_one(fpn: Shell, words: tuple[str, ...]) -> None:
    (said,) = fpn.fails(*words).splitlines()
    meant = ("cells", "runs/first", "runs/first/best.safetensors", "runs/first/settings.toml")
    assert said.endswith(tuple(f"Did you mean '{each}'?" for each in meant))
    assert ": no such " in said or "runs/first: is a folder, and not a model file." in said


@pytest.mark.usefixtures("beside")
def test_nothing_heavy_is_imported_for_it() -> None:
    """Of all verbs in one process, which takes a second."""
    code = (
        "import sys; from fpn.cli import main\n"
        f"for words in {[list(words) for words in WORDS]!r}:\n"
        "    assert main(words) == 1, words\n"
        "    assert not {'torch', 'timm', 'torchvision'} & set(sys.modules), words\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_path_says_what_has_to_be_there_or_is_written(verb: str) -> None:
    verbs = hints_of(import_module(COMMANDS[verb][0]).run)
    groups = [each for hint in verbs.values() for inner in get_args(hint)[:1] for each in get_args(inner)]
    hints = [verbs, *(hints_of(each) for each in groups if isinstance(each, type) and issubclass(each, BaseModel))]
    for name, hint in [pair for each in hints for pair in each.items()]:
        if "Path" in str(hint) and name not in WRITTEN:
            assert any(isinstance(each, There) for each in get_args(hint)), f"{verb} {name}"


@pytest.mark.usefixtures("beside")
def test_of_a_file_of_settings_the_file_is_named_unless_a_word_wins(fpn: Shell) -> None:
    Path("run.toml").write_text('data = "cels"\nimages = "cels"\n')
    assert "run.toml: data cels: no such file or folder. Did you mean 'cells'?" in fpn.fails(
        "train", "--config", "run.toml", "--output", "r"
    )
    said = fpn.fails("train", "cells", "--config", "run.toml", "--output", "r")
    assert "run.toml: images cels: no such folder. Did you mean 'cells'?" in said


@pytest.mark.usefixtures("beside")
@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("tests.toml", " The current folder has cells, runs."),
        ("runs/first/nothing.toml", " 'runs/first' has best.safetensors, settings.toml."),
        ("nothing", " The current folder has cells, runs."),
        ("runs/second/best.safetensors", " 'runs' has first."),
        ("Runs/first/weights", " Did you mean 'runs/first'? It has best.safetensors, settings.toml."),
        ("cells/a.jpg", " 'cells' has nothing in it."),
        ("RUNS/FIRST", " Did you mean 'runs/first'?"),
    ],
)
def test_where_no_name_is_near_the_folder_is_told(path: str, hint: str) -> None:
    assert nearest_path(path) == hint


@pytest.mark.usefixtures("beside")
@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (
            "predict a.png",
            1,
            "a.png: is an image, and not a model file. A model is the .safetensors file that `fpn train`",
        ),
        ("predict cells a.png", 1, "cells: is a folder, and not a model file."),
        ("evaluate cells", 2, "cells: is a folder, and not a model file."),
        (
            "compare runs/first/best.safetensors cells",
            2,
            "cells: is a folder, and not a model file or file of detections.",
        ),
        ("evaluate runs/first/best.safetensors", 2, "DATA is missing."),
        ("evaluate runs/first/best.safetensors a.png", 1, "a.png: is an image, and not a file or folder of labelled"),
        (
            "check runs/first/best.safetensors",
            1,
            "is a model file, and not a file or folder of labelled images. Name the",
        ),
        ("export a.png --format onnx --output o.onnx", 1, "a.png: is an image, and not a model file."),
    ],
)
def test_what_stands_in_anothers_place_is_named_with_the_usage(fpn: Shell, words: str, status: int, said: str) -> None:
    Path("a.png").touch()
    ended = fpn(*words.split())
    assert (ended.status, ended.out) == (status, "")
    assert said in " ".join(ended.err.split())
    assert f"Usage: fpn {words.split()[0]} " in ended.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("predict m --classes cell", "Unknown option: --classes. Classes need not be named: they are those of the"),
        ("predict m --scroe 0.4", "Unknown option: --scroe. Did you mean --score?"),
        ("predict m --conf=0.4", "Unknown option: --conf. Did you mean --score?"),
        (
            "predict m --imgsz 640",
            "Unknown option: --imgsz. Images are resized as they were for the training: fpn train",
        ),
        ("train d --img-size 640", "Unknown option: --img-size. Did you mean --short-side?"),
        (
            "predict m --iou-thres 0.5",
            "Unknown option: --iou-thres. The IoU of NMS is the model's own: fpn train --set",
        ),
        ("predict m --source a", "Unknown option: --source. IMAGES stands by itself, without an option."),
        ("predict m --weights a", "Unknown option: --weights. MODEL stands by itself, without an option."),
        ("train --data d", "Unknown option: --data. DATA stands by itself, without an option."),
        ("predict m a --save-txt", "Unknown option: --save-txt. Results are always written, into --output."),
        ("evaluate m d --half", "Unknown option: --half. Did you mean --precision?"),
        ("predict m a --project p --name n", "Unknown option: --project. Did you mean --output?"),
        ("predict m a --epochs 2", "Unknown option: --epochs. It is a matter of training: see fpn train --help."),
        ("compare a b d --conf-thres 0.2", "Unknown option: --conf-thres. Detections of every score count here;"),
        ("doctor --batch 2", "Unknown option: --batch.\nSee: fpn doctor --help"),
        ("predict m --score.jpg", "Unknown option: --score.jpg. If it is a file, write ./--score.jpg"),
        ("train d --lr 0.1", "Unknown option: --lr. Did you mean --learning-rate?"),
        ("train d --budget 1h", "Unknown option: --budget. Did you mean --time-budget?"),
        ("train d --tilt", "Unknown option: --tilt.\nSee: fpn train --help"),
        ("report m d --outptu r", "--output is missing. Did you mean it by --outptu?"),
        ("predict m --score", "--score has no value."),
    ],
)
def test_an_unknown_option_is_told_with_one_that_is_really_near(fpn: Shell, words: str, said: str) -> None:
    ended = fpn(*words.split())
    assert ended.status == 2
    assert said in ended.err
