from __future__ import annotations

import os
import shutil
from functools import cache
from pathlib import Path

import pytest
from filelock import FileLock

from docs_tools.blocks import CONSOLE, DOCS, LANGUAGES, MARKS, ROOT, begins_where, pages, read_blocks
from docs_tools.checks import wrong_command, wrong_links, wrong_table, wrong_words
from docs_tools.running import Session, differs, run_page
from docs_tools.sources import code_blocks, code_of

EVERYTHING = os.environ.get("FPN_ALL_DOCS") == "1"
PAGES = pages()
CHECKED = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", ROOT / "benchmarks" / "README.md"]
PROGRAMS = [page for page in PAGES if any(block.runs for block in read_blocks(page))]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@cache
def left_by(page: Path, folder: Path) -> Path:
    """The folder that a page's blocks leave; each page runs once, however many go on from it, in whichever process."""
    here = folder / name(page).replace("/", "-")
    done = here.with_name(f"{here.name}.done")
    with FileLock(here.with_name(f"{here.name}.lock")):
        if not done.exists():
            shutil.rmtree(here, ignore_errors=True)  # of one that has failed
            begin(page, here, folder)
            outcomes = run_page(page, here, everything=EVERYTHING)
            wrong = [text for outcome in outcomes if (text := differs(outcome, everything=EVERYTHING))]
            remedy = f"write them anew: python -m docs_tools.refresh {name(page)}"
            assert not wrong, "\n".join([*wrong, remedy])
            done.touch()
    return here


def begin(page: Path, here: Path, folder: Path) -> None:
    earlier = begins_where(page)
    if earlier is None:
        here.mkdir()
    else:
        shutil.copytree(left_by(earlier, folder), here)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all processes of a run of tests."""
    own = tmp_path_factory.getbasetemp()
    shared = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "pages"
    shared.mkdir(exist_ok=True)
    return shared


@pytest.mark.parametrize("page", PROGRAMS, ids=name)
def test_every_block_runs_and_prints_what_the_page_shows(page: Path, folder: Path) -> None:
    if any("bccd" in block.text for block in read_blocks(page) if block.runs) and not (ROOT.parent / "shared").exists():
        pytest.skip("needs ../shared/data/bccd, which is not in this checkout")
    left_by(page, folder)


@pytest.mark.parametrize("page", CHECKED, ids=name)
def test_links_verbs_options_and_settings_of_a_page_exist(page: Path) -> None:
    assert [*wrong_links(page), *wrong_words(page)] == []


@pytest.mark.parametrize("page", CHECKED, ids=name)
def test_blocks_are_of_a_known_language_and_marked_by_known_marks(page: Path) -> None:
    for block in read_blocks(page):
        assert block.language in LANGUAGES, f"{block.where}: ```{block.language}"
        for mark in block.marks:
            assert mark.startswith(MARKS), f"{block.where}: <!-- {mark} -->"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_code_that_a_page_shows_is_the_code_of_the_tree(page: Path) -> None:
    for block in code_blocks(page):
        remedy = f"{block.where} is older than src/: python -m docs_tools.refresh {name(page)}"
        name_of_code = block.mark("code of ") or ""
        assert block.text == code_of(name_of_code), remedy
        assert page.read_text(encoding="utf-8").splitlines()[block.line - 4] == f"`{name_of_code}`", block.where


def test_blocks_that_are_not_run_say_why_and_are_the_fewer(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = [block for page in PAGES for block in read_blocks(page)]
    left = [(block.where, reason) for block in blocks if (reason := block.mark("not run: ")) is not None]
    with capsys.disabled():
        print("".join(f"\n  not run: {where}: {reason}" for where, reason in left))
    assert all(len(reason.split()) > 1 for _, reason in left)
    assert sum(block.runs for block in blocks) > len(left)


# --- that these checks find something ---------------------------------------------------------------------------------


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A page of the site that is written by the test."""
    for module in ("docs_tools.checks", "docs_tools.blocks"):
        monkeypatch.setattr(f"{module}.ROOT", tmp_path)
    return tmp_path / "page.md"


def write(page: Path, text: str) -> Path:
    page.write_text(text, encoding="utf-8")
    return page


def test_a_dead_link_and_a_heading_that_is_not_there_are_found(page: Path) -> None:
    write(page, "# One two\n\n[a](gone.md) [b](#one-two) [c](#three) [d](https://example.org) [e](page.md#one-two)\n")
    assert list(wrong_links(page)) == ["page.md: (gone.md) leads nowhere", "page.md: (#three): no such heading"]


def test_unknown_verbs_options_and_settings_are_found(page: Path) -> None:
    assert list(wrong_command("fpn trian DATA")) == ["there is no verb trian"]
    assert list(wrong_command("fpn train DATA --epoch 3 --epochs 3  # --epok")) == ["train has no --epoch"]
    assert list(wrong_command("fpn train DATA --set rpn.nms=0.6 rpn.nmz=0.6")) == ["there is no setting rpn.nmz"]
    assert list(wrong_command("torchrun --x 3 -m fpn train DATA --epochs 3")) == []
    assert list(wrong_table("epochs = 3\nepok = 3\n[rpn]\nnms = 0.6\nnmz = 1\n")) == [
        "no setting epok",
        "no setting rpn.nmz",
    ]
    write(page, "`fpn predict --epochs 3` and `--flop 0.5`\n")
    assert list(wrong_words(page)) == [
        "page.md: fpn predict --epochs 3: predict has no --epochs",
        "page.md: `--flop 0.5`: no command has --flop",
    ]


def test_a_page_runs_in_one_session_and_its_output_is_compared_up_to_numbers(page: Path, tmp_path: Path) -> None:
    write(
        page,
        "```python\nkept = 3\n```\n\n```python\nprint('kept', kept)\nprint('and')\nprint('more')\n```\n\n"
        "```text\nkept 4\n...\nmore\n```\n\n```console\necho 5\n```\n\n<!-- exact -->\n```text\n4\n```\n",
    )
    outcomes = run_page(page, tmp_path, everything=False)
    assert [outcome.printed for outcome in outcomes] == ["", "kept 3\nand\nmore\n", "5\n"]
    assert [bool(differs(outcome, everything=False)) for outcome in outcomes] == [False, False, True]


def test_what_takes_long_has_a_quick_variant_and_a_failing_command_fails(page: Path, tmp_path: Path) -> None:
    write(
        page,
        "<!-- nightly: echo quick -->\n```console\necho slow\n```\n\n```text\nslow\n```\n\n```console\nls gone\n```\n",
    )
    [nightly, _, failing] = read_blocks(page)
    session = Session(tmp_path)
    assert [session.run(each) for each in (nightly.quick, nightly)] == ["quick\n", "slow\n"]
    with pytest.raises(AssertionError, match=r"page.md:10: ls gone\nended with status 2"):
        session.run(failing)


def test_every_quick_variant_is_of_verbs_that_exist() -> None:
    quick = [block.quick for page in PAGES for block in read_blocks(page) if block.mark("nightly: ") is not None]
    assert [
        wrong
        for block in quick
        if block.language == CONSOLE
        for line in block.text.splitlines()
        for wrong in wrong_command(line)
    ] == []


def test_the_pages_are_those_of_the_site_and_the_readme() -> None:
    assert PAGES[0] == ROOT / "README.md"
    assert DOCS / "index.md" in PAGES
