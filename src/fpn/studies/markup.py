"""HTML and SVG as text: whatever is put into an element is escaped, unless it is an element already."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

# Elements of HTML that hold nothing and have no end.
_VOID = frozenset({"br", "col", "hr", "img", "link", "meta"})
# What neither HTML nor SVG can hold: control characters but tab and line ends, and halves of a surrogate pair.
_UNSAYABLE = dict.fromkeys((*range(9), 11, 12, *range(14, 32), *range(127, 160), *range(55296, 57344)), "�")


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """One element.

    Args:
        name: such as "td". Only ours: it is not escaped.
        children: markup as it is; None is nothing; lists, tuples and iterators are their items; anything else is text.
        attributes: `class_` without the line at its end, other such lines become hyphens (`aria_label`); None and False
            are left out, True has no value.
    """
    start = f"<{name}{''.join(_attribute(key, value) for key, value in attributes.items())}>"
    return Markup(start) if name in _VOID else Markup(f"{start}{join_markup(children)}</{name}>")


def join_markup(children: Iterable[object]) -> Markup:
    """Several things one after the other, as `tag` takes them."""
    return Markup("".join(_text(child) for child in children))


def plain(text: object) -> str:
    """Escaped text, without what markup can't hold."""
    return escape(str(text).translate(_UNSAYABLE))


def _text(child: object) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return str(child)
    if isinstance(child, Iterable) and not isinstance(child, str):
        return join_markup(child)
    return plain(child)


def _attribute(name: str, value: object) -> str:
    if value is None or value is False:
        return ""
    written = name.rstrip("_").replace("_", "-")
    return f" {written}" if value is True else f' {written}="{plain(value)}"'
