"""What a look through a dataset has found so far, kept on disk, so that after a stop the same look goes on from there.

Findings lie in numbered safetensors files, each written whole or not at all. Nothing is written before some seconds
have passed, so that a short look leaves no trace; a finished one removes its files.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fpn.errors import OutputError
from fpn.files import atomic_path
from fpn.shapes import Size
from fpn.structures import Detections, Masks

# Seconds of work that a kill can cost.
_OFTEN = 20.0
_NOTES = "notes"
_TENSORS = ("boxes", "scores", "labels", "keypoints", "levels", "origins")


@dataclass(frozen=True)
class KeptImage:
    """What was found in one image: tensors by name, and whatever JSON can say beside them."""

    tensors: Mapping[str, Tensor]
    notes: Any = None


@dataclass
class Unfinished:
    """Findings by image number. As a context it removes its files at the end, and keeps all findings on an exception.

    Attributes:
        folder: of this look alone: its name has to say what is looked at with what, as its findings are believed.
        often: seconds between writing.
        known: findings of an earlier look that did not come to its end.
        failed: why they could not be kept; empty: they could, or there was no need to.
    """

    folder: Path
    often: float = _OFTEN
    known: dict[int, KeptImage] = field(default_factory=dict)
    failed: str = ""
    _pending: dict[int, Callable[[int], KeptImage]] = field(default_factory=dict)
    _kept: set[int] = field(default_factory=set)
    _began: float = field(default_factory=time.monotonic)
    _written: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        for path in sorted(self.folder.glob("*.safetensors")):
            self.known.update(_read(path))
        self._kept.update(self.known)

    def __enter__(self) -> Unfinished:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            shutil.rmtree(self.folder, ignore_errors=True)
        elif time.monotonic() - self._began >= self.often:  # what is shorter is not worth it
            self._write()

    def keep(self, numbers: Iterable[int], pack: Callable[[int], KeptImage]) -> None:
        """Take what was found in some images; what can't be written is given up, and `failed` says why.

        Args:
            numbers: of the images.
            pack: gives what is kept of one; called when it is written, which for a short look is never.
        """
        self._pending.update(dict.fromkeys(numbers, pack))
        if time.monotonic() - self._written >= self.often:
            self._write()

    @property
    def kept(self) -> int:
        """Images whose findings are on disk."""
        return len(self._kept)

    def _write(self) -> None:
        self._written = time.monotonic()
        if self.failed or not self._pending:
            return
        number = len(list(self.folder.glob("*.safetensors")))
        findings = {image: pack(image) for image, pack in self._pending.items()}
        tensors = {
            f"{image}.{name}": tensor.detach().cpu().contiguous()
            for image, finding in findings.items()
            for name, tensor in finding.tensors.items()
        }
        notes = json.dumps({str(image): finding.notes for image, finding in findings.items()})
        try:
            with atomic_path(self.folder / f"{number:06d}.safetensors") as path:
                save_file(tensors, path, metadata={_NOTES: notes})
            self._kept.update(findings)
        except OutputError as error:
            self.failed = str(error)
        self._pending.clear()


def _read(path: Path) -> dict[int, KeptImage]:
    """The findings of a file; none, if it is damaged: they are found again."""
    try:
        with safe_open(path, framework="pt") as opened:
            notes = json.loads((opened.metadata() or {})[_NOTES])
            tensors: dict[int, dict[str, Tensor]] = {int(image): {} for image in notes}
            for key in opened.keys():  # noqa: SIM118  # it is no mapping
                image, _, name = key.partition(".")
                tensors[int(image)][name] = opened.get_tensor(key)
    except (SafetensorError, OSError, KeyError, ValueError):
        return {}
    return {image: KeptImage(own, notes[str(image)]) for image, own in tensors.items()}


def keep_detections(found: Detections, prefix: str = "") -> KeptImage:
    """Detections as a finding, whose tensors' names begin with `prefix`."""
    given = {name: getattr(found, name) for name in _TENSORS}
    tensors = {prefix + name: tensor for name, tensor in given.items() if tensor is not None}
    if found.masks is None:
        return KeptImage(tensors)
    return KeptImage(tensors, {"size": list(found.masks.size), "masks": found.masks.to_coco(polygons=False)})


def kept_detections(finding: KeptImage, prefix: str = "") -> Detections:
    """The same detections, to the bit."""
    given = {name: finding.tensors.get(prefix + name) for name in _TENSORS}
    masks = None
    if finding.notes:
        masks = Masks.from_coco(finding.notes["masks"], Size(*finding.notes["size"]))
    return Detections(**given, masks=masks)  # type: ignore[arg-type]  # the first three are always there
