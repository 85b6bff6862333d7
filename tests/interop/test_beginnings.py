"""Backbones to begin with: networks that tell ImageNet's classes, by file and by name, and what the command makes."""

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torchvision import models

import fpn
from fpn.cli.options import Given, ModelOptions
from fpn.errors import ConfigError, DataNotFoundError, ModelFileError
from fpn.features.backbones import weights
from fpn.features.backbones.backbone import Backbone
from fpn.interop import beginnings, classifiers, import_weights
from fpn.interop.backbone_files import BackboneFile, read_backbone_file, save_backbone
from fpn.interop.beginnings import find_beginning
from fpn.interop.findings import needed
from fpn.interop.importing import set_aside
from fpn.interop.weight_names import BACKBONES

CAFFE_SETTINGS = {
    "pixels.channel_order": "bgr",
    "pixels.value_range": 255.0,
    "pixels.mean": [103.53, 116.28, 123.675],
    "pixels.std": [1.0, 1.0, 1.0],
    "backbone.stride_on": "1x1",
    "backbone.norm_epsilon": 1e-5,
}
_PARTS = {"conv": "branch2", "bn": "branch2", "downsample": "branch1"}


def caffe_name(name):
    """As Caffe2 calls a weight of a ResNet: res2_0_branch2a_bn_s for layer1.0.bn1.weight."""
    name = re.sub(r"^fc", "fc1000", name.replace("bn1.", "res_conv1_bn.") if name.startswith("bn1") else name)
    found = re.match(r"layer(\d)\.(\d+)\.(conv|bn|downsample)\.?(\d)\.(weight|bias)", name)
    if not found:
        return (
            re.sub(r"bn_weight", "bn_s", re.sub(r"\.(weight|bias)", r"_\1", name))
            .replace("_weight", "_w")
            .replace("_bias", "_b")
        )
    stage, block, kind, number, leaf = found.groups()
    normed = kind == "bn" or (kind == "downsample" and number == "1")
    branch = _PARTS[kind] + ("" if kind == "downsample" else "abc"[int(number) - 1])
    end = {"weight": "s", "bias": "b"}[leaf] if normed else "w"
    return f"res{int(stage) + 1}_{block}_{branch}{'_bn' if normed else ''}_{end}"


def caffe_blobs(state):
    kept = {name: value for name, value in state.items() if "running" not in name and "tracked" not in name}
    return {**{caffe_name(name): value.numpy() for name, value in kept.items()}, "conv1_b": np.zeros(64, np.float32)}


@pytest.fixture(scope="module")
def resnet18():
    torch.manual_seed(0)
    return models.resnet18(weights=None).eval()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub"


# --- files --------------------------------------------------------------------------------------------------------


def test_a_resnet_of_torchvision_gives_the_same_maps_and_its_classes_are_left_aside(resnet18):
    state = {f"module.{name}": value for name, value in resnet18.state_dict().items()}
    imported = import_weights({"state_dict": state})
    assert (imported.toolkit, imported.module.name) == ("ImageNet", "resnet18")
    assert needed(imported.leftover) == ()
    assert set_aside(imported) == ("fc.weight", "fc.bias")
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        stem = resnet18.maxpool(resnet18.relu(resnet18.bn1(resnet18.conv1(x))))
        theirs = resnet18.layer4(resnet18.layer3(resnet18.layer2(resnet18.layer1(stem))))
        assert torch.equal(imported.module(x)["c5"], theirs)


def test_blobs_of_caffe_get_plain_statistics_and_the_stride_on_the_1x1(tmp_path):
    torch.manual_seed(0)
    state = timm.create_model("resnet26", pretrained=False).state_dict()
    blobs = caffe_blobs(state)
    assert {"conv1_w", "res_conv1_bn_s", "res5_1_branch2c_bn_b", "res3_0_branch1_w", "fc1000_b"} <= set(blobs)
    (tmp_path / "R-26.pkl").write_bytes(pickle.dumps(blobs, 2))
    imported = import_weights(tmp_path / "R-26.pkl")
    net = imported.module.net
    assert imported.module.name == "resnet26"
    assert set_aside(imported) == ("fc1000_w", "fc1000_b", "conv1_b")
    assert torch.equal(net.layer4[1].conv3.weight, state["layer4.1.conv3.weight"])
    assert net.layer2[0].bn2.running_var.tolist() == [pytest.approx(1 - 1e-5)] * 128
    assert net.layer2[0].conv1.stride == (2, 2)
    assert imported.dialect.pixels.channel_order == "bgr"
    assert imported.dialect.pixels.mean == (103.53, 116.28, 123.675)


