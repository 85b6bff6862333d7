from __future__ import annotations

import json

import pytest

from fpn.errors import ConfigError
from fpn.training import validation
from fpn.training.config import TrainConfig
from fpn.training.run_record import read_record
from fpn.training.trainer import train
from fpn.training.validation import METRICS, Metric, find_metric, screen_labels

from .tiny import TinyDetector, tiny_detector, tiny_scenes

SETTINGS = {"epochs": 3, "batch_size": 2, "workers": 0, "device": "cpu", "precision": "float32", "seed": 1}


def run(**options):
    output = options.pop("output", None)
    config = TrainConfig(**{**SETTINGS, **options})
    return train(tiny_detector(), tiny_scenes(), config, validation=tiny_scenes(2), output=output, progress=False)


def plant(aps):
    """AP is highest after epoch 1, AP50 after epoch 3, the average recall lowest after epoch 2."""
    aps += [
        {"ap": 0.5, "ap50": 0.6, "ar100": 0.4},
        {"ap": 0.4, "ap50": 0.5, "ar100": 0.3},
        {"ap": 0.3, "ap50": 0.7, "ar100": 0.5},
    ]


@pytest.mark.parametrize(("best", "value", "epoch"), [("ap", 0.5, 1), ("ap50", 0.7, 3)])
def test_the_metric_that_is_asked_for_says_which_epoch_is_best(aps, best, value, epoch):
    plant(aps)
    result = run(best=best)
    assert (result.best_metric, result.best_value, result.best_epoch) == (best, value, epoch)


def test_where_lower_is_better_the_lowest_value_is_best(aps, monkeypatch):
    errors = [Metric("ar100", higher_is_better=False) if each.name == "ar100" else each for each in METRICS]
    monkeypatch.setattr(validation, "METRICS", tuple(errors))
    plant(aps)
    result = run(best="ar100")
    assert (result.best_value, result.best_epoch) == (0.3, 2)


def test_equal_values_keep_the_earlier_epoch(aps):
    aps += [0.5, 0.5, 0.5]
    assert run().best_epoch == 1


def test_an_unknown_metric_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match=r"best 'ap_smal': no such metric\. Did you mean 'ap_small'\? Known: ap, "):
        run(best="ap_smal")


def test_a_metric_that_the_validation_set_leaves_undefined_is_refused_before_work_starts(tmp_path):
    # All drawn objects are smaller than 32 x 32.
    with pytest.raises(ConfigError, match=r"best 'ap_large': .* has no objects of that kind"):
        run(best="ap_large", output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


class Proposing(TinyDetector):
    """Says that it gives proposals, too."""

    tasks = ("boxes", "proposals")


def test_recall_of_proposals_may_decide_and_is_then_measured(tmp_path):
    detector, config = Proposing(tiny_scenes().classes), TrainConfig(**SETTINGS, best="proposal_ar100")
    options = {"validation": tiny_scenes(2), "output": tmp_path / "run", "progress": False}
    result = train(detector, tiny_scenes(), config, **options)
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    recalls = [line["proposal_ar100"] for line in lines if line["kind"] == "epoch"]
    assert len(recalls) == 3
    assert result.best_value == max(recalls)


def test_a_metric_of_what_the_detector_does_not_give_is_refused_before_work_starts():
    with pytest.raises(ConfigError, match="best 'mask_ap': task 'masks': this detector gives boxes"):
        run(best="mask_ap")


def test_another_metric_may_take_over_when_that_is_allowed_and_begins_anew(aps, tmp_path):
    aps += [0.5]
    config = TrainConfig(**{**SETTINGS, "epochs": 1})
    train(tiny_detector(), tiny_scenes(), config, validation=tiny_scenes(2), output=tmp_path / "run", progress=False)
    aps += [{"ap": 0.1, "ap50": 0.2}, {"ap": 0.1, "ap50": 0.1}]
    later = {"validation": tiny_scenes(2), "resume": tmp_path / "run", "progress": False}
    other = TrainConfig(**SETTINGS, best="ap50")
    with pytest.raises(ConfigError, match=r"config\.best was 'ap', is 'ap50'"):
        train(tiny_detector(), tiny_scenes(), other, **later)
    result = train(tiny_detector(), tiny_scenes(), other, allow_changes=True, **later)
    assert (result.best_metric, result.best_value, result.best_epoch) == ("ap50", 0.2, 2)
    assert read_record(tmp_path / "run")["changes"] == [
        ["config.best was 'ap', is 'ap50'", "config.epochs was 1, is 3"]
    ]


def test_the_metric_that_decides_is_always_on_the_screen():
    always = ["AP", "AP50", "small", "medium", "large", "masks AP", "segments AR@100", "keypoints AP"]
    assert list(screen_labels(find_metric("ap")).values()) == always
    assert screen_labels(find_metric("ar10"))["ar10"] == "ar10"


def test_training_stops_early_when_validations_in_a_row_are_not_better_and_keeps_the_best(aps, capsys):
    aps += [0.3, 0.5, 0.5, 0.4]
    result = train(
        tiny_detector(),
        tiny_scenes(),
        TrainConfig(**{**SETTINGS, "epochs": 9}, patience=2),
        validation=tiny_scenes(2),
    )
    assert (result.epochs, result.best_epoch, result.steps) == (4, 2, 12)
    assert "stopped early after epoch 4: ap was not better in 2 validations" in capsys.readouterr().err


def test_a_run_that_stopped_early_and_is_resumed_is_finished(aps, tmp_path):
    aps += [0.5, 0.5]
    config = TrainConfig(**{**SETTINGS, "epochs": 9}, patience=1)
    options = {"validation": tiny_scenes(2), "progress": False}
    train(tiny_detector(), tiny_scenes(), config, output=tmp_path / "run", **options)
    again = train(tiny_detector(), tiny_scenes(), config, resume=tmp_path / "run", **options)
    assert (again.epochs, again.best_epoch) == (2, 1)


def test_patience_counts_validations_not_epochs(aps):
    aps += [0.5, 0.5]
    assert run(epochs=8, validate_every=2, patience=1).epochs == 4


def test_patience_without_anything_to_measure_is_refused():
    with pytest.raises(ConfigError, match="patience 2: counts validations, and there is nothing to validate on"):
        train(tiny_detector(), tiny_scenes(), TrainConfig(**SETTINGS, patience=2), progress=False)
    with pytest.raises(ConfigError, match="patience 2: counts validations, and validate_every 0 has only one"):
        TrainConfig(patience=2, validate_every=0)
