from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from features.given import times
from fpn.features.extractor import BottomUp, Extractor, FeatureExtractor
from fpn.features.necks.config import NeckConfig
from fpn.features.necks.designs import DESIGNS, PAPER_ROWS
from fpn.structures import Features, Level


def test_the_papers_rows_and_later_necks_are_all_here_and_declare_what_heads_see() -> None:
    names = {name: [level.name for level in build(name).levels] for name in DESIGNS}
    five = ["p2", "p3", "p4", "p5", "p6"]
    assert names == {
        "c4": ["p4"],
        "c5": ["p5"],
        "fpn": five,
        "lateral_only": five,
        "top_down_only": five,
        "p2_only": ["p2"],
        "hierarchy": five,
        "image_pyramid": five,
        "pafpn": five,
        "bifpn": five,
        "simple_pyramid": five,
    }
    assert list(names)[: len(PAPER_ROWS)] == list(PAPER_ROWS)


class ConstantBackbone(BottomUp):
    """Level k is k everywhere, one channel."""

    def __init__(self, numbers: tuple[int, ...]) -> None:
        super().__init__()
        self.levels = tuple(Level(f"c{k}", 1, 2**k, k) for k in numbers)

    def forward(self, pixels: Tensor) -> Features:
        size = pixels.shape[-1]
        return {
            level.name: torch.full((1, 1, size // level.stride, size // level.stride), float(level.number))
            for level in self.levels
        }


def build(name: str) -> Extractor:
    design = DESIGNS[name]
    features = design.build(ConstantBackbone(design.out), NeckConfig(channels=1, output_channels=1))
    if name not in PAPER_ROWS:
        return features
    convolutions = features.neck if isinstance(features, FeatureExtractor) else features
    for part in convolutions.laterals.values():
        times(part, 1.0)
    for part in convolutions.smooths.values():
        times(part, 10.0)
    return features


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("c4", [40]),
        ("c5", [50]),
        ("hierarchy", [2, 3, 4, 5, 5]),  # the bottom-up maps as they are, and p6 = p5
        ("lateral_only", [20, 30, 40, 50, 50]),  # smoothed, nothing added
        ("top_down_only", [50, 50, 50, 50, 50]),  # c5 everywhere
        ("fpn", [140, 120, 90, 50, 50]),  # 2+3+4+5, 3+4+5, 4+5, 5
        ("p2_only", [140]),
    ],
)
def test_a_design_lets_in_what_the_paper_says(name: str, expected: list[float]) -> None:
    maps = build(name)(torch.zeros(1, 3, 64, 64))
    assert [map_.unique().tolist() for map_ in maps.values()] == [[value] for value in expected]


def test_the_tables_columns_tell_lateral_and_top_down() -> None:
    columns = {name: (design.lateral, design.top_down) for name, design in DESIGNS.items()}
    assert columns["fpn"] == columns["p2_only"] == (True, True)
    assert columns["lateral_only"] == (True, False)
    assert columns["top_down_only"] == (False, True)


def test_the_table_can_be_read_without_torch() -> None:
    # A command's help names the designs, and may not wait for torch.
    program = "import sys, fpn.features.necks.designs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
