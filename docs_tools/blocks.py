"""The code blocks of a page, and what the comments above them say of how they are run.

A comment stands alone on the line above a block:

    <!-- not run: REASON -->       only looked at: its verbs and options have to exist
    <!-- nightly: COMMANDS -->     takes over a minute and runs with FPN_ALL_DOCS=1; else COMMANDS do, parted by " ;; "
    <!-- exits 1 -->               the last command has to end with this status
    <!-- exact -->                 of a block of output: numbers have to be the same, too
    <!-- of a whole demo -->       of a block of output: compared with FPN_ALL_DOCS=1 only
    <!-- code of NAME -->          of a Python block: it is the source of that function or class, and is kept so
    <!-- generated -->             made by a command; a test of its own compares it

A page may say `<!-- begins where PAGE.md ends -->`: its blocks run in a copy of the folder that PAGE's blocks left.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"

CONSOLE, PYTHON, OUTPUT = "console", "python", "text"
# What a block may be; others are shown only.
LANGUAGES = frozenset({CONSOLE, PYTHON, OUTPUT, "toml", "yaml", "json", "xml"})
MARKS = ("not run: ", "nightly: ", "exits ", "exact", "of a whole demo", "code of ", "generated", "tests")

_FENCE = re.compile(r"^( *)```(\w*)\s*$")
_COMMENT = re.compile(r"^ *<!-- (.+?) -->\s*$")
# A part of a page that a command of `fpn` writes.
_REGION = re.compile(r"^<!-- \w+: (begin|end) -->$")
_BEGINS = re.compile(r"^<!-- begins where (\S+) ends -->$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Block:
    """One fenced block.

    Attributes:
        page: where it stands.
        line: of the opening fence, from 1 on.
        language: word behind the fence.
        text: between the fences, indentation of the fence removed, with its last line's end.
        marks: what comments above it say, top first.
    """

    page: Path
    line: int
    language: str
    text: str
    marks: tuple[str, ...]

    @property
    def where(self) -> str:
        """Page and line, as messages show them."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def mark(self, start: str) -> str | None:
        """What stands behind a mark's first words; None where there is no such mark."""
        return next((mark.removeprefix(start) for mark in self.marks if mark.startswith(start)), None)

    @property
    def runs(self) -> bool:
        """Whether it is a program, and not one that is only shown."""
        shown = any(self.mark(start) is not None for start in ("not run: ", "code of ", "generated", "tests"))
        return self.language in (CONSOLE, PYTHON) and not shown

    @property
    def quick(self) -> Block:
        """What runs in its place where a minute is too long."""
        instead = self.mark("nightly: ")
        return self if instead is None else replace(self, text="".join(f"{line}\n" for line in instead.split(" ;; ")))


def read_blocks(page: Path) -> list[Block]:
    """All blocks of a page, in order.

    Raises:
        ValueError: a fence that is not closed.
    """
    lines = page.read_text(encoding="utf-8").splitlines()
    blocks: list[Block] = []
    number = 0
    while number < len(lines):
        opening = _FENCE.match(lines[number])
        if opening is None:
            number += 1
            continue
        end = next((at for at in range(number + 1, len(lines)) if lines[at].strip() == "```"), None)
        if end is None:
            raise ValueError(f"{page}:{number + 1}: a block that is never closed")
        indent, language = opening.groups()
        text = "".join(f"{line.removeprefix(indent)}\n" for line in lines[number + 1 : end])
        blocks.append(Block(page=page, line=number + 1, language=language, text=text, marks=_marks(lines, number)))
        number = end + 1
    return blocks


def _marks(lines: list[str], fence: int) -> tuple[str, ...]:
    """Comments right above a fence, top first; "generated" within what a command writes."""
    regions = [region.group(1) for line in lines[:fence] if (region := _REGION.match(line)) is not None]
    found: list[str] = []
    for line in reversed(lines[:fence]):
        comment = _COMMENT.match(line)
        if comment is None:
            break
        found.insert(0, comment.group(1))
    return (*found, "generated") if regions[-1:] == ["begin"] else tuple(found)


def begins_where(page: Path) -> Path | None:
    """The page whose folder this one goes on in, if it names one."""
    named = _BEGINS.search(page.read_text(encoding="utf-8"))
    return None if named is None else (page.parent / named.group(1)).resolve()


def pages() -> list[Path]:
    """README.md and every page of the site, but for those that a command writes as a whole."""
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def commands(block: Block) -> list[str]:
    """Command lines of a console block; a line that ends in a backslash goes on in the next."""
    joined = block.text.replace("\\\n", " ")
    return [line.strip() for line in joined.splitlines() if line.strip() and not line.strip().startswith("#")]
