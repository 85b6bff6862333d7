"""Every choice of every section is checked wherever it is made, and whatever builds can be saved and loaded again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from shell import Shell
from written_sets import write_coco

import fpn
from fpn.detectors import TwoStageDetector
from fpn.detectors.dialect import TwoStageDialect
from fpn.detectors.model_file import load, read_header
from fpn.detectors.toolkits import PAPER
from fpn.errors import ConfigError, ModelFileError
from fpn.sections import Option, options_of

OPTIONS = {option.path: option for option in options_of(TwoStageDialect) if "." in option.path}
CHOICES = {path: option for path, option in OPTIONS.items() if option.choices}
BACKBONE = "tf_efficientnet_lite0"
SMALL = {"short_side": 64, "channels": 8, "head_width": 8, "backbone": BACKBONE, "weights": None, "classes": ["a", "b"]}


def misspelt(option: Option) -> tuple[str, str]:
    """The longest choice without its last letter, and what it should have been: "crop_and_resiz"."""
    right = max(option.choices, key=len)
    return right[:-1], right


def nested(path: str, value: object) -> dict[str, Any]:
    head, _, rest = path.partition(".")
    return {head: nested(rest, value) if rest else value}


def says(path: str, wrong: str, right: str) -> str:
    return rf"{path} '{wrong}': choose one of .*Did you mean '{right}'"


def test_the_choices_are_those_of_the_plan() -> None:
    assert {
        "pixels.resize",
        "backbone.stem_pool",
        "neck.top_down",
        "anchors.strides",
        "rpn.objectness",
    } <= CHOICES.keys()
    assert {"roi.sampler", "roi.level_rule", "roi.scale", "box.head", "box.choice"} <= CHOICES.keys()
    assert len(CHOICES) >= 19


@pytest.mark.parametrize("path", CHOICES)
def test_a_misspelt_choice_is_refused_in_python(path: str) -> None:
    wrong, right = misspelt(CHOICES[path])
    with pytest.raises(ConfigError, match=says(path, wrong, right)):
        fpn.faster_rcnn(**SMALL, **{path.replace(".", "_"): wrong})
    if not path.startswith(("backbone", "neck")):  # as keywords, those are names
        with pytest.raises(ConfigError, match=says(path, wrong, right)):
            fpn.faster_rcnn(**SMALL, **nested(path, wrong))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("path", CHOICES)
def test_a_misspelt_choice_is_refused_on_the_command_line_and_in_a_file(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path, path: str
) -> None:
    wrong, right = misspelt(CHOICES[path])
    words = ("train", data, "--output", tmp_path / "run", "--backbone", BACKBONE, "--weights", "none")
    shell = Shell(capsys)
    told = shell.fails(*words, "--set", f"{path}={wrong}")
    section, _, rest = path.partition(".")
    file = tmp_path / "settings.toml"
    file.write_text(f"[{section}]\n{rest} = '{wrong}'\n")
    in_file = shell.fails(*words, "--config", file)
    for message in (told, in_file):
        assert f"{path} '{wrong}': choose one of" in message
        assert f"Did you mean '{right}'?" in message
    assert "settings.toml" in in_file
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fpn.save(fpn.faster_rcnn(**SMALL), tmp_path_factory.mktemp("saved") / "model.safetensors")


@pytest.mark.parametrize("path", CHOICES)
def test_a_misspelt_choice_is_refused_in_a_model_file(saved: Path, tmp_path: Path, path: str) -> None:
    wrong, right = misspelt(CHOICES[path])
    header = read_header(saved)
    place = header["recipe"]["dialect"]
    *sections, name = path.split(".")
    for section in sections:
        place = place[section]
    place[name] = wrong
    file = tmp_path / "changed.safetensors"
    save_file({"w": torch.zeros(1)}, file, metadata={"fpn": json.dumps(header)})
    with pytest.raises(ModelFileError, match=says(path, wrong, right)):
        load(file)


@pytest.mark.parametrize("path", OPTIONS)
def test_a_value_of_another_type_is_refused(path: str) -> None:
    wrong = {"no": "such"} if isinstance(OPTIONS[path].default, str) else "0.5"
    with pytest.raises(ConfigError, match=path.replace(".", r"\.")):
        PAPER.changed(**{path: wrong})


def test_numbers_in_quotes_and_out_of_range_are_refused() -> None:
    for wrong in ("0.5", True, -0.1, 1.0, float("nan")):
        with pytest.raises(ConfigError, match=r"box\.score_limit"):
            fpn.faster_rcnn(**SMALL, box_score_limit=wrong)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("roi_samplr", "roi.sampler"),
        ("rpn_sampling_cuont", "rpn.sampling.count"),
        ("score_limit", "box_score_limit"),
    ],
)
def test_an_unknown_setting_gets_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown setting .* Did you mean '{nearest}'"):
        fpn.faster_rcnn(**SMALL, **{name: 1})


# --- whatever builds, saves; whatever saves, loads -------------------------------------------------------------------

ODD = {
    # What some other setting has to agree with.
    "anchors.strides": st.sampled_from(["declared", "measured", (4, 8, 16, 32, 64)]),
    "anchors.sizes": st.sampled_from([((8.0,),) * 5, ((8.0, 16.0),) * 5]),
    "neck.finest_level": st.just(2),
    "neck.extra_levels": st.just("subsample"),
    "neck.emitted": st.just("all"),
    "neck.top_down": st.sampled_from(["nearest", "bilinear", "bilinear_corners"]),
    "neck.num_extra": st.just(None),
    "neck.channels": st.just(8),
    "neck.output_channels": st.just(8),
    "neck.top_kernel": st.sampled_from([1, 3]),
    "rpn.channels": st.sampled_from([None, 4]),
    "rpn.before_nms": st.sampled_from([(10, 5), (3, 4)]),
    "rpn.after_nms": st.sampled_from([(10, 5), (3, 4)]),
    "rpn.sampling.positive_iou": st.floats(0.5, 1.0),
    "box.sampling.positive_iou": st.floats(0.5, 1.0),
    "rpn.sampling.negative_iou": st.floats(0.0, 0.5),
    "box.sampling.negative_iou": st.floats(0.0, 0.5),
    "rpn.sampling.count": st.integers(1, 99),
    "box.sampling.count": st.integers(1, 99),
    "roi.output_size": st.integers(1, 5),
    "roi.sampling_ratio": st.integers(0, 3),
    "box.width": st.sampled_from([4, 8]),
    "pixels.short_side": st.sampled_from([32, 64]),
    "pixels.long_side": st.sampled_from([None, 96]),
    "pixels.size_multiple": st.sampled_from([1, 32, 64]),
}
# The rest of a ResNet's conventions need a ResNet.
LEFT_OUT = ("backbone.",)


def values_of(option: Option) -> st.SearchStrategy[Any]:
    if option.path in ODD:
        return ODD[option.path]
    if option.choices:
        return st.sampled_from(option.choices)
    if isinstance(option.default, bool):
        return st.booleans()
    return st.just(option.default)


RANDOM = st.fixed_dictionaries(
    {}, optional={path: values_of(option) for path, option in OPTIONS.items() if not path.startswith(LEFT_OUT)}
)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=RANDOM)
def test_whatever_builds_is_saved_and_comes_back_the_same(tmp_path: Path, changes: dict[str, Any]) -> None:
    torch.manual_seed(0)
    small = PAPER.changed(neck={"channels": 8, "output_channels": 8}, box_width=8)
    detector = fpn.faster_rcnn(backbone=BACKBONE, weights=None, classes=["a"], dialect=small.changed(**changes))
    file = fpn.save(detector, tmp_path / "model.safetensors")
    again = load(file, device="cpu")
    assert isinstance(again, TwoStageDetector)
    assert again.recipe == detector.recipe
    state = again.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in detector.state_dict().items())
