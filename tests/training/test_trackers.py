from __future__ import annotations

import pytest
from accelerate import tracking
from accelerate.utils import LoggerType

from fpn.errors import ConfigError, MissingExtraError, TrainingError
from fpn.evaluation.tasks import TASKS
from fpn.training import trackers
from fpn.training.config import TrainConfig
from fpn.training.trackers import check_trackers
from fpn.training.trainer import train

from .tiny import tiny_detector, tiny_scenes

# Six scenes in batches of two: three steps an epoch.
SETTINGS = {"epochs": 1, "batch_size": 2, "workers": 0, "device": "cpu", "precision": "float32", "log_every": 2}


class Notebook(tracking.GeneralTracker):
    """A tracker that keeps all in memory."""

    name = "wandb"
    requires_logging_directory = False
    told: list[object] = []  # noqa: RUF012  what all runs have told
    fails = ""

    def __init__(self, project, **_):
        super().__init__()
        self.project = project

    @property
    def tracker(self):
        return self

    def start(self):
        self._fail_at("start")
        self.told.append(("start", self.project))

    def store_init_configuration(self, values):
        self.told.append(("settings", values["batch_size"], values["scale"]))

    def log(self, values, step=None, **_):
        self._fail_at("log")
        self.told.append((step, sorted(values)))

    def finish(self):
        self.told.append("finish")

    def _fail_at(self, moment):
        if self.fails == moment:
            raise OSError("no network")


@pytest.fixture
def notebook(monkeypatch):
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "wandb", Notebook)
    monkeypatch.setattr(tracking, "_available_trackers", [LoggerType.WANDB])
    monkeypatch.setattr(Notebook, "told", [])
    return Notebook


def run(**options):
    config = TrainConfig(**SETTINGS, tracker="wandb")
    return train(tiny_detector(), tiny_scenes(), config, progress=False, **options)


def test_a_tracker_gets_settings_each_line_and_an_end(notebook, aps):
    aps += [0.5]
    run(validation=tiny_scenes(2))
    start, settings, two, three, epoch, finish = notebook.told
    assert (start, settings, finish) == (("start", "fpn"), ("settings", 2, "[1.0, 1.0]"), "finish")
    assert (two[0], three[0]) == (2, 3)
    assert two[1] == [
        *("step/box", "step/count", "step/epoch", "step/gradient_norm", "step/images_per_second"),
        *("step/learning_rate", "step/loss", "step/objects"),
    ]
    assert epoch == (3, sorted(f"epoch/{name}" for name in ("epoch", *TASKS["boxes"].metrics)))


def test_a_tracker_that_is_not_installed_is_refused_before_work_starts(monkeypatch, tmp_path):
    monkeypatch.setattr(trackers, "get_available_trackers", list)
    detector, config = tiny_detector(), TrainConfig(**SETTINGS, tracker="tensorboard")
    with pytest.raises(MissingExtraError, match=r"tracker 'tensorboard': .* pip install 'fpn\[tensorboard\]'"):
        train(detector, tiny_scenes(), config, output=tmp_path / "run", progress=False)
    assert (detector.calls, (tmp_path / "run").exists()) == (0, False)
    with pytest.raises(MissingExtraError, match="pip install 'comet-ml'"):
        check_trackers(["comet_ml"], tmp_path)


def test_a_tracker_that_writes_files_needs_a_folder():
    pytest.importorskip("tensorboard")
    with pytest.raises(ConfigError, match="tracker 'tensorboard': needs an output folder"):
        check_trackers(["tensorboard"], None)


def test_a_tracker_that_does_not_start_is_named(notebook, monkeypatch):
    monkeypatch.setattr(notebook, "fails", "start")
    with pytest.raises(ConfigError, match=r"tracker wandb: can't be started .OSError: no network"):
        run()


def test_a_tracker_that_fails_later_ends_the_run_and_the_checkpoint_goes_on_without_it(notebook, monkeypatch, tmp_path):
    monkeypatch.setattr(notebook, "fails", "log")
    with pytest.raises(TrainingError, match=r"tracker wandb: failed after step 2 .*--resume goes on from there"):
        run(output=tmp_path / "run")
    config = TrainConfig(**SETTINGS)
    result = train(tiny_detector(), tiny_scenes(), config, resume=tmp_path / "run", progress=False)
    assert result.steps == 3


def test_tensorboard_files_lie_in_the_runs_folder(tmp_path):
    pytest.importorskip("tensorboard")
    config = TrainConfig(**SETTINGS, tracker="tensorboard")
    train(tiny_detector(), tiny_scenes(), config, output=tmp_path / "run", progress=False)
    assert list((tmp_path / "run/logs/fpn").glob("events.out.*"))


def test_every_tracker_that_the_settings_name_is_one_of_accelerates():
    field = TrainConfig.model_fields["tracker"].annotation
    names = set(field.__args__[0].__args__)
    assert names <= set(tracking.LOGGER_TYPE_TO_CLASS)
