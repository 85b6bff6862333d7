"""`fpn completion`: the shell itself finishes words with it."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from fpn.cli import main

# What bash does when Tab is pressed after these words.
ASK = """
source /dev/stdin
COMP_WORDS=({words}) COMP_CWORD={last}
_fpn
echo "${{COMPREPLY[@]}}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_finishes_verbs_options_and_their_values(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out

    def finish(*words: str) -> list[str]:
        asked = ASK.format(words=" ".join(f"'{word}'" for word in words), last=len(words) - 1)
        done = subprocess.run(["bash", "-c", asked], input=script, capture_output=True, text=True, check=True)
        return sorted(done.stdout.split())

    assert finish("fpn", "ex") == ["explain", "export"]
    assert finish("fpn", "batch", "--shard") == ["--shard-size"]
    assert finish("fpn", "export", "--format", "o") == ["onnx", "openvino"]
