"""MobileNetV3 as torchvision's detectors cut it, and torchvision's names in timm's order."""

import pytest
import torch

from fpn.errors import ConfigError, ModelFileError
from fpn.features.backbones.backbone import Backbone
from fpn.features.backbones.mobilenets import mobilenet_names
from fpn.features.backbones.resnet_variants import BackboneConfig

SPLIT = BackboneConfig(split_last_stage=True)
THEIRS = ("0.0.weight", "0.1.weight", "0.1.bias", "0.1.running_mean", "0.1.running_var", "2.0.weight", "10.0.weight")
OURS = {
    "stem.weight": (2, 3),
    "bn.weight": (2,),
    "bn.bias": (2,),
    "bn.running_mean": (2,),
    "bn.running_var": (2,),
    "bn.num_batches_tracked": (),
    "a.weight": (4, 2),
    "b.weight": (5, 4),
}


def test_both_maps_of_the_last_stage_have_its_stride() -> None:
    backbone = Backbone("mobilenetv3_small_050", weights=None, out=(4, 5), config=SPLIT)
    assert [(level.name, level.stride, level.number) for level in backbone.levels] == [("c4", 32, 4), ("c5", 32, 5)]
    with torch.no_grad():
        maps = backbone(torch.zeros(1, 3, 64, 96))
    for level in backbone.levels:
        assert maps[level.name].shape == (1, level.channels, 2, 3)


def test_other_backbones_and_levels_are_refused() -> None:
    with pytest.raises(ConfigError, match="split_last_stage is for MobileNetV3"):
        Backbone("resnet18", weights=None, out=(4, 5), config=SPLIT)
    with pytest.raises(ConfigError, match=r"gives the levels c4 and c5: set neck\.finest_level to 4"):
        Backbone("mobilenetv3_small_050", weights=None, out=(3, 4, 5), config=SPLIT)


def twin() -> dict[str, torch.Tensor]:
    return {name: torch.zeros(shape) for name, shape in OURS.items()}


def file() -> dict[str, torch.Tensor]:
    """Ten comes after two, and a norm's statistics after its bias, in whatever order the file has them."""
    shapes = [shape for name, shape in OURS.items() if "tracked" not in name]
    named = [
        (f"body.{name}", torch.full(shape, float(k)))
        for k, (name, shape) in enumerate(zip(THEIRS, shapes, strict=True))
    ]
    return {"fc.weight": torch.ones(1), **dict(reversed(named))}


def test_layers_are_taken_in_their_order_and_not_in_that_of_letters() -> None:
    found = mobilenet_names(file(), twin(), "body.", "weights")
    assert {name: value.flatten()[0].item() for name, value in found.items()} == {
        name: float(k) for k, name in enumerate(name for name in OURS if "tracked" not in name)
    }


def test_weights_of_another_network_are_named() -> None:
    short = {name: value for name, value in file().items() if name != "body.10.0.weight"}
    with pytest.raises(ModelFileError, match=r"weights: 6 weights of a MobileNet, expected 7\. Is the file whole\?"):
        mobilenet_names(short, twin(), "body.", "weights")
    other = {**file(), "body.2.0.weight": torch.zeros(9, 2)}
    with pytest.raises(
        ModelFileError, match=r"body\.2\.0\.weight is \(9, 2\), expected \(4, 2\): it belongs to another"
    ):
        mobilenet_names(other, twin(), "body.", "weights")
