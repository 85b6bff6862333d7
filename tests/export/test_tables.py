"""Tables are resampled as PyTorch resamples them."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from fpn.export.tables import TablesByProducts


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("size", [(7, 9), (3, 4), (20, 31), (5, 20), (1, 2)])
def test_tables_of_positions(size: tuple[int, int], antialias: bool) -> None:
    table = torch.randn(1, 5, 7, 9, generator=torch.Generator().manual_seed(0))
    wanted = functional.interpolate(table, size=size, mode="bicubic", antialias=antialias)
    with TablesByProducts():
        found = functional.interpolate(table, size=size, mode="bicubic", antialias=antialias)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    if size == (7, 9):
        assert torch.equal(found, table)


@pytest.mark.parametrize("size", [13, 5, 40, 1])
def test_tables_of_ways(size: int) -> None:
    table = torch.randn(1, 5, 13, generator=torch.Generator().manual_seed(0))
    wanted = functional.interpolate(table, size=size, mode="linear")
    with TablesByProducts():
        found = functional.interpolate(table, size=size, mode="linear")
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_maps_are_left_to_the_runtime() -> None:
    table = torch.randn(1, 5, 7, 9)
    with TablesByProducts():
        assert functional.interpolate(table, size=(14, 18), mode="nearest").shape == (1, 5, 14, 18)
