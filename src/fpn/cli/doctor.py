"""`fpn doctor`: what this machine has, and what is wrong with it, for a report of trouble."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from fpn.runtime.health import Fact


def run(*, as_json: Annotated[bool, Parameter(name="--json", negative=())] = False) -> None:
    """Report versions, devices, threads, memory, folders and extras, and what is wrong with them.

    Paste its output into a bug report. The command succeeds even if something is broken. The home folder and secrets
    are left out.

    Args:
        as_json: Write JSON in place of text.
    """
    import json
    from pathlib import Path

    from fpn.cli.going_on import cache_folder
    from fpn.runtime import health

    facts = health.examine({"results": Path.cwd(), "unfinished work": cache_folder()})
    # Not wrapped at the terminal's width: it is to be copied.
    print(json.dumps(health.as_json(facts), indent=1) if as_json else "\n".join(_lines(facts)))


def _lines(facts: Sequence[Fact]) -> Iterator[str]:
    for group in dict.fromkeys(fact.group for fact in facts):
        found = [fact for fact in facts if fact.group == group]
        width = max(len(fact.name) for fact in found)
        yield group
        yield from (f"  {fact.name:{width}}  {fact.value}" for fact in found)
    troubles = [f"  {fact.name}: {fact.trouble}" for fact in facts if fact.trouble]
    yield from ("", "what is wrong", *troubles) if troubles else ("", "Nothing is wrong.")
