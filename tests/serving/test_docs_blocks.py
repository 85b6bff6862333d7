"""The requests of docs/serving.md, as they stand there, to a server that really listens."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from docs_tools.blocks import CONSOLE, DOCS, commands, read_blocks
from fpn.serving import ServerSettings, build_app
from fpn.serving.models import ServedModel, ServedModels
from serving.conftest import listening, png

if TYPE_CHECKING:
    from docs_tools.blocks import Block

BLOCKS = [block for block in read_blocks(DOCS / "serving.md") if block.language == CONSOLE]
ASKING = [block for block in BLOCKS if "curl " in block.text]
STARTING = [block for block in BLOCKS if "fpn serve" in block.text]
# What the page shows asks this one; errors of HTTP end curl.
CURL = 'curl() { command curl -sS --fail-with-body "$@"; }\n'


def line_of(block: Block) -> str:
    return f"line {block.line}"


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What Start leaves, of images that are too large for a shell's argument."""
    folder = tmp_path_factory.mktemp("start")
    images = folder / "fpn-demo" / "scenes" / "images"
    images.mkdir(parents=True)
    for number in (1, 2):
        (images / f"00{number}.png").write_bytes(png(400, 400, number))
        assert (images / f"00{number}.png").stat().st_size > 2**18
    return folder


def shell(text: str, folder: Path) -> str:
    ended = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", text], cwd=folder, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, (text, ended.stdout[:300], ended.stderr)
    return ended.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_each_request_is_answered_by_the_server_that_the_page_has_started_last(left: Path, loaded: Any) -> None:
    first, second = STARTING
    making_a_token = commands(second)[0]
    (left / "model").touch()
    token = shell(f"{making_a_token}\ncat token.txt", left).strip()
    assert len(token) > 20
    assert (left / "token.txt").stat().st_mode & 0o077 == 0
    for start, names, given in ((first, ("best",), None), (second, ("shapes", "demo"), token)):
        until = second.line if start is first else 10**9
        models = ServedModels([ServedModel(name, left / "model", lambda _: loaded) for name in names])
        with listening(build_app(models, ServerSettings(token=given, wait_ms=0))) as address:
            asking = [block for block in ASKING if start.line < block.line < until]
            assert asking
            for block in asking:
                assert "http://127.0.0.1:8000/" in block.text, line_of(block)
                told = shell(CURL + block.text.replace("http://127.0.0.1:8000/", address), left)
                assert '"error"' not in told, line_of(block)


def test_the_page_uses_what_start_leaves_and_one_port_only() -> None:
    start = (DOCS / "index.md").read_text(encoding="utf-8")
    for block in BLOCKS:
        for word in block.text.replace('"', " ").replace("@", " ").replace("=", " ").split():
            if word.startswith(("fpn-demo/", "runs/")):
                assert Path(word).parts[0] in start, line_of(block)
            assert "127.0.0.1:" not in word or "127.0.0.1:8000" in word, line_of(block)