@pytest.mark.parametrize(
    ("name", "backbone"),
    [
        ("resnext101_64x4d", "resnext101_64x4d"),
        ("wide_resnet50_2", "wide_resnet50_2"),
        ("resnet34", "resnet34"),
        ("mobilenet_v2", "mobilenetv2_100"),
        ("mobilenet_v3_small", "mobilenetv3_small_100"),
    ],
)
def test_which_network_it_is_is_told_by_shapes(name, backbone, monkeypatch):
    made = []

    class Named(torch.nn.Module):
        def __init__(self, name, **_):
            super().__init__()
            self.name, self.net = name, None

    monkeypatch.setattr(classifiers, "Backbone", Named)
    monkeypatch.setattr(classifiers, "fill_module", lambda _, state, toolkit: made.extend(state))
    with torch.device("meta"):
        state = getattr(models, name)(weights=None).state_dict()
        imported = import_weights(state)
    assert imported.module.name == backbone
    assert needed(imported.leftover) == ()
    assert all(re.match(r"fc|classifier|features\.18\.", each) for each in set_aside(imported))
    counted = [each for each in state if not each.endswith("tracked")]
    assert len(made) + len(set_aside(imported)) == len(counted)


def test_a_network_that_is_none_of_these_is_refused(resnet18):
    state = resnet18.state_dict()
    with pytest.raises(ModelFileError, match=r"no place for layer1\.0\.se\.fc1\.weight"):
        import_weights({**state, "layer1.0.se.fc1.weight": torch.ones(2)})
    without = {name: value for name, value in state.items() if not name.startswith("layer2.1.")}
    with pytest.raises(ModelFileError, match=r"a ResNet with \[2, 1, 2, 2\] blocks a stage, 1 groups of 64 channels"):
        import_weights(without)


def test_a_mobilenet_of_torchvision_is_taken_as_weights_of_timms(tmp_path):
    state = models.mobilenet_v3_small(weights=None).state_dict()
    torch.save(state, tmp_path / "a.pth")
    backbone = Backbone("mobilenetv3_small_100", weights=tmp_path / "a.pth")
    assert torch.equal(backbone.net.conv_stem.weight, state["features.0.0.weight"])


def test_a_backbones_file_says_how_its_images_are_made_and_is_no_model(resnet18, tmp_path):
    imported = import_weights(resnet18.state_dict())
    path = tmp_path / "r18.safetensors"
    save_backbone(imported.module, imported.dialect, path, record={"from": "r18.pth"})
    kept = read_backbone_file(path)
    assert (kept.backbone, kept.record) == ("resnet18", {"from": "r18.pth"})
    assert kept.settings["pixels.mean"] == [0.485, 0.456, 0.406]
    again = Backbone("resnet18", weights=path)
    assert torch.equal(again.net.layer4[1].conv2.weight, resnet18.layer4[1].conv2.weight)
    with pytest.raises(ModelFileError, match=r"is a backbone, without a detector's heads\. `fpn train DATA --init "):
        fpn.load(path)
    save_file({"a": torch.ones(1)}, path, metadata={"fpn-backbone": '{"backbone": 3}'})
    with pytest.raises(ModelFileError, match=r"r18\.safetensors: its backbone's record is damaged"):
        read_backbone_file(path)


# --- names --------------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_converted_once_into_torchs_cache(resnet18, cache, tmp_path, monkeypatch):
    torch.save(resnet18.state_dict(), tmp_path / "r18.pth")
    found = find_beginning(tmp_path / "r18.pth").backbone
    assert found.path.parent == cache / "fpn"
    assert found.path.name.startswith("r18-")
    assert found.record["aside"] == ["fc.weight", "fc.bias"]
    monkeypatch.setattr(beginnings, "import_weights", None)  # would fail
    assert find_beginning(tmp_path / "r18.pth").backbone.path == found.path


def test_whole_detectors_of_others_are_imported_first(cache, tmp_path):
    torch.save({"bottomlayer1.weight": torch.ones(1), "toplayer1.weight": torch.ones(1)}, tmp_path / "a.pth")
    with pytest.raises(ModelFileError, match=r"a\.pth: "):
        find_beginning(tmp_path / "a.pth")


