"""Runs the command line in this process, as a shell would."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from fpn.cli import main


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit status, and what it wrote where."""

    status: int
    out: str
    err: str


class Shell:
    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def __call__(self, *words: object) -> Ended:
        self._capture.readouterr()
        status = main([str(word) for word in words])
        out, err = self._capture.readouterr()
        assert "Traceback" not in out + err
        return Ended(status, out, err)

    def fails(self, *words: object) -> str:
        """Standard error of a command that has to fail with one message and status 1."""
        ended = self(*words)
        assert ended.status == 1, ended
        assert ended.err.startswith("error: "), ended.err
        return ended.err
