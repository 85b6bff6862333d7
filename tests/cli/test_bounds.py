from __future__ import annotations

from pathlib import Path

import pytest
from shell import Shell
from written_sets import write_text

from fpn.cli.bounds import Bound


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("evaluate m d --batch-size 0", "--batch-size 0: expected 1 or more"),
        ("evaluate m d --workers=-1", "--workers -1: expected 0 or more"),
        ("evaluate m d --max-detections 0", ": expected 1 or more"),
        ("predict m d --score 2", ": expected 0 to 1"),
        ("predict m d --every 0", ": expected 1 or more"),
        ("batch m d --output o --workers 0", ": expected 1 or more"),
        ("benchmark --repeats 0", "--repeats 0: expected 1 or more"),
        ("benchmark --batch-sizes 1 0", ": expected 1 or more"),
        ("benchmark --threads 0", ": expected 1 or more"),
        ("diagnose m d --score 2", ": expected 0 to 1"),
        ("suggest m d --count 0", ": expected 1 or more"),
        ("demo --epochs=-1", ": expected 1 or more"),
        ("compare a b d --resamples 0", ": expected 1 or more"),
        ("compare a b d --seed=-1", ": expected 0 or more"),
        ("report m d --output o --room inf", ": expected a finite number"),
        ("compare a b d --fail-below nan", ": expected a finite number"),
        ("calibrate m d --false-alarms 0", ": expected more than 0"),
        ("check d --workers 0", ": expected 1 or more"),
        ("check d --workers 100000000000000000000", ": expected 9007199254740992 at most"),
        ("train d --learning-rate inf", "--learning-rate inf: expected a finite number"),
        ("train d --epochs 100000000000000000000", "--epochs 100000000000000000000: expected 9007199254740992 at most"),
    ],
)
def test_a_number_out_of_range_is_one_sentence_before_anything_is_looked_for(fpn: Shell, words: str, told: str) -> None:
    ended = fpn(*words.split())
    assert ended.status == 2
    assert ended.err.splitlines()[0].endswith(told)


@pytest.mark.parametrize("value", [None, "calibrated", True, (1, 1024), 0])
def test_what_is_in_range_or_no_number_passes(value: object) -> None:
    Bound(0, 1024)(None, value)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("train DATA --dialect pper", "--dialect 'pper': faster_rcnn has paper, "),
        ("train DATA --neck pafp", "--neck 'pafp': choose one of"),
        ("train DATA --backbone resnet5", "--backbone 'resnet5': timm has no such model. Did you mean 'resnet50'"),
        ("train DATA --backbone vit_tiny_patch16_224", "use neck simple_pyramid"),
        ("train DATA --backbone resnet18 --weights offline", "for --backbone tf_efficientnet_lite0 only"),
        ("train DATA --anchor-sizes 0 1 2 3 4", "--anchor-sizes 0.0: expected more than 0"),
        ("train DATA --detector fcos --dialect fpn_pytorch", "--dialect 'fpn_pytorch': fcos has paper, "),
        ("plan DATA --backbone resnet5", "--backbone 'resnet5'"),
        ("plan DATA --weights non", "--weights non: no such file of weights. Did you mean 'none'?"),
        ("plan DATA --by-group (", "--by-group '(': no regular expression"),
        ("split DATA OUT --by-group (", "--by-group '(': no regular expression"),
        ("ablate DATA --held-out DATA --rows fpnn", "--rows 'fpnn': choose of"),
        ("ablate DATA --held-out DATA --backbone resnet5", "--backbone 'resnet5'"),
        ("ablate DATA --held-out DATA --weights non", "--weights non: no such file of weights."),
        ("ablate DATA --held-out DATA --anchor-sizes 0", "--anchor-sizes 0.0: expected more than 0"),
        ("explain 640x480 --against pper", "--against 'pper': faster_rcnn has paper, "),
        ("benchmark --backbone resnet5", "--backbone 'resnet5'"),
    ],
)
def test_a_wrong_choice_is_told_before_the_data_are_read(fpn: Shell, tmp_path: Path, words: str, told: str) -> None:
    broken = write_text(tmp_path / "broken.json", "{")
    places = {"DATA": broken, "OUT": tmp_path / "out"}
    output = ["--output", tmp_path / "out"] if words.startswith(("train", "ablate")) else []
    said = fpn.fails(*(places.get(word, word) for word in words.split()), *output)
    assert told in said
    assert "broken.json" not in said
