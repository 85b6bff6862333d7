"""Boxes and scores for property tests."""

from __future__ import annotations

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

# No deadline: the first call of an operator can take a second on a loaded machine.
QUICK = settings(deadline=None, max_examples=40)

_PLACES = st.one_of(st.integers(-50, 1000).map(float), st.floats(-50, 1000, width=32))


def sides(smallest: float = 0.0, largest: float = 600.0) -> st.SearchStrategy[float]:
    """Widths and heights, whole ones often."""
    whole = st.integers(int(smallest) + (smallest > 0), int(largest)).map(float)
    return st.one_of(whole, st.floats(smallest, largest, width=32))


@st.composite
def box_tables(draw: st.DrawFn, smallest: float = 0.0, most: int = 12, least: int = 1) -> Tensor:
    """(n, 4) xyxy float32 boxes, least <= n <= most, with sides of at least about `smallest` pixels."""
    side = sides(smallest)
    rows = draw(st.lists(st.tuples(_PLACES, _PLACES, side, side), min_size=least, max_size=most))
    boxes = torch.tensor([(x, y, x + w, y + h) for x, y, w, h in rows], dtype=torch.float64)
    return boxes.reshape(-1, 4).float()
