"""How near is near enough: maps by their largest value, boxes one by one, detections as sets."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from parity.golden.cases import Case

# Measured between frameworks: 3e-6 of a map's largest value.
MAP_TOLERANCE = 1e-4
BOX_TOLERANCE = 1e-4  # pixels
OP_TOLERANCE = 1e-5


def to_numpy(value: Tensor | np.ndarray) -> np.ndarray:
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else value


def assert_map(case: Case, name: str, full: Tensor | np.ndarray, tolerance: float = MAP_TOLERANCE) -> None:
    """A whole map against the stored part of the original's, and against the statistics of its whole."""
    full = to_numpy(full)
    stored, stats = case[name], case.meta["arrays"][name]["stats_of_full"]
    largest = max(abs(stats["min"]), abs(stats["max"]))
    error = float(np.abs(case.stored_part(name, full) - stored).max()) / largest
    assert error <= tolerance, f"{case.name}/{name}: off by {error:.2e} of the largest value"
    whole = full.astype(np.float64)
    for statistic in ("mean", "std", "min", "max"):
        off = abs(float(getattr(whole, statistic)()) - stats[statistic]) / largest
        assert off <= tolerance, f"{case.name}/{name}: {statistic} of the whole is off by {off:.2e}"


def assert_near(actual: Tensor | np.ndarray, expected: np.ndarray, tolerance: float, *, relative: float = 0.0) -> None:
    actual = to_numpy(actual)
    assert actual.shape == expected.shape, f"shape {actual.shape}, not {expected.shape}"
    np.testing.assert_allclose(actual, expected, rtol=relative, atol=tolerance)


def unmatched(rows: Tensor | np.ndarray, others: Tensor | np.ndarray, tolerance: float) -> int:
    """How many of `rows` have no partner among `others`, each partner given away once, nearest first.

    NMS and top-k are discontinuous: two sets can be the same where two lists differ in order.
    """
    rows, others = (torch.as_tensor(to_numpy(t), dtype=torch.float64) for t in (rows, others))
    if len(rows) == 0 or len(others) == 0:
        return len(rows)
    distance = (rows[:, None] - others[None]).abs().amax(dim=-1)
    free = torch.ones(len(others), dtype=torch.bool)
    left_over = 0
    for row in distance.amin(dim=1).argsort():
        nearest = torch.where(free, distance[row], torch.inf).argmin()
        if free[nearest] and distance[row, nearest] <= tolerance:
            free[nearest] = False
        else:
            left_over += 1
    return left_over


def assert_same_set(actual: Tensor | np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    actual = to_numpy(actual)
    assert len(actual) == len(expected), f"{len(actual)} rows, not {len(expected)}"
    missing = unmatched(expected, actual, tolerance)
    assert missing == 0, f"{missing} of {len(expected)} rows have no partner within {tolerance}"
