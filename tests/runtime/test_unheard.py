from __future__ import annotations

import threading
import warnings

import pytest

from fpn.runtime.unheard import unheard


def test_what_is_unheard_inside_is_heard_again_outside() -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with unheard(UserWarning):
            warnings.warn("inside", UserWarning, stacklevel=1)
        warnings.warn("outside", UserWarning, stacklevel=1)
    assert [str(each.message) for each in told] == ["outside"]


def test_other_categories_and_modules_are_heard() -> None:
    with pytest.warns(UserWarning, match="ours"), unheard(DeprecationWarning), unheard(module="PIL"):
        warnings.warn("ours", UserWarning, stacklevel=1)


def test_threads_that_overlap_leave_the_filters_as_they_were() -> None:
    before = list(warnings.filters)
    first_is_in, second_is_in, first_is_out = (threading.Event() for _ in range(3))

    def first() -> None:
        with unheard(UserWarning):
            first_is_in.set()
            second_is_in.wait(5)
        first_is_out.set()

    def second() -> None:
        first_is_in.wait(5)
        with unheard(UserWarning):
            second_is_in.set()
            first_is_out.wait(5)
            warnings.warn("still unheard", UserWarning, stacklevel=1)  # an error in tests, were it heard

    threads = [threading.Thread(target=each) for each in (first, second)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert list(warnings.filters) == before


def test_an_error_inside_ends_it_too() -> None:
    before = list(warnings.filters)
    with pytest.raises(KeyError), unheard():
        raise KeyError
    assert list(warnings.filters) == before
