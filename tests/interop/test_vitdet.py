"""Detectron2's ViTDet: from the names and shapes of its files to a detector that goes on learning."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import fpn
from fpn.data.synthetic.scenes import SceneDataset
from fpn.detectors import Detector
from fpn.errors import ConfigError, ModelFileError
from fpn.interop import import_weights
from fpn.interop.findings import needed
from fpn.interop.importing import require_detector

WIDTH, HEADS, PYRAMID, CLASSES = 32, 2, 8, 3
# Rows of the tables of relative positions: windows of 3 tokens, and an image of 4 x 4 in every second block.
ROWS = (5, 7, 5, 7)


def normed(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    """A convolution of Detectron2's with a layer norm."""
    return {f"{name}.weight": shape, f"{name}.norm.weight": shape[:1], f"{name}.norm.bias": shape[:1]}


def layer(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def transformer(rows: tuple[int, ...], positions: int, width: int = WIDTH, heads: int = HEADS) -> dict[str, tuple]:
    """Of its ViT, in the order of its file; rows of 0: no relative positions."""
    names = {"pos_embed": (1, positions, width), **layer("patch_embed.proj", width, 3, 16, 16)}
    for number, count in enumerate(rows):
        block = f"blocks.{number}"
        names |= layer(f"{block}.norm1", width)
        if count:
            names |= {f"{block}.attn.rel_pos_{axis}": (count, width // heads) for axis in "hw"}
        names |= layer(f"{block}.attn.qkv", 3 * width, width) | layer(f"{block}.attn.proj", width, width)
        names |= layer(f"{block}.norm2", width) | layer(f"{block}.mlp.fc1", 4 * width, width)
        names |= layer(f"{block}.mlp.fc2", width, 4 * width)
    return {f"backbone.net.{name}": shape for name, shape in names.items()}


def pyramid(width: int = WIDTH) -> dict[str, tuple[int, ...]]:
    """Of its SimpleFeaturePyramid. A transposed convolution has its inputs first, and as many biases as outputs."""
    half, quarter = width // 2, width // 4
    names = {"simfp_2.0.weight": (width, half, 2, 2), "simfp_2.0.bias": (half,), **layer("simfp_2.1", half)}
    names |= {"simfp_2.3.weight": (half, quarter, 2, 2), "simfp_2.3.bias": (quarter,)}
    names |= {"simfp_3.0.weight": (width, half, 2, 2), "simfp_3.0.bias": (half,)}
    for level, place, inputs in ((2, 4, quarter), (3, 1, half), (4, 0, width), (5, 1, width)):
        names |= normed(f"simfp_{level}.{place}", PYRAMID, inputs, 1, 1)
        names |= normed(f"simfp_{level}.{place + 1}", PYRAMID, PYRAMID, 3, 3)
    return {f"backbone.{name}": shape for name, shape in names.items()}


def heads(*, cascade: bool = False, classes: int = CLASSES) -> dict[str, tuple[int, ...]]:
    """Of Mask R-CNN as configs/common/models/mask_rcnn_vitdet.py has it, or the cascade's; narrower."""
    rpn, width = "proposal_generator.rpn_head", 16
    names = {name: (PYRAMID,) for name in (f"{rpn}.conv.conv0.bias", f"{rpn}.conv.conv1.bias")}
    names |= {f"{rpn}.conv.conv{k}.weight": (PYRAMID, PYRAMID, 3, 3) for k in range(2)}
    names |= layer(f"{rpn}.objectness_logits", 3, PYRAMID, 1, 1) | layer(f"{rpn}.anchor_deltas", 12, PYRAMID, 1, 1)
    for stage in (".0", ".1", ".2") if cascade else ("",):
        box = f"roi_heads.box_head{stage}"
        for number in range(4):
            names |= normed(f"{box}.conv{number + 1}", PYRAMID, PYRAMID, 3, 3)
        names |= layer(f"{box}.fc1", width, PYRAMID * 49)
        names |= layer(f"roi_heads.box_predictor{stage}.cls_score", classes + 1, width)
        names |= layer(f"roi_heads.box_predictor{stage}.bbox_pred", 4 if cascade else 4 * classes, width)
    for number in range(4):
        names |= normed(f"roi_heads.mask_head.mask_fcn{number + 1}", PYRAMID, PYRAMID, 3, 3)
    names |= {f"roi_heads.mask_head.deconv.{leaf}": (PYRAMID, PYRAMID, 2, 2)[: 4 if leaf == "weight" else 1] for leaf in
              ("weight", "bias")}
    return names | layer("roi_heads.mask_head.predictor", classes, PYRAMID, 1, 1)


def numbers(names: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    state = {name: 0.1 * torch.randn(shape, generator=generator) for name, shape in names.items()}
    return {name: value + (re.search(r"norm\d?\.weight", name) is not None) for name, value in state.items()}


def whole(rows: tuple[int, ...] = ROWS, positions: int = 10, *, cascade: bool = False) -> dict[str, Tensor]:
    return numbers(transformer(rows, positions) | pyramid() | heads(cascade=cascade))
