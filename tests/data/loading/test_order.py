from __future__ import annotations

from collections import Counter
from itertools import chain

import numpy as np
import pytest

from fpn.data.loading.order import Order, repeat_factors

# Of 100 images 1 has class 1, 25 have class 2, all have class 0.
LABELS = [[0, 0, 1], *[[0, 2]] * 25, *[[0]] * 74]


def entries(repeats, epoch, **settings):
    order = Order(count=len(repeats), batch_size=4, repeats=np.asarray(repeats), **settings)
    batches = order.batches(epoch)
    assert len(batches) == len(order)
    return list(chain.from_iterable(batches))


def test_rare_classes_ask_for_the_root_of_threshold_by_share():
    factors = repeat_factors(LABELS, 0.25)
    # sqrt(0.25 / 0.01) = 5, sqrt(0.25 / 0.25) = 1.
    assert factors.tolist() == pytest.approx([5, *[1] * 99])
    assert repeat_factors(LABELS, 0.5)[:2].tolist() == pytest.approx([50**0.5, 2**0.5])
    assert repeat_factors(LABELS, 0.0).tolist() == [1] * 100


def test_an_image_without_objects_comes_once():
    assert repeat_factors([[], [0], [], []], 1.0).tolist() == [1, 2, 1, 1]


def test_whole_factors_are_kept_in_each_epoch_and_copies_are_told_apart():
    assert sorted(entries([1, 3, 1, 2], 0)) == [0, 1, 2, 3, 5, 7, 9]  # 1, 1 + 4, 1 + 8; 3, 3 + 4
    order = Order(count=4, batch_size=4)
    assert [entry % order.count for entry in (1, 5, 9, 7)] == [1, 1, 1, 3]


def test_fractions_are_chances_and_every_epoch_is_as_long():
    repeats = np.array([1.0, 1.25, 1.5, 2.25, 1.0])  # 7 images an epoch
    counts = Counter()
    for epoch in range(400):
        drawn = [entry % 5 for entry in entries(repeats, epoch)]
        assert len(drawn) == 7
        counts.update(drawn)
    assert [counts[number] / 400 for number in range(5)] == pytest.approx(repeats.tolist(), abs=0.08)
    assert counts[0] == counts[4] == 400


def test_a_factor_of_one_for_all_changes_nothing():
    for epoch in (0, 1):
        assert entries([1.0] * 10, epoch) == list(chain.from_iterable(Order(count=10, batch_size=4).batches(epoch)))


def test_repeats_are_a_function_of_seed_and_epoch():
    repeats = [1.5] * 20
    assert entries(repeats, 3) == entries(repeats, 3)
    assert entries(repeats, 3) != entries(repeats, 4)
    assert sorted(entries(repeats, 3, seed=1)) != sorted(entries(repeats, 3, seed=2))


def test_upright_and_lying_copies_get_their_own_batches():
    upright = np.array([True, False] * 4)
    order = Order(count=8, batch_size=2, repeats=np.full(8, 2.0), upright=upright)
    batches = order.batches(0)
    assert len(batches) == 8
    assert all(len({bool(upright[entry % 8]) for entry in batch}) == 1 for batch in batches)


def test_processes_share_out_repeated_images_too():
    repeats = np.array([1.0, 2.0, 1.0, 3.0])
    whole = Order(count=4, batch_size=4, repeats=repeats).batches(0)
    shares = [Order(count=4, batch_size=2, repeats=repeats, rank=rank, world_size=2).batches(0) for rank in (0, 1)]
    joined = [first + second for first, second in zip(*shares, strict=True)]
    assert joined[0] == whole[0]
