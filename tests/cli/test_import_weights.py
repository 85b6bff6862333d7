"""`fpn import` from a file of torchvision to a model that says where it comes from."""

import pytest
import torch
from torchvision.models.detection import fasterrcnn_resnet50_fpn

import fpn
from fpn.cli.app import run_command
from fpn.interop import proof, torchvision_registry
from fpn.interop.proof import Proof
from fpn.studies.explain.origins import origin_table

SMALL = ("--set", "pixels.short_side=64", "--set", "pixels.long_side=96", "--set", "rpn.after_nms=[50, 50]")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    model = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if "backbone.body" in name and name.endswith("bn3.weight"):
                value.mul_(0.2)
        model.roi_heads.box_predictor.cls_score.weight.normal_(0, 0.5)
        model.roi_heads.box_predictor.bbox_pred.weight.normal_(0, 0.1)
    path = tmp_path_factory.mktemp("torchvision") / "epoch_3.pth"
    # Half the bytes: they are read as well.
    torch.save({"model": {n: v.half() if v.is_floating_point() else v for n, v in model.state_dict().items()}}, path)
    return path


def test_a_file_becomes_a_model_that_says_how_it_was_known_and_what_was_proven(checkpoint, tmp_path, capsys):
    output = tmp_path / "model.safetensors"
    assert run_command(["import", str(checkpoint), "--output", str(output), "--classes", "cat,dog", *SMALL]) == 0
    said = capsys.readouterr().out
    assert "epoch_3.pth: torch, weights of torchvision" in said
    assert "faster_rcnn on resnet50, fpn, 2 classes (cat, dog)" in said
    assert "pixels.short_side = 64  (as you said)" in said
    assert "    roi: sampler align, sampling_ratio 2\n" in said
    assert "compared with torchvision on 3 images (320x240, 200x333, 416x416)" in said
    detector = fpn.load(output, device="cpu")
    (found,) = detector.training_record["imported"]["proofs"]
    assert found["theirs"] > 20
    assert found["same"] == found["theirs"] == found["ours"]
    assert found["box"] < 0.01
    assert found["score"] < 1e-4
    assert run_command(["explain", str(output)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "toolkit torchvision" in said
    assert f"{found['same']} of {found['theirs']} detections as torchvision finds them" in said


def test_detections_that_are_others_than_the_toolkits_are_a_warning_and_no_proof(
    checkpoint, tmp_path, capsys, monkeypatch
):
    few = Proof("torchvision", ((9, 9),), theirs=20, ours=20, same=18, box=0.5, score=0.0)
    monkeypatch.setattr(proof, "compare_torchvision", lambda *_: [few])
    output = tmp_path / "model.safetensors"
    assert run_command(["import", str(checkpoint), "--output", str(output), "--classes", "cat,dog"]) == 0
    assert "warning: only 18 of 20 detections are the same" in " ".join(capsys.readouterr().err.split())
    rows = dict(origin_table(output).rows)
    assert rows["not proven"].startswith("18 of 20 detections as torchvision finds them")
    assert "proven" not in rows


def test_what_results_to_compare_with_are_missing_is_said_first(tmp_path, capsys):
    (tmp_path / "weights.pth").touch()
    words = ["import", str(tmp_path / "weights.pth"), "--output", str(tmp_path / "a.safetensors")]
    words += ["--verify", str(tmp_path / "no.npz")]
    assert run_command(words) == 1
    assert "no.npz: no such file. " in capsys.readouterr().err


def test_nothing_is_replaced_and_a_wrong_suffix_is_named_before_any_work(checkpoint, tmp_path, capsys):
    there = tmp_path / "there.safetensors"
    there.write_text("mine")
    assert run_command(["import", str(checkpoint), "--output", str(there)]) == 1
    assert "is already there. Name a new file" in capsys.readouterr().err
    assert there.read_text() == "mine"
    assert run_command(["import", str(checkpoint), "--output", str(tmp_path / "a.pth")]) == 1
    assert "a model is one .safetensors file" in capsys.readouterr().err


def test_a_setting_that_does_not_exist_is_named(checkpoint, tmp_path, capsys):
    words = ["import", str(checkpoint), "--output", str(tmp_path / "a.safetensors"), "--set", "roi.sampel=pool"]
    assert run_command(words) == 1
    assert "unknown setting 'roi.sampel'. Did you mean 'roi.sampler'?" in capsys.readouterr().err
    assert not (tmp_path / "a.safetensors").exists()


def test_what_can_be_said_at_once_is_said_before_a_network_is_built(checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torchvision_registry, "find_torchvision", lambda _: pytest.fail("too late"))
    output = ["--output", str(tmp_path / "a.safetensors")]
    whole = checkpoint.read_bytes()
    (tmp_path / "half.pth").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "bad.yaml").write_text("MODEL: [1, {")
    for words, told in (
        (["torchvison/resnet50"], "Did you mean 'torchvision/resnet50'?"),
        ([str(tmp_path / "half.pth")], "cut short: the end of it is missing. Copy or download it again"),
        ([str(checkpoint), "--config", str(tmp_path / "bad.yaml")], "line 1, column 13"),
        ([str(checkpoint), "--set", "roi.sampler"], "expected a setting and its value"),
    ):
        assert run_command(["import", *words, *output]) == 1
        assert told in " ".join(capsys.readouterr().err.split())
