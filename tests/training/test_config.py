from __future__ import annotations

import subprocess
import sys

import pytest

from fpn.errors import ConfigError, DataNotFoundError
from fpn.training.config import TrainConfig


def test_an_unknown_setting_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match=r"unknown setting 'learnin_rate'\. Did you mean 'learning_rate'\?"):
        TrainConfig(learnin_rate=0.1)


def test_a_value_out_of_range_is_refused_with_its_name():
    with pytest.raises(ConfigError, match=r"batch_size 0: expected 1 or more"):
        TrainConfig(batch_size=0)


def test_milestones_must_rise():
    with pytest.raises(ConfigError, match="rising fractions"):
        TrainConfig(milestones=(0.9, 0.5))


def test_a_setting_can_not_be_changed_afterwards():
    with pytest.raises(ValueError, match="frozen"):
        TrainConfig().epochs = 3


def test_one_tracker_or_several_by_the_names_that_accelerate_gives_them():
    assert TrainConfig(tracker="wandb").tracker == ("wandb",)
    assert TrainConfig(tracker=["wandb", "mlflow"]).tracker == ("wandb", "mlflow")
    with pytest.raises(ConfigError, match=r"tracker\.0 'tensorbord': .* Did you mean 'tensorboard'\?"):
        TrainConfig(tracker="tensorbord")


def test_every_setting_has_a_description():
    assert [name for name, each in TrainConfig.model_fields.items() if not each.description] == []


def test_all_that_is_new_is_off_unless_asked_for():
    """Today's defaults: a flip in every second image, nothing else."""
    off = {
        "jitter": (1.0, 1.0),
        "scale": (1.0, 1.0),
        **dict.fromkeys(("vertical_flip", "rotate", "crop", "mosaic"), 0.0),
    }
    off |= dict.fromkeys(("mix_up", "copy_paste", "colour", "blur", "noise", "jpeg", "repeat_rare"), 0.0)
    assert {name: getattr(TrainConfig(), name) for name in off} == off
    assert TrainConfig().flip == 0.5


def test_what_was_written_to_json_comes_back_equal():
    config = TrainConfig(steps=7, scale=(0.5, 2.0), frozen=("features.backbone",))
    assert TrainConfig(**config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.toml", "epochs = 3\nscale = [0.5, 2]\n"), ("a.yaml", "epochs: 3\nscale: [0.5, 2]\n")],
)
def test_toml_and_yaml_files_carry_the_same_keys_and_changes_win(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert TrainConfig.from_file(tmp_path / name, seed=5) == TrainConfig(epochs=3, scale=(0.5, 2.0), seed=5)


@pytest.mark.parametrize(
    ("text", "said"),
    [("epoch: 3\n", "Did you mean 'epochs'"), ("- 3\n", "got a list"), ("a: [\n", "can't be parsed")],
)
def test_a_bad_file_is_refused_with_its_name(tmp_path, text, said):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=rf"mine\.yaml: .*{said}"):
        TrainConfig.from_file(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataNotFoundError, match=r"mine\.toml"):
        TrainConfig.from_file(tmp_path / "mine.toml")


def test_settings_are_known_without_importing_torch():
    code = "import sys, fpn.training.config; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"
