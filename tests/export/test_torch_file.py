"""PyTorch's own files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

import fpn
from fpn.errors import ModelFileError
from fpn.export.runtimes import TorchRuntime
from fpn.export.torch_file import WholeGraph, save_torch


def test_a_whole_graph_gives_what_its_detector_gives_in_pixels_of_the_images(small):
    images = np.random.default_rng(0).integers(0, 256, (3, 50, 71, 3), np.uint8)
    with torch.no_grad():
        boxes, scores, labels, counts = WholeGraph(small).eval()(torch.from_numpy(images))
    wanted = small.predict(list(images), batch_size=3)
    assert counts.tolist() == [len(each) for each in wanted]
    assert counts.sum() > 0
    for number, each in enumerate(wanted):
        found = slice(0, len(each))
        torch.testing.assert_close(boxes[number, found], each.boxes, rtol=0, atol=1e-3)
        torch.testing.assert_close(scores[number, found], each.scores, rtol=0, atol=1e-5)
        assert torch.equal(labels[number, found], each.labels)


class Doubling(nn.Module):
    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor]:
        return (images * 2,)


def test_a_program_travels_with_its_header(tmp_path):
    program = torch.export.export(Doubling(), (torch.ones(2),), strict=False)
    save_torch(program, {"format": 1}, tmp_path / "a.pt2")
    runtime = TorchRuntime(tmp_path / "a.pt2", where="a.pt2")
    assert json.loads(runtime.header) == {"format": 1}
    assert runtime.name.startswith("PyTorch ")
    (found,) = runtime({"images": np.array([1, 3], np.float32)})
    assert found.tolist() == [2, 6]


def test_another_file_is_told(tmp_path):
    (tmp_path / "a.pt2").write_bytes(b"mine")
    with pytest.raises(ModelFileError, match=r"a\.pt2: PyTorch can't read it"):
        fpn.load(tmp_path / "a.pt2")
