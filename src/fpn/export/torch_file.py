"""A detector's graph as PyTorch's own file, `.pt2`.

Source: https://docs.pytorch.org/docs/stable/export.html. Steps that no tensor operations make stay fpn's operators, so
that such a file is run where `fpn.export.operators` has been imported.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from fpn.detectors.detector import Detector
from fpn.detectors.modes import evaluating
from fpn.export.graph import DetectorGraph, trace_network
from fpn.export.header import GraphInfo
from fpn.export.inside import InsidePreprocessor
from fpn.export.plain_norms import with_plain_norms
from fpn.export.tables import TablesByProducts

# Under this name the header lies in the archive.
HEADER = "fpn.json"


class WholeGraph(nn.Module):
    """uint8 RGB images (B, H, W, 3) -> what `DetectorGraph` gives, boxes and keypoints in pixels of the images.

    Args:
        detector: not optimized.

    Raises:
        ConfigError: a kind or a setting that can't be exported.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.inside = InsidePreprocessor(detector.preprocessor)
        self.network = DetectorGraph(with_plain_norms(detector))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Prepare, detect, and bring back as `Preprocessor.restore` does."""
        inside = self.inside(images)
        found = dict(zip(self.network.outputs, self.network(inside.pixels, inside.sizes), strict=True))
        found["boxes"] = (found["boxes"] / inside.scales).clamp(min=0.0).minimum(inside.limits)
        if "keypoints" in found:
            found["keypoints"] = found["keypoints"] / inside.point_scales
        return tuple(found.values())


class BareGraph(nn.Module):
    """Network pixels (B, 3, H, W) and sizes (B, 2) -> what `DetectorGraph` gives.

    Sides are numbers that a tensor says: of those of the pixels a trace would settle that no map is of one cell.

    Args:
        detector: not optimized.

    Raises:
        ConfigError: a kind or a setting that can't be exported.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.network = DetectorGraph(with_plain_norms(detector))

    def forward(self, pixels: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        """Detect."""
        multiple = self.network.multiple
        counts = [
            cast(int, (torch.ones((), dtype=torch.int64) * (pixels.shape[axis] // multiple)).item()) for axis in (2, 3)
        ]
        for count in counts:
            torch._check(count >= 1)
        rows, columns = (count * multiple for count in counts)
        return cast(tuple[Tensor, ...], self.network(pixels.reshape(pixels.shape[0], 3, rows, columns), sizes))


def build_torch(detector: Detector, *, bare: bool) -> tuple[ExportedProgram, GraphInfo]:
    """The detector as a program, open in batch, height and width.

    Args:
        detector: as it was trained.
        bare: without the preprocessor, see `GraphInfo.images`.

    Raises:
        ConfigError: a kind or a setting that can't be exported.
    """
    if bare:
        graph = BareGraph(detector)
        return trace_network(graph, graph.network.multiple), GraphInfo("network", graph.network.outputs)
    whole, shapes = WholeGraph(detector), ({0: Dim("batch"), 1: Dim("height"), 2: Dim("width")},)
    images = torch.zeros(2, 50, 70, 3, dtype=torch.uint8)
    with evaluating(whole), torch.no_grad(), TablesByProducts():
        program = torch.export.export(whole, (images,), dynamic_shapes=shapes, strict=False)
    return program, GraphInfo("original", whole.network.outputs)


def save_torch(program: ExportedProgram, header: Mapping[str, Any], target: Path) -> None:
    """Write a program with what it shall say about itself.

    Args:
        program: of `build_torch`.
        header: see `GraphInfo.header`.
        target: a `.pt2`.
    """
    torch.export.save(program, target, extra_files={HEADER: json.dumps(header)})
