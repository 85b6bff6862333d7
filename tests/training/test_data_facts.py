from __future__ import annotations

import pytest

from fpn.training.data_facts import DataFacts

from .counted import CountedDataset, square


def test_sides_are_shares_of_the_shorter_side():
    facts = DataFacts.of(CountedDataset(4, [*square(48), [0.0, 0.0, 24.0, 96.0]]))
    # Both have an area of 48 x 48 or 24 x 96 = 2304 pixels.
    assert facts.side(50.0) == pytest.approx(0.1)
    assert (facts.images, facts.objects, facts.most, facts.empty) == (4, 8, 2, 0.0)
    assert (facts.short_side(), facts.stretch(50.0)) == (480.0, pytest.approx(4 / 3))


def test_the_rarest_class_is_that_of_fewest_images_and_an_absent_one_is_none():
    assert DataFacts.of(CountedDataset(20, square(48, count=2), rare=3)).rarest() == ("flaw", 0.15)
    assert DataFacts.of(CountedDataset(20, square(48), rare=0)).rarest() == ("cell", 1.0)
    assert DataFacts.of(CountedDataset(2, [])).rarest() == ("", 0.0)


def test_images_without_objects_are_counted():
    facts = DataFacts.of(CountedDataset(5, []))
    assert (facts.empty, facts.objects, facts.side(10.0)) == (1.0, 0, 1.0)
    assert "5 images" in str(facts)
    assert str(facts).endswith(" images, none with an object that counts")
