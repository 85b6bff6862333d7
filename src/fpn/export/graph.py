"""Any detector as a graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from fpn.detectors.detector import Detector
from fpn.detectors.modes import evaluating
from fpn.detectors.one_stage import OneStageDetector
from fpn.detectors.two_stage import TwoStageDetector
from fpn.errors import ConfigError
from fpn.export.dense_graph import DenseGraph
from fpn.export.header import OUTPUT_NAMES
from fpn.export.padded import PaddedDetections
from fpn.export.tables import TablesByProducts
from fpn.export.two_stage_graph import TwoStageGraph


class DetectorGraph(nn.Module):
    """Network pixels (B, 3, H, W) and sizes (B, 2) -> boxes, scores, labels, counts, masks and keypoints, as there are.

    Args:
        detector: not optimized.

    Raises:
        ConfigError: a kind or a setting that can't be exported.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.multiple = detector.preprocessor.size_multiple
        self.inner = _graph_of(detector, self.multiple)
        masks = ("masks",) if "masks" in detector.tasks else ()
        keypoints = ("keypoints",) if "keypoints" in detector.tasks else ()
        self.outputs: tuple[str, ...] = (*OUTPUT_NAMES[:4], *masks, *keypoints)

    def forward(self, pixels: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        found: PaddedDetections = self.inner(pixels, sizes)
        more = (found.masks, found.keypoints)
        return (found.boxes, found.scores, found.labels, found.valid.sum(dim=1), *(m for m in more if m is not None))

    def trace(self) -> ExportedProgram:
        """The program, open in batch, rows and columns."""
        return trace_network(self, self.multiple)


def trace_network(graph: nn.Module, multiple: int) -> ExportedProgram:
    """The program of a graph of network pixels and sizes, open in batch, rows and columns.

    Args:
        graph: a `DetectorGraph`, or what takes the same.
        multiple: sides of the pixels are multiples of this.
    """
    # Three different numbers, or those that are equal would be taken to be the same for ever.
    height, width = 3 * multiple, 5 * multiple
    pixels, sizes = torch.zeros(2, 3, height, width), torch.tensor([[height, width - 1], [height - 2, width]])
    batch, rows, columns = Dim("batch"), Dim("rows"), Dim("columns")
    shapes = ({0: batch, 2: multiple * rows, 3: multiple * columns}, {0: batch})
    with evaluating(graph), torch.no_grad(), TablesByProducts():
        return torch.export.export(graph, (pixels, sizes), dynamic_shapes=shapes, strict=False)


def _graph_of(detector: Detector, multiple: int) -> nn.Module:
    if not detector.saveable:
        raise ConfigError("an optimized detector can't be exported: its convolutions are in this machine's own order")
    if isinstance(detector, TwoStageDetector | OneStageDetector):
        _check_multiple(detector, multiple)
    if isinstance(detector, TwoStageDetector):
        return TwoStageGraph(detector)
    if isinstance(detector, OneStageDetector):
        return DenseGraph(detector)
    raise ConfigError(f"a {detector.recipe.kind} can't be exported: there is no graph of it")


def _check_multiple(detector: TwoStageDetector | OneStageDetector, multiple: int) -> None:
    strides = [level.stride for level in detector.features.backbone.levels]
    if any(multiple % stride for stride in strides):
        raise ConfigError(
            f"pixels.size_multiple {multiple}: is no multiple of the backbone's stride {max(strides)}, so that the "
            "maps' sizes depend on the image's remainder, which no graph holds"
        )
