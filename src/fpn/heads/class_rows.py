"""Which weights of a head belong to classes: what makes them follow the names when the classes change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class ClassRows:
    """A layer whose outputs, and with them the rows of its weight and bias, belong to classes.

    The rows are `groups` times: `each` rows of class 0, `each` of class 1, ... of class K - 1, then `others` of none.
    Logits with background behind them are `ClassRows(layer, others=1)`, a box for each class is
    `ClassRows(layer, each=4)`, and channels anchor * K + class are `ClassRows(layer, groups=A)`.

    Attributes:
        layer: all its own tensors have these rows.
        each: rows of one class, next to each other.
        groups: how often the classes come.
        others: rows behind each group that belong to no class, such as background's.
    """

    layer: nn.Module
    each: int = 1
    groups: int = 1
    others: int = 0

    def count(self, num_classes: int) -> int:
        """Rows of a layer for so many classes."""
        return self.groups * (num_classes * self.each + self.others)


def carry_rows(
    taken: Tensor, fresh: Tensor, rows: ClassRows, *, num_taken: int, num_fresh: int, pairs: Sequence[tuple[int, int]]
) -> Tensor:
    """What a layer for some classes has to hold after one for others: rows of shared classes, and those of no class.

    Args:
        taken: (rows.count(num_taken), ...) of the earlier layer.
        fresh: (rows.count(num_fresh), ...) of the new layer; rows of its other classes stay.
        rows: how they lie, the same in both.
        num_taken: classes of the earlier layer.
        num_fresh: classes of the new layer.
        pairs: (earlier label, new label) of the classes that both know.

    Returns:
        A new tensor, shaped as `fresh`.
    """
    old = taken.reshape(rows.groups, -1, *taken.shape[1:])  # (groups, K * each + others, ...)
    new = fresh.reshape(rows.groups, -1, *fresh.shape[1:]).clone()
    for before, label in pairs:
        new[:, label * rows.each : (label + 1) * rows.each] = old[:, before * rows.each : (before + 1) * rows.each]
    new[:, num_fresh * rows.each :] = old[:, num_taken * rows.each :]
    return new.reshape(fresh.shape)
