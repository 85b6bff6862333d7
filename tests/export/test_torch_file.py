"""PyTorch's own files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.export import Dim
from torch.nn import functional

import fpn
from fpn.errors import ModelFileError
from fpn.export.runtimes import TorchRuntime
from fpn.export.torch_file import BareGraph, WholeGraph, save_torch


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


class Cells(nn.Module):
    """Maps of a cell for every 32 pixels, and their neighbours' means."""

    multiple = 32

    def forward(self, pixels: torch.Tensor, sizes: torch.Tensor) -> tuple[torch.Tensor, ...]:
        cells = functional.avg_pool2d(pixels, 32)
        ones = cells.new_ones(cells.shape[2] * cells.shape[3])
        return (cells.permute(0, 2, 3, 1).flatten(1, 2) * ones[:, None], sizes)


def test_a_bare_program_takes_pixels_whose_maps_are_one_cell(small):
    whole = BareGraph(small)
    whole.network = Cells()
    batch, rows, columns = (Dim(name) for name in ("batch", "rows", "columns"))
    shapes = ({0: batch, 2: 32 * rows, 3: 32 * columns}, {0: batch})
    program = torch.export.export(
        whole, (torch.zeros(2, 3, 96, 160), torch.zeros(2, 2)), dynamic_shapes=shapes, strict=False
    )
    for height, width in ((32, 32), (32, 96), (64, 32)):
        pixels = torch.rand(3, 3, height, width)
        found, _ = program.module()(pixels, torch.zeros(3, 2))
        torch.testing.assert_close(found, Cells()(pixels, pixels)[0], rtol=0, atol=0)


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
