"""The page: one file that asks for nothing else, for a screen of any width, light or dark, and for paper."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from fpn.studies.markup import Markup, tag
from fpn.studies.report.elements import Chapter, foreign
from fpn.version import __version__


def render_page(title: Sequence[str], chapters: Sequence[Chapter], made: date) -> str:
    """An HTML document.

    Args:
        title: names of the model and of the data.
        chapters: in order; the first is the verdict.
        made: today.
    """
    model, data = title
    style = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    listed = (tag("li", tag("a", each.title, href=f"#{each.name}")) for each in chapters)
    body = tag(
        "body",
        tag("a", "Skip to the report", href="#main", class_="skip"),
        tag(
            "header",
            tag("h1", foreign(model), " on ", foreign(data)),
            tag("p", f"Made by fpn {__version__} on {made}."),
        ),
        tag("nav", tag("ol", listed), aria_label="Contents"),
        tag("main", (each.html() for each in chapters), id="main", tabindex="-1"),
        tag(
            "footer",
            tag(
                "p", "All figures are in report.json beside this page, those of fpn evaluate in figures.json and .csv."
            ),
        ),
    )
    return f"<!doctype html>\n{tag('html', _head(f'{model} on {data}', style), body, lang='en')}\n"


def _head(title: str, style: str) -> Markup:
    # Nothing is loaded and nothing runs, whatever somebody's names and files hold.
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name_="color-scheme", content="light dark"),
        tag("meta", name_="referrer", content="no-referrer"),
        tag("link", rel="icon", href="data:,"),
        tag("title", title),
        tag("style", Markup(style)),
    )
