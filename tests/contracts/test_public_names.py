"""What users may rely on is written down in CHANGELOG.md, so that no name comes or goes without a line there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import fpn

ROOT = Path(__file__).resolve().parents[2]
PUBLIC = ("fpn", "fpn.data", "fpn.detectors", "fpn.evaluation", "fpn.interop", "fpn.serving", "fpn.structures")


def declared(package: str) -> list[str]:
    """The package's `__all__`."""
    module = ast.parse((ROOT / "src" / Path(*package.split(".")) / "__init__.py").read_text(encoding="utf-8"))
    [names] = [
        ast.literal_eval(each.value)
        for each in module.body
        if isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == "__all__"
    ]
    return list(names)


def told() -> dict[str, list[str]]:
    """Names by package, as CHANGELOG.md has them."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    listed = text.split("## Public names")[1].partition("\n#")[0]
    items = re.findall(r"^- `([\w.]+)`:((?: +`\w+`|\n +`\w+`)+)", listed, re.MULTILINE)
    return {package: re.findall(r"`(\w+)`", names) for package, names in items}


def test_the_changelog_has_a_list_for_each_public_package() -> None:
    assert tuple(told()) == PUBLIC


@pytest.mark.parametrize("package", PUBLIC)
def test_public_names_are_those_of_the_changelog(package: str) -> None:
    now, before = set(declared(package)), set(told()[package])
    remedy = "say so in CHANGELOG.md: a line of what changed, and the list below `## Public names`"
    assert now == before, f"{package}: came {sorted(now - before)}, went {sorted(before - now)}; {remedy}"
    assert len(declared(package)) == len(now)


def test_each_public_name_of_the_library_has_a_place_it_comes_from() -> None:
    assert {*fpn._PUBLIC, "__version__"} == set(fpn.__all__)
    assert all(name in dir(fpn) for name in fpn.__all__)
