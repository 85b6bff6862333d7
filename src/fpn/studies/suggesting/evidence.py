"""What a detector says of each image, kept in a draft on disk so that a killed run goes on where it was."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fpn.errors import OutputError
from fpn.shapes import Size
from fpn.structures import Detections


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a detector says of one image, or why it could not be read.

    Attributes:
        found: boxes in pixels of the upright original; none if it could not be read.
        size: of the upright original; (0, 0) if it could not be read.
        descriptor: (D,) float16, what the image and its objects look like to the network.
        problem: why it could not be read; empty if it could.
    """

    found: Detections
    size: Size
    descriptor: np.ndarray
    problem: str = ""

    @classmethod
    def unreadable(cls, problem: str) -> Evidence:
        """Of an image that could not be read."""
        nothing = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
        return cls(nothing, Size(0, 0), np.zeros(0, dtype=np.float16), problem)

    def to_json(self) -> dict[str, Any]:
        """As a line of the draft; every number comes back as it was."""
        found = self.found
        return {
            "size": list(self.size),
            "boxes": found.boxes.tolist(),
            "scores": found.scores.tolist(),
            "labels": found.labels.tolist(),
            "descriptor": base64.b64encode(self.descriptor.tobytes()).decode(),
            "problem": self.problem,
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Evidence:
        """What `to_json` wrote."""
        boxes = torch.tensor(record["boxes"], dtype=torch.float32).reshape(-1, 4)
        scores, labels = torch.tensor(record["scores"]), torch.tensor(record["labels"], dtype=torch.int64)
        descriptor = np.frombuffer(base64.b64decode(record["descriptor"]), dtype=np.float16)
        height, width = record["size"]
        return cls(Detections(boxes, scores, labels), Size(height, width), descriptor, record["problem"])


@dataclass
class Draft:
    """A file with a line for each image that was looked at, in order; or nothing but memory.

    Attributes:
        path: of the file; None: nothing is kept.
        key: digest of all that decides what the lines say. The lines of a file with another one are not used.
        window: lines that are written together. Only whole windows count, so that the images which go through the
            network together are the same ones with and without a break.
        lines: what is known.
    """

    path: Path | None
    key: str
    window: int
    lines: list[Evidence] = field(default_factory=list)

    def open(self) -> None:
        """Read what an earlier run left, and drop what it left unfinished.

        Raises:
            OutputError: the file can't be written.
        """
        if self.path is None:
            return
        self.lines = self._read()
        self._write("w", [{"draft": "fpn suggest", "key": self.key}, *(line.to_json() for line in self.lines)])

    def add(self, lines: Sequence[Evidence]) -> None:
        """Keep a window's lines.

        Raises:
            OutputError: the file can't be written.
        """
        self.lines.extend(lines)
        if self.path is not None:
            self._write("a", [line.to_json() for line in lines])

    def _read(self) -> list[Evidence]:
        assert self.path is not None
        try:
            header, *rest = self.path.read_text(encoding="utf-8").splitlines()
            if json.loads(header)["key"] != self.key:
                return []
        except (OSError, ValueError, KeyError, TypeError):
            return []
        lines = []
        for text in rest:
            try:
                lines.append(Evidence.from_json(json.loads(text)))
            except (ValueError, KeyError, TypeError):
                break  # a kill came between
        return lines[: len(lines) // self.window * self.window]

    def _write(self, mode: str, records: Sequence[dict[str, Any]]) -> None:
        assert self.path is not None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open(mode, encoding="utf-8") as stream:
                stream.writelines(json.dumps(record) + "\n" for record in records)
        except OSError as error:
            raise OutputError(f"{self.path}: can't write there ({error.strerror}). Choose another --output.") from error


def is_draft(path: Path) -> bool:
    """Whether a file is a draft that an earlier run left."""
    try:
        with path.open(encoding="utf-8") as stream:
            return bool(json.loads(stream.readline())["draft"] == "fpn suggest")
    except (OSError, ValueError, KeyError, TypeError):
        return False
