"""Looks through a dataset that were stopped go on where they were, when the same command is given again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpn.cli.terminal import say, say_warning

if TYPE_CHECKING:
    from fpn.data.dataset import Dataset
    from fpn.detectors import Detector
    from fpn.evaluation.unfinished import Unfinished

# Seconds after which what a stopped look has found is taken away.
_OLD = 30 * 24 * 3600.0


@contextmanager
def going_on(verb: str, model: Path, detector: Detector, dataset: Dataset, **settings: Any) -> Iterator[Unfinished]:
    """Keep what is found in the user's cache folder, and say what an earlier look had found.

    Args:
        verb: whose findings they are.
        model: the file that the detector was read from.
        detector, dataset, settings: what else decides what is found.
    """
    from fpn.evaluation.unfinished import Unfinished

    folder = cache_folder() / "unfinished"
    _forget_old(folder)
    unfinished = Unfinished(folder / f"{verb}-{_digest(model, detector, dataset, settings)}")
    if unfinished.known:
        say(f"going on with {len(unfinished.known)} of {len(dataset)} images that a stopped run had done")
    try:
        with unfinished:
            yield unfinished
    except BaseException:
        if kept := unfinished.kept:
            say(f"{kept} of {len(dataset)} images are done and kept: the same command goes on from there")
        raise
    if unfinished.failed:
        say_warning(f"nothing was kept for the case that the run stops: {unfinished.failed}")


def _digest(model: Path, detector: Detector, dataset: Dataset, settings: dict[str, Any]) -> str:
    """Of all that decides what is found."""
    import torch

    from fpn.training.run_record import describe_data
    from fpn.version import __version__

    with model.open("rb") as stream:
        weights = hashlib.file_digest(stream, "sha256").hexdigest()
    facts = {
        "weights": weights,
        "recipe": detector.recipe.model_dump(mode="json"),
        "data": describe_data(dataset),
        "paths": [dataset.path(number) for number in range(len(dataset))],
        "settings": settings,
        "versions": [__version__, torch.__version__],
        "device": str(detector.device),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:24]


def _forget_old(folder: Path) -> None:
    with suppress(OSError):
        for old in folder.iterdir():
            if time.time() - old.stat().st_mtime > _OLD:
                shutil.rmtree(old, ignore_errors=True)


def cache_folder() -> Path:
    """Where the user's programs keep what they can do without."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local") / "fpn"
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/fpn"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fpn"
