"""Divides images into parts so that each part has its share of every class: iterative stratification.

Images have objects of many classes, so no draw class by class is possible. The rarest class is dealt first, as later
ones leave more to balance with; each group of images goes to the part that has least of that class, measured by its
share (Sechidis, Tsoumakas and Vlahavas, "On the stratification of multi-label data", ECML 2011). Here a group is dealt
with all of its objects, the largest first, so that objects are balanced and not only images; and a part that has its
share of the images gets no more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from fpn.errors import ConfigError


def compile_groups(pattern: str) -> re.Pattern[str]:
    """What finds each image's group in its path.

    Raises:
        ConfigError: it is no regular expression.
    """
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"by_group {pattern!r}: no regular expression ({error})") from None


def stratify(counts: np.ndarray, groups: np.ndarray, shares: Mapping[str, float], *, seed: int) -> dict[str, list[int]]:
    """Which images go into which part.

    Args:
        counts: (N, K) objects of each class in each image.
        groups: (N,) images with the same number stay together.
        shares: name of each part -> its share of the images; they add up to 1. Where a class is too rare for all, those
            named first get it.
        seed: of the order in which groups of like size are dealt.

    Returns:
        For each part its images' numbers, ascending.
    """
    _, owner = np.unique(groups, return_inverse=True)
    # The image itself is dealt as a class that all have: last, as the commonest, to images without objects too.
    dealt = np.zeros((owner.max(initial=-1) + 1, counts.shape[1] + 1))
    np.add.at(dealt, owner, np.concatenate((counts, np.ones((len(counts), 1))), axis=1))
    part_of = _deal(dealt, np.array(list(shares.values())), np.random.default_rng(seed))
    return {name: np.flatnonzero(part_of[owner] == part).tolist() for part, name in enumerate(shares)}


def _deal(dealt: np.ndarray, shares: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """(G,) the part of each group; `dealt`: (G, C) what it brings of each class, the images as the last."""
    part_of = np.full(len(dealt), -1)
    had = np.zeros((len(shares), dealt.shape[1]))
    wanted = shares * dealt[:, -1].sum()
    first = -np.arange(len(shares))
    order = random.permutation(len(dealt))
    for label in _rarest_first(dealt):
        waiting = order[(part_of[order] < 0) & (dealt[order, label] > 0)]
        waiting = waiting[np.argsort(-dealt[waiting, label], kind="stable")]
        for left, group in zip(range(len(waiting), 0, -1), waiting.tolist(), strict=True):
            # With no more groups left than parts that have none of the class, those parts come first.
            without = had[:, label] == 0
            urgent = without & (left <= np.count_nonzero(without))
            # Sainte-Lague's rule of dealing seats: who would be the least served with half of it more.
            served = (had[:, [label, -1]] + dealt[group, [label, -1]] / 2) / shares[:, None]
            part = int(np.lexsort((first, -served[:, 1], -served[:, 0], urgent, had[:, -1] < wanted))[-1])
            part_of[group] = part
            had[part] += dealt[group]
    return part_of


def _rarest_first(dealt: np.ndarray) -> list[int]:
    """Classes by how many groups have them; the images, which all have, last."""
    spread = np.count_nonzero(dealt[:, :-1], axis=0)
    return [*np.argsort(spread, kind="stable").tolist(), dealt.shape[1] - 1]


def join_groups(groups: Sequence[int], pairs: Iterable[tuple[int, int]]) -> np.ndarray:
    """(N,) numbers of groups when the two images of each pair belong together as well."""
    leader = {group: group for group in groups}

    def lead(group: int) -> int:
        while leader[group] != group:
            leader[group] = group = leader[leader[group]]
        return group

    for one, other in pairs:
        leader[lead(groups[one])] = lead(groups[other])
    return np.array([lead(group) for group in groups], dtype=np.int64)
