from __future__ import annotations

from fpn.studies.markup import Markup, join_markup, tag


def test_text_is_escaped_and_markup_is_not() -> None:
    assert tag("p", "<b>&", tag("b", "x")) == "<p>&lt;b&gt;&amp;<b>x</b></p>"


def test_attributes_are_escaped_named_with_hyphens_and_left_out_where_there_is_nothing_to_say() -> None:
    assert tag("a", class_='"><script>', aria_label=None, hidden=False, x1=1.5) == (
        '<a class="&quot;&gt;&lt;script&gt;" x1="1.5"></a>'
    )
    assert tag("details", open=True) == "<details open></details>"


def test_empty_elements_have_no_end_and_lists_are_their_items() -> None:
    assert tag("br") == "<br>"
    assert join_markup(["a", None, [1, Markup("<i>")], (each for each in "<")]) == "a1<i>&lt;"


def test_what_markup_cannot_hold_is_replaced() -> None:
    assert tag("p", "a\x00b\x1b\udcffc\n") == "<p>a\ufffdb\ufffd\ufffdc\n</p>"
