"""Models by name, each with a thread that detects; a file that changes is loaded anew while the old one goes on."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeAlias

from fpn.batch.worker import load_predictor
from fpn.errors import ConfigError, DataNotFoundError, FpnError
from fpn.export.exported import ExportedDetector
from fpn.inference.optimize import OptimizedDetector
from fpn.suggestions import nearest_path

logger = logging.getLogger("fpn.serving")

Loaded: TypeAlias = OptimizedDetector | ExportedDetector
# Size, time and number of the files of a model: what changes when they do.
Signature: TypeAlias = tuple[tuple[int, int, int], ...]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
# Seconds between two looks at the files.
_EVERY = 1.0


@dataclass(frozen=True)
class LoadedModel:
    """A model as it was in its file at one time.

    Attributes:
        predictor: what finds objects.
        signature: of the file.
        at: when it was loaded, UTC.
        number: 1 for the first, one more each time that the file has changed.
    """

    predictor: Loaded
    signature: Signature
    at: datetime
    number: int = 1


class ServedModel:
    """One model: what is in its file, now.

    Attributes:
        name: what requests call it.
        path: its file.
        now: what is loaded; another one, once the file has changed. Take it once for each image.
        fault: why the file as it is now could not be loaded; None: what is loaded is what is in the file.

    Args:
        load: from its path to what detects.
    """

    def __init__(self, name: str, path: Path, load: Callable[[Path], Loaded]) -> None:
        self.name, self.path, self._load = name, path, load
        self.fault: str | None = None
        signature = _signature(path)
        self._seen = signature  # what the last look saw, loaded or not
        self._tried = signature
        self.now = LoadedModel(load(path), signature or (), datetime.now(UTC))

    def look(self) -> Literal["same", "reloaded", "failed"]:
        """Load the file anew if it has changed since the last try, and rests since the last look.

        A file that can't be loaded leaves the model as it was; `fault` says why.
        """
        signature = _signature(self.path)
        if signature == self._tried or signature != self._seen:
            self._seen = signature
            return "same"
        self._tried = signature
        try:
            if signature is None:
                raise DataNotFoundError(f"{self.path}: the file is gone")
            self.now = LoadedModel(self._load(self.path), signature, datetime.now(UTC), self.now.number + 1)
        except Exception as error:  # a damaged file of a runtime's own format raises whatever that runtime likes
            told = str(error) if isinstance(error, FpnError) else f"{type(error).__name__}: {error}"
            # Where files lie is not for those who ask over HTTP.
            self.fault = told.replace(str(self.path), self.path.name)
            logger.error("model %s: %s. The model as it was goes on.", self.name, told.rstrip("."))
            return "failed"
        self.fault = None
        logger.info("model %s: loaded anew, because %s has changed", self.name, self.path)
        return "reloaded"


def _signature(path: Path) -> Signature | None:
    """None: there is no such file. OpenVINO's weights lie beside its graph."""
    files = [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]
    try:
        statuses = [each.stat() for each in files]
    except OSError:
        return None
    return tuple((status.st_mtime_ns, status.st_size, status.st_ino) for status in statuses)


class ServedModels(Mapping[str, ServedModel]):
    """All models of a server by their names; the first one is meant where none is named.

    Attributes:
        changed: called with a model's name and "reloaded" or "failed" when its file has changed.
    """

    def __init__(self, models: Sequence[ServedModel]) -> None:
        self._models = {each.name: each for each in models}
        self.changed: Callable[[str, str], None] = lambda name, outcome: None
        self._end = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="fpn-models", daemon=True)

    def __getitem__(self, name: str) -> ServedModel:
        return self._models[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)

    @property
    def first(self) -> ServedModel:
        """The one that is meant where none is named."""
        return next(iter(self._models.values()))

    def start(self) -> None:
        """Begin to look at the files."""
        self._end = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="fpn-models", daemon=True)
        self._watcher.start()

    def close(self) -> None:
        """Look no more."""
        self._end.set()
        if self._watcher.is_alive():
            self._watcher.join()

    def _watch(self) -> None:
        while not self._end.wait(_EVERY):
            for name, model in self._models.items():
                outcome = model.look()
                if outcome != "same":
                    self.changed(name, outcome)


def name_models(given: Sequence[str]) -> dict[str, Path]:
    """Names and files of models as they are given: NAME=FILE, or FILE, which is then called as its stem.

    Raises:
        ConfigError: no model, a name that can't stand in an address, or one for two files.
        DataNotFoundError: no such file.
    """
    if not given:
        raise ConfigError("no model was named: fpn serve model.safetensors, or NAME=FILE for each of several")
    named: dict[str, Path] = {}
    for each in given:
        name, equals, file = each.partition("=")
        path = Path(file) if equals and not Path(each).exists() else Path(each)
        name = name if path != Path(each) else path.stem
        if not path.is_file():
            raise DataNotFoundError(f"{path}: no such model file.{nearest_path(path)}")
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{each}: {name!r} can't be a model's name (letters, digits, ., _ and -): give one, NAME={path}"
            )
        if name in named:
            raise ConfigError(f"{named[name]} and {path} are both called {name!r}: give names, such as first={path}")
        named[name] = path
    return named


def open_models(
    given: Sequence[str],
    *,
    device: str | None = None,
    precision: Literal["float32", "bf16", "auto"] = "auto",
    max_detections: int | None = None,
) -> ServedModels:
    """Load models of any kind that `fpn.load` takes.

    Args:
        given: files, or NAME=FILE.
        device: such as cpu or cuda:1; None: the GPU where there is one.
        precision: of the network's arithmetic.
        max_detections: most detections of an image; None: the model's own setting.

    Raises:
        ConfigError, DataNotFoundError, ModelFileError, MissingExtraError: a name is wrong, or a file can't be loaded.
    """

    def load(path: Path) -> Loaded:
        return load_predictor(path, device=device, precision=precision, max_detections=max_detections)

    return ServedModels([ServedModel(name, path, load) for name, path in name_models(given).items()])