def test_names_of_timm_and_torchvision_are_known_before_anything_is_downloaded():
    assert find_beginning("timm/resnet18.a1_in1k").backbone == "resnet18.a1_in1k"
    assert "resnet50" in BACKBONES
    with pytest.raises(ConfigError, match=r"timm/resnet18x: timm has no such model\. Did you mean 'resnet18'"):
        find_beginning("timm/resnet18x")
    with pytest.raises(ConfigError, match=r"torchvision/resnet5: torchvision has no such detector; .*Did you mean"):
        find_beginning("torchvision/resnet5")


def test_timms_weights_are_taken_from_a_place_that_the_error_names(cache, monkeypatch):
    monkeypatch.setattr(weights, "hub_answers", lambda: False)
    place = cache / "checkpoints" / "resnet18.a1_in1k.safetensors"
    told = rf"copy \S+/timm/resnet18\.a1_in1k/resolve/main/model\.safetensors to {re.escape(str(place))};"
    with pytest.raises(DataNotFoundError, match=told):
        Backbone("resnet18", weights="imagenet")
    torch.manual_seed(1)
    state = timm.create_model("resnet18", pretrained=False).state_dict()
    place.parent.mkdir(parents=True)
    save_file(state, place)
    assert weights.weights_at_hand("resnet18") == "imagenet"
    assert torch.equal(Backbone("resnet18", weights="imagenet").net.conv1.weight, state["conv1.weight"])
    place.write_bytes(b"no weights")
    with pytest.raises(ModelFileError, match=r"a1_in1k\.safetensors: damaged, or not the weights of resnet18"):
        Backbone("resnet18", weights="imagenet")


# --- what the command makes of it -----------------------------------------------------------------------------------


@pytest.fixture
def caffe(monkeypatch):
    found = beginnings.Beginning(
        backbone=BackboneFile(Path("cache/R-50.safetensors"), "resnet50", CAFFE_SETTINGS, {"aside": ["fc1000_w"]})
    )
    monkeypatch.setattr(beginnings, "find_beginning", lambda _: found)


def given(file=None, **options):
    return Given(None, file, {"model": ModelOptions(**options)})


def test_a_backbone_of_caffe_brings_the_settings_of_its_images(caffe):
    told = given(init="R-50.pkl")
    assert told.model["backbone"] == "resnet50"
    assert told.model["weights"] == "cache/R-50.safetensors"
    assert "init" not in told.model
    assert set(told.model["set"]) == {
        "pixels.channel_order=bgr",
        "pixels.value_range=255.0",
        "pixels.mean=[103.53, 116.28, 123.675]",
        "pixels.std=[1.0, 1.0, 1.0]",
        "backbone.stride_on=1x1",
    }
    assert told.begun.startswith("begins with R-50.pkl: ImageNet weights of a resnet50; the heads begin anew\n")
    assert "left aside: fc1000_w" in told.begun
    assert told.sources["weights"] == "--init"


def test_what_the_dialect_has_already_is_not_set_and_what_a_person_sets_stays(caffe):
    assert "set" not in given(init="R-50.pkl", dialect="detectron2").model
    told = given(init="R-50.pkl", dialect="detectron2", set=("pixels.std=[2, 2, 2]",)).model
    assert told["set"] == ["pixels.std=[2, 2, 2]"]


def test_a_dialect_of_the_options_counts_for_a_beginning_of_the_file(caffe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "R-50.pkl").touch()
    (tmp_path / "a.toml").write_text('init = "R-50.pkl"\n')
    assert "set" not in given(tmp_path / "a.toml", dialect="detectron2").model
    assert given(tmp_path / "a.toml", init="timm/other").model["backbone"] == "resnet50"


def test_a_second_backbone_or_weights_are_refused(caffe):
    with pytest.raises(ConfigError, match=r"--backbone resnet18: --init R-50\.pkl has a resnet50 with its weights"):
        given(init="R-50.pkl", backbone="resnet18")
    with pytest.raises(ConfigError, match=r"--weights none: --init R-50\.pkl has a resnet50 with its weights"):
        given(init="R-50.pkl", weights="none")


def test_timms_name_is_a_backbone_with_its_imagenet_weights():
    told = given(init="timm/resnet18.a1_in1k")
    assert told.model == {"backbone": "resnet18.a1_in1k", "weights": "imagenet"}
