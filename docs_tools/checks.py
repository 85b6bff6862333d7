"""What can be wrong with a page without running it: links, verbs, options, names of settings."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from docs_tools.blocks import CONSOLE, ROOT, commands, read_blocks
from fpn.cli.help import read_pages

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+?)\s*$", re.MULTILINE)
_FENCED = re.compile(r"^( *)```.*?^ *```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_OPTION = re.compile(r"--[a-z][a-z0-9-]*")
_SCRIPTS = ROOT / "benchmarks"
_ASSIGNED = re.compile(r"^([a-z_]+(?:\.[a-z_]+)+)=")
# Options of other programs that pages name.
FOREIGN = frozenset(
    {
        *("--all-extras", "--extra", "--resolution", "--fast", "--strict", "--frozen"),
        *("--standalone", "--nproc-per-node", "--nnodes", "--rdzv-backend", "--rdzv-endpoint", "--rdzv-id"),
        *("--max-restarts", "--head", "--address"),
    }
)


@cache
def options() -> dict[str, frozenset[str]]:
    """Verb -> the options that it has."""
    return {
        verb: frozenset(
            option
            for panel in page["panels"]
            for row in panel["rows"]
            for name in row["names"]
            for option in _OPTION.findall(name)
        )
        | {"--help", "--version"}
        for verb, page in read_pages().items()
    }


@cache
def settings() -> frozenset[str]:
    """Every setting of every dialect, by its path, and the sections that hold them."""
    from fpn.detectors.presets import DIALECTS_OF
    from fpn.sections import options_of

    paths = {option.path for dialects in DIALECTS_OF.values() for option in options_of(type(dialects["paper"]))}
    return frozenset(paths)


def wrong_links(page: Path) -> Iterator[str]:
    """Relative links whose file or heading is not there."""
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    for link in _LINK.findall(text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            yield f"{page.relative_to(ROOT)}: ({link}) leads nowhere"
        elif anchor and target.suffix == ".md" and anchor not in anchors(target):
            yield f"{page.relative_to(ROOT)}: ({link}): no such heading"


def anchors(page: Path) -> set[str]:
    """What headings of a page are called in links."""
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    marked = set(re.findall(r'id="([^"]+)"', text))
    return marked | {_slug(heading) for heading in _HEADING.findall(text)}


def _slug(heading: str) -> str:
    plain = re.sub(r"[^\w\s-]", "", heading.lower()).strip()
    return re.sub(r"[-\s]+", "-", plain)


def wrong_words(page: Path) -> Iterator[str]:
    """Verbs, options and settings that `fpn` does not have, in console blocks and between backticks."""
    where = str(page.relative_to(ROOT))
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    lines = [line for block in read_blocks(page) if block.language == CONSOLE for line in commands(block)]
    inline = _INLINE.findall(text)
    for line in [*lines, *(each for each in inline if each.startswith("fpn "))]:
        yield from (f"{where}: {line}: {wrong}" for wrong in wrong_command(line))
    known = frozenset().union(*options().values(), FOREIGN, _benchmarks())
    for span in inline:
        for option in _OPTION.findall(span):
            if option not in known and span.startswith("-"):
                yield f"{where}: `{span}`: no command has {option}"
    for block in read_blocks(page):
        if block.language == "toml" and block.mark("not run: ") is None:
            yield from (f"{block.where}: {wrong}" for wrong in wrong_table(block.text))


@cache
def _benchmarks() -> frozenset[str]:
    """Options of the scripts in benchmarks/, which their page names."""
    return frozenset(
        option for script in _SCRIPTS.rglob("*.py") for option in _OPTION.findall(script.read_text(encoding="utf-8"))
    )


def wrong_command(line: str) -> Iterator[str]:
    """What a command line has that its verb has not."""
    # Lines of other programs need not be whole, such as text in quotes that goes on in the next.
    words = shlex.split(line, comments=True) if "fpn " in line else []
    # What is before fpn, such as torchrun's own, is another program's.
    if "fpn" not in words:
        return
    words = words[words.index("fpn") + 1 :]
    verb = words[0] if words else ""
    if verb.startswith("-") or not verb:
        return
    if verb not in options():
        yield f"there is no verb {verb}"
        return
    for word in words[1:]:
        option = _OPTION.match(word)
        if option is not None and word.startswith("--") and option.group() not in options()[verb]:
            yield f"{verb} has no {option.group()}"
        assigned = _ASSIGNED.match(word)
        if assigned is not None and assigned.group(1) not in settings():
            yield f"there is no setting {assigned.group(1)}"


def wrong_table(text: str) -> Iterator[str]:
    """Names of a settings file that `fpn train --config` would not take."""
    from fpn.cli.options import GROUPS

    flat = {name for kind in GROUPS.values() for name in kind.model_fields} | {"data"}
    for name, value in tomllib.loads(text).items():
        if isinstance(value, dict):
            yield from (f"no setting {name}.{inner}" for inner in value if f"{name}.{inner}" not in settings())
        elif name.replace("-", "_") not in flat:
            yield f"no setting {name}"
