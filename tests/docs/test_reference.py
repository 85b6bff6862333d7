from __future__ import annotations

import inspect
import re
from importlib import import_module

import pytest

from docs_tools.blocks import DOCS
from docs_tools.error_pages import error_classes, messages
from docs_tools.figures import FIGURES
from docs_tools.markdown import cell, code, escaped
from docs_tools.python_pages import PACKAGES, public_names
from docs_tools.reference import PAGES, written
from docs_tools.setting_pages import classes
from fpn import errors
from fpn.cli.help import read_pages
from fpn.data.issues import KINDS


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PAGES)
def test_pages_of_the_reference_are_what_the_source_says_now(name: str) -> None:
    assert page(name) == written(name), "write them anew: python -m docs_tools.reference"


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_what_explain_says_now(name: str) -> None:
    assert page(f"images/{name}") == FIGURES[name](), "draw them anew: python -m docs_tools.figures"


def test_every_verb_and_every_option_is_on_its_page() -> None:
    sections = re.split(r"^## fpn ", page("reference/commands.md"), flags=re.MULTILINE)[1:]
    told = {section.partition("\n")[0]: section for section in sections}
    pages = {verb: each for verb, each in read_pages().items() if verb}
    assert list(told) == list(pages)
    for verb, each in pages.items():
        for panel in each["panels"]:
            for row in panel["rows"]:
                assert all(code(name) in told[verb] for name in row["names"]), (verb, row["names"])


def test_every_setting_is_on_its_page_with_a_meaning() -> None:
    sections = re.split(r"^## ", page("reference/settings.md"), flags=re.MULTILINE)[1:]
    told = {section.partition("\n")[0]: section for section in sections}
    assert len(classes()) > 40
    for kind in classes().values():
        own = [name for name in kind.model_fields if name in inspect.get_annotations(kind)]
        for name in own:
            row = re.search(rf"^\| `{name}` \| .+? \| .+? \| (.+) \|$", told[kind.__name__], re.MULTILINE)
            assert row is not None, f"{kind.__name__}.{name}"
            assert len(row.group(1)) > 4


def test_every_error_every_finding_and_every_message_is_on_its_page() -> None:
    told = page("reference/errors.md")
    raised = {name for name, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, errors.FpnError)}
    assert set(error_classes()) == raised
    assert all(f"`fpn.errors.{name}`" in told for name in raised)
    assert all(f"| `{kind}` |" in told for kind in KINDS)
    texts = [text for by in messages().values() for each in by.values() for text in each]
    assert len(texts) > 300
    assert all(f"- {cell(text)}" in told for text in texts)
    assert set(messages()) <= raised


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_on_its_page(package: str) -> None:
    assert set(public_names(package)) == set(import_module(package).__all__)
    told = page("reference/python.md")
    for name in public_names(package):
        _, found, after = told.partition(f"\n### {package}.{escaped(name)}\n")
        assert found, name
        assert len(after.partition("\n#")[0].strip()) > 20, name


def test_text_of_the_source_can_not_break_a_page() -> None:
    assert cell("a|b <c> *d*\n e_f") == "a\\|b &lt;c&gt; \\*d\\* e\\_f"
    assert escaped("`a_b<c>` and one ` alone") == "'a\\_b&lt;c&gt;' and one ' alone"
    assert escaped("`a_b<c>` a_b") == "`a_b<c>` a\\_b"
