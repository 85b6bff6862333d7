"""How the toolkits' ResNets differ from timm's, as changes to timm's own: one function an option."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal, cast

import torch
from pydantic import Field
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fpn.errors import ConfigError
from fpn.features.backbones.windowed_transformer import ViTConfig
from fpn.features.blocks import SamePool
from fpn.sections import Positive, Section
from fpn.structures import Level

PLAIN = "resnet26, resnet50, resnet101, resnet152"
LAST_STAGE = 5


class BackboneConfig(Section):
    """Section `backbone`: what is not as in timm's (and torchvision's) ResNet. The defaults change nothing."""

    stride_on: Literal["1x1", "3x3"] = Field(
        default="3x3",
        description="Which convolution of a ResNet bottleneck carries the stride: 1x1 in He et al. 2015 and "
        "Caffe, 3x3 in "
        "Torch.",
    )
    norm_epsilon: Positive[float] = Field(
        default=1e-5, description="Added to the variance in the backbone's batch norms; 1e-3 in Keras."
    )
    conv_bias: bool = Field(
        default=False, description="True: backbone convolutions have biases beside their norms (Keras, matterport)."
    )
    stem_pool: Literal["padded", "ceil", "same"] = Field(
        default="padded",
        description="The 3x3/2 max-pool after the stem: padded by 1 on all sides; unpadded with sizes rounded up "
        "(Caffe); "
        "or padded as TensorFlow's 'same' does, first at the right and bottom.",
    )
    last_stage_stride: Literal[1, 2] = Field(
        default=2, description="Stride of the last stage. 1 gives C5 the stride of C4 (fpn.pytorch)."
    )
    split_last_stage: bool = Field(
        default=False,
        description="True: C4 is a MobileNetV3's first map of stride 32, and C5 its last (torchvision's detectors).",
    )
    vit: ViTConfig = Field(default=ViTConfig(), description="What backbone vitdet is made of.")


def adapt_resnet(net: nn.Module, levels: tuple[Level, ...], variant: BackboneConfig, name: str) -> tuple[Level, ...]:
    """Change timm's ResNet in place; returns its levels, whose strides may have changed.

    Raises:
        ConfigError: `net` is not a plain ResNet.
    """
    if variant == BackboneConfig(split_last_stage=variant.split_last_stage, vit=variant.vit):
        return levels
    _check_plain(net, name)
    if variant.stride_on == "1x1":
        move_stride_to_1x1(net)
    if variant.norm_epsilon != 1e-5:
        set_norm_epsilon(net, variant.norm_epsilon)
    if variant.conv_bias:
        add_conv_biases(net)
    if variant.stem_pool != "padded":
        set_stem_pool(net, variant.stem_pool)
    if variant.last_stage_stride == 1:
        remove_last_stride(net)
        levels = tuple(replace(c, stride=c.stride // 2) if c.number == LAST_STAGE else c for c in levels)
    return levels


def move_stride_to_1x1(net: nn.Module) -> None:
    """The first convolution of each bottleneck carries the stride, not the second."""
    for block in _blocks(net):
        block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride


def set_norm_epsilon(net: nn.Module, epsilon: float) -> None:
    """The same epsilon in all batch norms."""
    for module in net.modules():
        if isinstance(module, _BatchNorm):
            module.eps = epsilon


def add_conv_biases(net: nn.Module) -> None:
    """Zero biases for all convolutions that have none."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d) and module.bias is None:
            module.bias = nn.Parameter(torch.zeros(module.out_channels))


def set_stem_pool(net: nn.Module, pool: Literal["padded", "ceil", "same"]) -> None:
    """Another 3x3/2 max-pool after the stem."""
    made: dict[str, nn.Module] = {
        "padded": nn.MaxPool2d(3, stride=2, padding=1),
        "ceil": nn.MaxPool2d(3, stride=2, ceil_mode=True),
        "same": SamePool(),
    }
    net.maxpool = made[pool]


def remove_last_stride(net: nn.Module) -> None:
    """The last stage keeps the size of the one before. (No dilation: fpn.pytorch has none.)"""
    first = cast(Any, net).layer4[0]
    for convolution in (first.conv1, first.conv2, first.downsample[0]):
        convolution.stride = (1, 1)


def _blocks(net: nn.Module) -> Iterator[Any]:
    for module in net.modules():
        if hasattr(module, "conv3") and hasattr(module, "downsample"):
            yield module


def _check_plain(net: nn.Module, name: str) -> None:
    blocks = list(_blocks(net))
    plain = all(block.downsample is None or isinstance(block.downsample[0], nn.Conv2d) for block in blocks)
    if not blocks or not plain or not isinstance(getattr(net, "maxpool", None), nn.MaxPool2d):
        raise ConfigError(
            f"backbone {name!r}: stride_on, norm_epsilon, conv_bias, stem_pool and last_stage_stride are for plain "
            f"bottleneck ResNets ({PLAIN}). Use one of these, or leave them alone."
        )
