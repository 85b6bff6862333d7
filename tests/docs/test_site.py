from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

from docs_tools.blocks import DOCS, ROOT

SETTINGS = ROOT / "zensical.toml"
# What a page may name on the net: links that a reader may follow, and names of XML's languages.
LOADED = re.compile(
    r"<(?:script|img|iframe|source)[^>]* src=\"(https?:[^\"]+)|<link[^>]*stylesheet[^>]*href=\"(https?:[^\"]+)"
)


def in_navigation(entries: list[object]) -> list[str]:
    """Pages that the navigation leads to."""
    found: list[str] = []
    for entry in entries:
        values = entry.values() if isinstance(entry, dict) else [entry]
        for value in values:
            found += in_navigation(value) if isinstance(value, list) else [str(value)]
    return found


def test_the_navigation_leads_to_every_page_once() -> None:
    named = in_navigation(tomllib.loads(SETTINGS.read_text(encoding="utf-8"))["project"]["nav"])
    assert sorted(named) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


@pytest.mark.skipif(find_spec("zensical") is None, reason="zensical, which builds the site, is not installed")
def test_the_site_builds_without_a_warning_and_takes_nothing_from_the_net(tmp_path: Path) -> None:
    shutil.copytree(DOCS, tmp_path / "docs")
    shutil.copy(SETTINGS, tmp_path)
    shutil.copytree(ROOT / "docs_tools" / "theme", tmp_path / "docs_tools" / "theme")
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    pages = list((tmp_path / "build" / "site").rglob("*.html"))
    assert len(pages) > len(list(DOCS.rglob("*.md")))
    taken = {
        address for page in pages for each in LOADED.findall(page.read_text("utf-8")) for address in each if address
    }
    assert taken == set()
    rooted = [page for page in pages if re.search(r"(?:href|src)=\"/", page.read_text("utf-8"))]
    assert rooted == []  # it may lie in any folder of a server
