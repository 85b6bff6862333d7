"""torchvision's weights by name: its cache, its file names, and a message that says where a file has to lie."""

import hashlib
import urllib.error
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import hub

from fpn.cli.options import Given, ModelOptions
from fpn.errors import ConfigError, DataNotFoundError
from fpn.interop import beginnings
from fpn.interop import torchvision_registry as registry


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub"


def unreachable(*_args, **_kwargs):
    raise urllib.error.URLError("no route to host")


def test_without_a_network_the_error_says_where_the_file_has_to_lie(cache, monkeypatch):
    monkeypatch.setattr(hub, "download_url_to_file", unreachable)
    told = r"https://\S+/fasterrcnn_resnet50_fpn_v2_coco-dd69338a\.pth could not be downloaded .* copy that file to /"
    with pytest.raises(DataNotFoundError, match=told) as caught:
        registry.find_torchvision("torchvision/fasterrcnn_resnet50_fpn_v2")
    assert str(cache / "checkpoints" / "fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth") in str(caught.value)


def test_the_download_is_checked_by_the_hash_in_the_files_name(cache, monkeypatch):
    asked = []
    monkeypatch.setattr(hub, "download_url_to_file", lambda url, path, digest, progress: asked.append((path, digest)))
    registry.find_torchvision("torchvision/fasterrcnn_resnet50_fpn")
    path = cache / "checkpoints" / "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth"
    assert asked == [(str(path), "258fb6c6")]


def test_a_file_in_the_cache_is_taken_with_what_torchvision_knows_of_it(cache, monkeypatch):
    monkeypatch.setattr(hub, "download_url_to_file", unreachable)
    path = cache / "checkpoints" / "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth"
    torch.save({}, path)
    found = registry.find_torchvision("torchvision/fasterrcnn_resnet50_fpn")
    assert found.path == path
    assert len(found.classes) == 90
    assert found.classes.names[89] == "toothbrush"
    assert found.settings == {"backbone.norm_epsilon": 1e-12}


def test_other_names_are_paths_and_unknown_ones_are_named(cache):
    assert registry.find_torchvision("runs/epoch_12.pth").path == Path("runs/epoch_12.pth")
    with pytest.raises(ConfigError, match=r"no such detector; known: .* Did you mean 'fasterrcnn_resnet50_fpn_v2'"):
        registry.find_torchvision("torchvision/fasterrcnn_resnet50_v2")


def test_a_file_of_torchvisions_own_is_known_by_its_hash_under_any_name(tmp_path, monkeypatch):
    path = tmp_path / "mine.pth"
    path.write_bytes(b"weights")
    assert registry.find_torchvision(str(path)) == registry.NamedWeights(path)
    asked = registry._weights("fasterrcnn_mobilenet_v3_large_320_fpn")
    twin = SimpleNamespace(url=f"https://x/y-{hashlib.sha256(b'weights').hexdigest()[:8]}.pth", meta=asked.meta)
    monkeypatch.setattr(registry, "_weights", lambda name: twin if name.endswith("_320_fpn") else asked)
    found = registry.find_torchvision(str(path))
    assert (found.own, len(found.classes)) == ("fasterrcnn_mobilenet_v3_large_320_fpn", 90)
    assert (found.settings["pixels.short_side"], found.settings["rpn.before_nms"]) == (320, (2000, 150))


def test_training_begins_with_the_model_that_a_name_becomes(monkeypatch):
    asked = []

    def model(name):
        asked.append(name)
        return Path("cache/model.safetensors")

    monkeypatch.setattr(beginnings, "model_of_torchvision", model)
    given = Given(None, None, {"model": ModelOptions(init="torchvision/fasterrcnn_resnet50_fpn")})
    assert given.model["init"] == Path("cache/model.safetensors")
    assert asked == ["torchvision/fasterrcnn_resnet50_fpn"]
    assert Given(None, None, {"model": ModelOptions(init="a.safetensors")}).model["init"] == Path("a.safetensors")
