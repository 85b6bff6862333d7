from __future__ import annotations

import numpy as np
import pytest

from fpn.data.division import join_groups, stratify

SHARES = {"train": 0.8, "val": 0.2}


def alone(count: int) -> np.ndarray:
    return np.arange(count)


def test_each_part_gets_its_share_of_every_class_exactly_where_that_can_be() -> None:
    # 50 images with a bolt, 20 with a nut, 10 with both, 20 with nothing.
    counts = np.array([[1, 0]] * 50 + [[0, 1]] * 20 + [[1, 1]] * 10 + [[0, 0]] * 20)
    parts = stratify(counts, alone(100), SHARES, seed=0)
    assert {name: len(rows) for name, rows in parts.items()} == {"train": 80, "val": 20}
    assert counts[parts["val"]].sum(axis=0).tolist() == [12, 6]
    assert sorted(parts["train"] + parts["val"]) == list(range(100))


def test_objects_are_balanced_and_not_only_images() -> None:
    # Five crowded images with 100 objects hold half of the 1000.
    counts = np.array([[100]] * 5 + [[5]] * 100)
    parts = stratify(counts, alone(105), SHARES, seed=1)
    assert counts[parts["val"]].sum() == pytest.approx(200, abs=5)
    assert len(parts["val"]) == 21


def test_a_class_in_as_many_images_as_there_are_parts_is_in_each_of_them() -> None:
    counts = np.zeros((30, 2), dtype=int)
    counts[:, 0] = 1
    counts[[4, 17, 25], 1] = 1
    parts = stratify(counts, alone(30), {"train": 0.6, "val": 0.2, "test": 0.2}, seed=0)
    assert [int(counts[rows, 1].sum()) for rows in parts.values()] == [1, 1, 1]


def test_a_class_in_a_single_image_is_for_training() -> None:
    for seed in range(10):
        counts = np.ones((10, 2), dtype=int)
        counts[1:, 1] = 0
        assert 0 in stratify(counts, alone(10), {"train": 0.5, "val": 0.5}, seed=seed)["train"]


def test_groups_are_never_torn() -> None:
    groups = np.arange(60) // 4
    parts = stratify(np.ones((60, 1), dtype=int), groups, SHARES, seed=3)
    assert not set(groups[parts["train"]]) & set(groups[parts["val"]])
    assert len(parts["val"]) == 12


def test_the_seed_decides_and_nothing_else_does() -> None:
    counts = np.random.default_rng(0).poisson(0.4, (60, 5))
    first, again, other = (stratify(counts, alone(60), SHARES, seed=seed) for seed in (0, 0, 1))
    assert first == again != other


def test_classes_are_closer_to_their_shares_than_by_chance() -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.uniform(0.02, 0.5, 20), (400, 20))
    chance = [rng.permutation(400)[:80] for _ in range(20)]

    def off(rows: list[int] | np.ndarray) -> float:
        return float(np.abs(counts[rows].sum(axis=0) / counts.sum(axis=0) - 0.2).mean())

    assert off(stratify(counts, alone(400), SHARES, seed=0)["val"]) < 0.7 * min(map(off, chance))


def test_nothing_is_divided_into_nothing() -> None:
    assert stratify(np.zeros((0, 2), dtype=int), alone(0), SHARES, seed=0) == {"train": [], "val": []}


def test_pairs_join_groups_also_through_others() -> None:
    joined = join_groups([0, 1, 2, 3, 3], [(0, 1), (1, 4)])
    assert len(set(joined[[0, 1, 3, 4]])) == 1
    assert joined[2] not in joined[[0, 1, 3, 4]]
