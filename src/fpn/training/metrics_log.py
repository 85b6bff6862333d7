"""`metrics.jsonl`: one JSON object a log interval, one an epoch."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fpn.errors import OutputError


class MetricsLog:
    """Appends lines to a file; remembers how long it was at a checkpoint, so that a resumed run repeats no line.

    Args:
        path: the file, or None to write nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def write(self, line: Mapping[str, Any]) -> None:
        """Append one line, at once, so that `tail -f` and a crash both see it.

        Raises:
            OutputError: no space or no permission.
        """
        if self._path is None:
            return
        try:
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")
        except OSError as error:
            raise OutputError(
                f"{self._path}: writing failed ({error.strerror}). The last checkpoint is intact: "
                f"free some space, then go on with --resume {self._path.parent}."
            ) from error

    def length(self) -> int:
        """Bytes written so far, all of them on the disk."""
        if self._path is None or not self._path.exists():
            return 0
        with self._path.open("rb+") as stream:
            os.fsync(stream.fileno())
        return self._path.stat().st_size

    def cut(self, length: int) -> None:
        """Drop what was written after the checkpoint that a run goes on from."""
        if self._path is not None and self._path.exists():
            os.truncate(self._path, min(length, self._path.stat().st_size))
