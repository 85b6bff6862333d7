"""Equation 1 as a property: against the formula in whole numbers, and under growth."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fpn.ops.roi_align.levels import LevelRule, choose_levels
from ops.given_boxes import QUICK, box_tables

RULES: st.SearchStrategy[LevelRule] = st.sampled_from(["floor_log2", "round_log2", "round_ln"])


def by_formula(side: float, rule: LevelRule) -> float:
    """The level before rounding, such that floor gives it: by definition, with Python's own logarithm."""
    logarithm = math.log(side / 224) if rule == "round_ln" else math.log2(side / 224)
    return 4 + logarithm + (0.0 if rule == "floor_log2" else 0.5)


@QUICK
@given(box_tables(smallest=1.0, most=20), RULES)
def test_levels_are_the_formulas_away_from_its_edges(boxes: Tensor, rule: LevelRule) -> None:
    chosen = choose_levels(boxes, finest=2, coarsest=5, rule=rule)
    for (x1, y1, x2, y2), level in zip(boxes.double().tolist(), chosen.tolist(), strict=True):
        exact = by_formula(math.sqrt((x2 - x1) * (y2 - y1)), rule)
        if abs(exact - round(exact)) > 1e-4:
            assert level == min(max(math.floor(exact), 2), 5)


@QUICK
@given(box_tables(most=20), RULES)
def test_a_larger_box_is_never_on_a_finer_level_and_twice_the_side_is_one_coarser(
    boxes: Tensor, rule: LevelRule
) -> None:
    sides = torch.cat([torch.zeros(len(boxes), 2), boxes[:, 2:] - boxes[:, :2]], dim=1)
    small, large = (choose_levels(sides * factor, finest=2, coarsest=9, rule=rule) for factor in (1, 2))
    assert (large >= small).all()
    assert (large <= small + 1).all()


@QUICK
@given(st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=4, max_size=4), RULES)
def test_any_finite_box_has_a_level(box: list[float], rule: LevelRule) -> None:
    level = choose_levels(torch.tensor([box]), finest=2, coarsest=5, rule=rule).item()
    assert 2 <= level <= 5
