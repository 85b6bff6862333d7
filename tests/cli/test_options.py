from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from fpn.cli.options import DataOptions, Given, ModelOptions
from fpn.data.loading.augmentation.config import AugmentationConfig
from fpn.detectors import faster_rcnn
from fpn.errors import ConfigError, DataNotFoundError
from fpn.features.necks.designs import DESIGNS
from fpn.training.config import RunSettings, TrainConfig


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_an_option_wins_over_the_file_and_the_file_over_the_default(tmp_path: Path) -> None:
    file = written(tmp_path, "run.toml", 'epochs = 3\nbatch_size = 2\nbackbone = "resnet18"\nsplit = "train"\n')
    given = Given(Path("cells"), file, {"training": TrainConfig(epochs=5), "model": None, "data": None})
    assert given.training == {"epochs": 5, "batch_size": 2}
    assert given.model == {"backbone": "resnet18"}
    assert DataOptions(**given.data).split == "train"


def test_an_option_wins_also_when_it_says_the_default(tmp_path: Path) -> None:
    file = written(tmp_path, "run.toml", "epochs = 3\n")
    assert Given(None, file, {"training": TrainConfig(epochs=12)}).training == {"epochs": 12}


def test_yaml_and_hyphens_are_fine_and_data_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "cells").mkdir(parents=True)
    file = written(tmp_path, "run.yaml", "data: photos/cells\nbatch-size: 8\nmilestones: [0.5, 0.9]\nshort-side: 320\n")
    given = Given(None, file, {})
    assert given.path == Path("photos/cells")
    assert TrainConfig(**given.training).milestones == (0.5, 0.9)
    assert ModelOptions(**given.model).short_side == 320


def test_trackers_and_the_metric_that_decides_may_stand_in_the_file(tmp_path: Path) -> None:
    given = Given(None, written(tmp_path, "run.toml", 'tracker = ["wandb", "mlflow"]\nbest = "ap50"\n'), {})
    assert TrainConfig(**given.training) == TrainConfig(tracker=("wandb", "mlflow"), best="ap50")
    given = Given(None, written(tmp_path, "one.toml", 'tracker = "wandb"\n'), {})
    assert TrainConfig(**given.training).tracker == ("wandb",)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("learning_rat = 0.1\n", "run.toml, line 1: unknown setting 'learning_rat'. Did you mean 'learning_rate'?"),
        ("bakbone = 'resnet18'\n", "Did you mean 'backbone'?"),
        ("epochs = 0\n", "run.toml, line 1: epochs 0: expected 1 or more"),
        ("short_side = 1\n", "short_side 1: expected 16 or more"),
        ('tracker = "wandbb"\n', "tracker.0 'wandbb': input should be 'aim', 'clearml'"),
        ('tracker = "wandbb"\n', "Did you mean 'wandb'?"),
        ("epochs = \n", "run.toml: can't be parsed"),
        ("\ufeffepochs = 0\n", "run.toml, line 1: epochs 0"),
        ("epochs = 1\ndialect = 'pper'\n", "run.toml, line 2: dialect 'pper': faster_rcnn has paper, "),
        ("backbone = 'resnet5'\n", "run.toml, line 1: backbone 'resnet5': timm has no such model."),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Given(None, written(tmp_path, "run.toml", text), {})
    assert reason in str(raised.value)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("run.toml", "epochs = 1\n".encode("utf-16"), "run.toml: not UTF-8 text. Save it again as UTF-8."),
        ("run.yaml", b"epochs: " + b"[" * 5000, "run.yaml: can't be parsed: nested too deeply"),
    ],
)
def test_a_file_that_is_no_text_or_has_no_end_is_named(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        Given(None, tmp_path / name, {})
    assert str(raised.value).endswith(reason)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match=r"absent\.toml"):
        Given(None, tmp_path / "absent.toml", {})


def test_the_defaults_of_the_command_are_those_of_the_library() -> None:
    library = dict(inspect.signature(faster_rcnn).parameters)
    assert ModelOptions.model_fields["detector"].default == faster_rcnn.__name__
    for name, option in ModelOptions.model_fields.items():
        if name == "detector":
            continue
        # Conventions are left to the dialect: None.
        expected = library[name].default if name in library else None
        assert option.default == expected, name
    assert library.keys() - ModelOptions.model_fields.keys() == {"classes", "conventions"}


def test_the_help_names_every_design() -> None:
    told = ModelOptions.model_fields["neck"].description or ""
    assert all(re.search(rf"\b{name}\b", told) for name in DESIGNS)


def test_options_of_augmentation_are_settings_of_the_run_and_may_stand_in_its_file(tmp_path: Path) -> None:
    file = written(tmp_path, "run.toml", "mosaic = 0.5\njitter = [0.5, 1.5]\nepochs = 3\nrepeat-rare = 0.1\n")
    options = {"training": RunSettings(epochs=4), "augmentation": AugmentationConfig(mosaic=0.25)}
    config = TrainConfig(**Given(None, file, options).training)
    assert (config.mosaic, config.jitter, config.epochs, config.repeat_rare) == (0.25, (0.5, 1.5), 4, 0.1)
    assert config.augmentation == AugmentationConfig(mosaic=0.25, jitter=(0.5, 1.5))


def test_a_settings_file_with_a_range_that_falls_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run\.toml, line 1: jitter 2 1: expected least and greatest"):
        Given(None, written(tmp_path, "run.toml", "jitter = [2, 1]\n"), {})
