from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import fpn
from fpn.detectors.model_file import read_header
from fpn.errors import ConfigError, ModelFileError
from fpn.structures import Thresholds

IMAGE = (torch.arange(64 * 96 * 3) % 251).reshape(64, 96, 3).to(torch.uint8).numpy()


@pytest.fixture
def calibrated(small: Any) -> Any:
    """Class 0 from the middle of what is found of it on, class 1 never."""
    (found,) = small.predict([IMAGE])
    middle = found.scores[found.labels == 0].median().item()
    small.thresholds = Thresholds((middle, 1.0), "f1", "cells", 7, (True, True))
    yield small
    small.thresholds = None


def test_predict_gives_what_reaches_its_classs_threshold_unless_told(calibrated: Any) -> None:
    (everything,) = calibrated.predict([IMAGE], score=0.0)
    (sure,) = calibrated.predict([IMAGE])
    assert 0 < len(sure) < len(everything)
    assert set(sure.labels.tolist()) == {0}
    assert sure.scores.min() >= calibrated.thresholds.scores[0]
    (above,) = calibrated.predict([IMAGE], score=0.4)
    assert len(above) == int((everything.scores >= 0.4).sum())


def test_a_model_without_thresholds_gives_all_and_has_none_to_ask_for(small: Any) -> None:
    (found,) = small.predict([IMAGE])
    assert len(found) == len(small.predict([IMAGE], score=0.0)[0])
    with pytest.raises(ConfigError, match="no thresholds yet"):
        small.predict([IMAGE], score="calibrated")


@pytest.mark.parametrize("score", [1.5, -0.1, float("nan")])
def test_a_score_out_of_range_is_refused(small: Any, score: float) -> None:
    with pytest.raises(ConfigError, match="a number from 0 to 1"):
        small.predict([IMAGE], score=score)


def test_they_travel_with_the_model_file_and_into_the_optimized_copy(calibrated: Any, tmp_path: Any) -> None:
    path = fpn.save(calibrated, tmp_path / "model.safetensors")
    loaded = fpn.load(path, device="cpu")
    assert loaded.thresholds == calibrated.thresholds
    fast = fpn.optimize(loaded)
    assert fast.thresholds == calibrated.thresholds
    assert set(fast.predict([IMAGE])[0].labels.tolist()) == {0}


def test_a_file_without_thresholds_says_nothing_of_them(small: Any, tmp_path: Any) -> None:
    path = fpn.save(small, tmp_path / "model.safetensors")
    assert "thresholds" not in read_header(path)
    assert fpn.load(path, device="cpu").thresholds is None


def test_damaged_thresholds_are_named(small: Any, tmp_path: Any) -> None:
    path = fpn.save(small, tmp_path / "model.safetensors")
    header = {**read_header(path), "thresholds": {"scores": [0.5]}}
    save_file(load_file(path), path, metadata={"fpn": json.dumps(header)})
    with pytest.raises(ModelFileError, match="its thresholds are damaged"):
        fpn.load(path, device="cpu")
