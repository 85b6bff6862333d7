from __future__ import annotations

import torch
from torch import nn

from fpn.heads.class_rows import ClassRows, carry_rows

LAYER = nn.Identity()


def carried(taken: list[float], fresh: list[float], rows: ClassRows, pairs: list[tuple[int, int]]) -> list[float]:
    """For a layer of two classes before and three now."""
    old, new = torch.tensor(taken)[:, None], torch.tensor(fresh)[:, None]  # (rows, 1)
    return carry_rows(old, new, rows, num_taken=2, num_fresh=3, pairs=pairs).flatten().tolist()


def test_logits_follow_their_classes_and_background_stays_last() -> None:
    rows = ClassRows(LAYER, others=1)
    # Class 0 becomes class 2, class 1 is gone; 99 is background.
    assert carried([10, 11, 99], [0.1, 0.2, 0.3, 0.4], rows, [(0, 2)]) == [
        torch.tensor(0.1).item(),
        torch.tensor(0.2).item(),
        10.0,
        99.0,
    ]


def test_each_class_brings_all_its_rows() -> None:
    taken = [0.0, 1, 2, 3, 10, 11, 12, 13]
    fresh = [-1.0] * 12
    assert carried(taken, fresh, ClassRows(LAYER, each=4), [(1, 0), (0, 2)]) == [10, 11, 12, 13, *[-1] * 4, 0, 1, 2, 3]


def test_the_classes_of_every_anchor_are_carried() -> None:
    # Two anchors, each with its two classes and one row of none.
    rows = ClassRows(LAYER, groups=2, others=1)
    assert rows.count(2) == 6
    assert rows.count(3) == 8
    assert carried([1, 2, 9, 3, 4, 8], [0] * 8, rows, [(0, 0), (1, 2)]) == [1, 0, 2, 9, 3, 0, 4, 8]


def test_a_bias_has_the_same_rows_as_its_weight() -> None:
    rows = ClassRows(LAYER, others=1)
    kept = carry_rows(
        torch.tensor([1.0, 2.0, 9.0]), torch.zeros(4), rows, num_taken=2, num_fresh=3, pairs=[(0, 1), (1, 0)]
    )
    assert kept.tolist() == [2, 1, 0, 9]
