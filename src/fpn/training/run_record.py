"""What a run is, written down: `run.json`, and what may not change when it goes on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fpn.data.dataset import Dataset
from fpn.detectors.detector import IMPORTED, Detector
from fpn.errors import ConfigError, DataNotFoundError, ModelFileError, OutputError
from fpn.files import taken, write_text
from fpn.training.config import FREE_ON_RESUME
from fpn.training.precision import choose_precision
from fpn.training.run import Run
from fpn.version import __version__

# Letters of a digest that are kept: 64 bits.
_DIGEST = 16


def describe(run: Run, dataset: Dataset, validation: Dataset | None, notes: Mapping[str, Any] | None) -> dict[str, Any]:
    """What `run.json` says: all that decides the result, JSON-able."""
    return {
        "fpn": __version__,
        "config": run.config.model_dump(mode="json"),
        "recipe": run.detector.recipe.to_json(),
        "data": {**describe_data(dataset), "validation": None if validation is None else describe_data(validation)},
        "outside": dict(run.outside),
        "environment": {
            "device": run.accelerator.device.type,
            "processes": run.accelerator.num_processes,
            "precision": choose_precision(run.config, run.accelerator.device),
        },
        "job": job(),
        "notes": dict(notes or {}),
        **_origin(run.detector),
    }


def _origin(detector: Detector) -> dict[str, Any]:
    """Of weights that were another toolkit's once: which, and what was proven of them then."""
    told = detector.training_record.get(IMPORTED)
    return {} if told is None else {IMPORTED: told}


def describe_data(dataset: Dataset) -> dict[str, Any]:
    """What a dataset is, in words and digests: whether two teach the same, and what differs if not."""
    sizes = "\n".join(str(_file_size(dataset.path(index))) for index in range(len(dataset)))
    return {
        "name": dataset.name,
        "images": len(dataset),
        "classes": list(dataset.classes),
        "category_ids": list(dataset.classes.ids),
        "labels": fingerprint(dataset)[:_DIGEST],
        "file_sizes": hashlib.sha256(sizes.encode()).hexdigest()[:_DIGEST],
    }


def learned_from(record: Mapping[str, Any], dataset: Dataset) -> bool:
    """Whether a training learned from all of these very images and labels; `record`: its model's `training_record`."""
    learned = record.get("data", {})
    return bool(learned.get("images") == len(dataset) and learned.get("labels") == fingerprint(dataset)[:_DIGEST])


@dataclass(frozen=True)
class LearnedImages:
    """What a model learned from of the images that it is measured on.

    Attributes:
        images: how many it learned from, at least 1.
        of: how many it is measured on.
        remedy: a sentence on where there are others.
    """

    images: int
    of: int
    remedy: str

    def __str__(self) -> str:
        """To stand after the model's name."""
        which = "these very images" if self.images == self.of else f"{self.images} of these {self.of} images"
        return f"was trained on {which}: it knows them by heart, and on others it is worse. {self.remedy}"


def fingerprint(dataset: Dataset) -> str:
    """A digest of names and objects, in order: whether two datasets teach the same. Pixels are not read."""
    digest = hashlib.sha256()
    for index in range(len(dataset)):
        targets = dataset.targets(index)
        name = dataset.path(index).removeprefix(str(dataset.root))  # the same when the folder was moved
        digest.update(f"{name}\n{dataset.image_id(index)}\n".encode("utf-8", "surrogateescape"))
        for tensor in (targets.boxes, targets.labels, targets.ignore):
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _file_size(path: str) -> int | None:
    try:
        return Path(path).stat().st_size
    except OSError:
        return None  # drawn, or missing, which the reader will say


# Of a finished run: path -> why, of images that were left out.
UNREADABLE = "unreadable"
BEST, METRICS, RUN = "best.safetensors", "metrics.jsonl", "run.json"


def begun_before_restart(output: Path | None) -> Path | None:
    """The run to go on with, when torchrun started these processes again after some of them failed; else None.

    The command is then the same one that began the run, and has no --resume. A machine whose processes went on need not
    count this as a restart; it knows the run by the name of the job that began it (--rdzv-id).
    """
    if output is None or not (output / RUN).exists():
        return None
    restarted = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    same_job = job() is not None and read_record(output).get("job") == job()
    return output if restarted or same_job else None


def job() -> str | None:
    """What torchrun calls the job that this process is part of, if it has a name of its own."""
    name = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    return None if name == "none" else name


def claim_output(run: Path, record: Mapping[str, Any]) -> None:
    """Make the folder of a new run and write `run.json`, so that a wrong --output is noticed before work starts.

    Raises:
        OutputError: the folder holds something already, or can't be written to.
    """
    refuse_taken(run)
    write_record(run, record)


def refuse_taken(run: Path) -> None:
    """Stop if a new run's folder holds something.

    Raises:
        OutputError: it does, or can't be read.
    """
    try:
        filled = run.exists() and (not run.is_dir() or any(not _is_left_over(path) for path in run.iterdir()))
    except OSError as error:
        raise OutputError(f"{run}: can't be read ({error.strerror}). Choose another --output.") from error
    if filled:
        going_on = f"go on with the run in it (--resume {run})" if (run / RUN).exists() else ""
        raise taken(run, "folder", otherwise=going_on)


def write_record(run: Path, record: Mapping[str, Any]) -> None:
    """Write `run.json`.

    Raises:
        OutputError: it can't be written.
    """
    write_text(run / RUN, json.dumps(record, indent=1) + "\n")


def clear_left_overs(run: Path) -> None:
    """Remove files that a killed process was still writing under another name."""
    for path in run.iterdir():
        if _is_left_over(path):
            path.unlink(missing_ok=True)


def read_record(run: str | os.PathLike[str]) -> dict[str, Any]:
    """A run's `run.json`: `fpn`, `config`, `recipe`, `data` and `notes`.

    Raises:
        DataNotFoundError: the folder holds no run.
        ModelFileError: the record is damaged.
    """
    path = Path(run) / RUN
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataNotFoundError(f"{path}: no run to resume there ({error.strerror})") from error
    except ValueError as error:
        raise ModelFileError(f"{path}: damaged ({error})") from error
    return record


def list_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Every key in which two records differ, with both values, but for `notes`, the version, and what is free."""
    parts = ("config", "recipe", "data", "outside", "environment")
    old = _flat({part: before.get(part, {}) for part in parts})
    new = _flat(json.loads(json.dumps({part: now[part] for part in parts})))
    free = {f"config.{name}" for name in FREE_ON_RESUME}
    keys = sorted((old.keys() | new.keys()) - free)
    return [f"{key} was {old.get(key)!r}, is {new.get(key)!r}" for key in keys if old.get(key) != new.get(key)]


def refuse_changes(run: Path, changes: Sequence[str]) -> None:
    """Stop if a run would not go on as it was.

    Raises:
        ConfigError: names every setting that differs, with both values.
    """
    if changes:
        raise ConfigError(
            f"{run}: can't be resumed as it was: {'; '.join(changes)}. Put them back, or allow the change "
            "(--allow-changes); the result is then not the one of an undisturbed run."
        )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested names joined by dots."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        inner = isinstance(value, Mapping)
        flat |= _flat(value, f"{prefix}{name}.") if inner else {f"{prefix}{name}": value}
    return flat


def _is_left_over(path: Path) -> bool:
    """Names of `atomic_path`'s temporary files for what a run writes."""
    return path.name.startswith((f".{Path(RUN).stem}-", f".{Path(BEST).stem}-"))
