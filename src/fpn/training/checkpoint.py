"""What a run leaves on disk so that nothing is lost: checkpoints with checksums, and the record of what it trains.

    run/
      run.json                 settings, recipe and data of the run, written before work starts
      metrics.jsonl            one line a log interval, one an epoch
      last/step-00000400/      everything needed to go on bit by bit; the newest two are kept
      best.safetensors         the model to use

A checkpoint is two data files and their `checksums.txt` (as `sha256sum -c` reads it), made in a folder with another
name and renamed when all of it is on the disk. No pickle is written or read.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fpn.errors import ModelFileError, OutputError

LAST = "last"
TENSORS, PROGRESS, CHECKSUMS = "state.safetensors", "progress.json", "checksums.txt"
KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """A run's state after some step.

    Attributes:
        tensors: weights, averages, optimizer state and running means by name.
        progress: numbers and names, JSON-able; `step` is always there.
    """

    tensors: Mapping[str, Tensor]
    progress: Mapping[str, Any]


def write_checkpoint(run: Path, checkpoint: Checkpoint) -> Path:
    """Write to `run/last/step-N`, whole or not at all, then let go of all but the newest two.

    Raises:
        OutputError: no permission or no space; earlier checkpoints stay as they are.
    """
    last = run / LAST
    target = last / f"step-{checkpoint.progress['step']:08d}"
    unfinished = last / f".writing-{target.name}"
    try:
        _clear(last)
        unfinished.mkdir(parents=True)
        _write_files(unfinished, checkpoint)
        shutil.rmtree(target, ignore_errors=True)  # of the same step: equal, or damaged and therefore not resumed
        unfinished.rename(target)
        _flush(last)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise OutputError(
            f"{target}: writing the checkpoint failed ({error}). The checkpoint before it is intact: free some space, "
            f"then go on with --resume {run}."
        ) from error
    checkpoints = _checkpoints(last)
    # Newer ones are damaged, else the run would have gone on from them; they must not push whole ones out.
    for other in (*_newer(checkpoints, target), *checkpoints[checkpoints.index(target) + KEPT :]):
        shutil.rmtree(other, ignore_errors=True)
    return target


def read_checkpoint(run: Path) -> Checkpoint | None:
    """The newest checkpoint whose checksums are right, or None when the run never wrote one.

    Raises:
        ModelFileError: there are checkpoints, but all are damaged.
    """
    candidates = _checkpoints(run / LAST)
    for folder in candidates:
        if _is_whole(folder):
            progress = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
            return Checkpoint(load_file(folder / TENSORS), progress)
    if candidates:
        raise ModelFileError(f"{run / LAST}: all {len(candidates)} checkpoints are damaged (checksums differ)")
    return None


def has_checkpoint(run: Path) -> bool:
    """Whether a run was ever saved; if not, it begins again from its first weights."""
    return bool(_checkpoints(run / LAST))


def _write_files(folder: Path, checkpoint: Checkpoint) -> None:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    save_file(tensors, folder / TENSORS)
    (folder / PROGRESS).write_text(json.dumps(checkpoint.progress), encoding="utf-8")
    lines = [_checksum(folder / name) for name in (TENSORS, PROGRESS)]
    (folder / CHECKSUMS).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    for name in (TENSORS, PROGRESS, CHECKSUMS):
        _flush(folder / name)
    _flush(folder)


def _is_whole(folder: Path) -> bool:
    try:
        lines = (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines()
        return lines == [_checksum(folder / name) for name in (TENSORS, PROGRESS)]
    except (OSError, UnicodeDecodeError):
        return False


def _checkpoints(last: Path) -> list[Path]:
    """Newest first."""
    return sorted(last.glob("step-*"), reverse=True)


def _newer(checkpoints: Sequence[Path], than: Path) -> Sequence[Path]:
    return checkpoints[: checkpoints.index(than)]


def _clear(last: Path) -> None:
    for left_over in last.glob(".writing-*"):
        shutil.rmtree(left_over, ignore_errors=True)


def _checksum(path: Path) -> str:
    with path.open("rb") as stream:
        return f"{hashlib.file_digest(stream, 'sha256').hexdigest()}  {path.name}"


def _flush(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk: a rename alone survives a crash too early."""
    if path.is_dir() and os.name == "nt":
        return  # Windows can't open folders; it journals names itself
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
