"""The part of one-stage detectors that picks pairs by open sides, as ONNX Runtime runs it; whole files take minutes."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import onnxruntime
import torch

import fpn
from fpn.export.dense_graph import DenseGraph
from fpn.export.onnx_file import _converted
from fpn.heads.dense_selection import DenseMaps


class Picking(torch.nn.Module):
    def __init__(self, graph):
        super().__init__()
        self.graph = [graph]  # whose weights have no part in it

    def forward(self, logits, quality):
        return self.graph[0]._best_of(DenseMaps([logits], [], [quality]), 0)


tiny = {"backbone": "test_efficientnet", "weights": None, "classes": ["a", "b"]}
picking = Picking(DenseGraph(fpn.fcos(**tiny, neck_channels=8, neck_output_channels=8))).eval()
sides = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
example = torch.zeros(2, 2, 5, 7), torch.zeros(2, 1, 5, 7)
with torch.no_grad():
    program = torch.export.export(picking, example, dynamic_shapes=(sides, sides), strict=False)
model = _converted(program, ["logits", "quality"], ["scores", "place", "label"])
session = onnxruntime.InferenceSession(model.SerializeToString())
torch.manual_seed(0)
logits, quality = torch.randn(3, 2, 9, 4), torch.randn(3, 1, 9, 4)
wanted = picking(logits, quality)
there = wanted[0] > 0
assert there.sum() > 20
for own, found in zip(wanted, session.run(None, {"logits": logits.numpy(), "quality": quality.numpy()})):
    torch.testing.assert_close(torch.from_numpy(found)[there], own[there], rtol=0, atol=1e-6)
"""


def test_pairs_are_picked_in_a_file_as_in_its_graph() -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason="needs the extra export")
    # In a process of its own: what is traced can't be under a checker of types.
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
