"""A model is one `.safetensors` file: weights, and the full recipe as JSON in its metadata. No pickle is executed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fpn.detectors.builder import build_detector
from fpn.detectors.detector import Detector
from fpn.detectors.recipe import Recipe, parameter_limit, read_recipe
from fpn.errors import ConfigError, DataNotFoundError, ModelFileError, OutputError
from fpn.files import atomic_path
from fpn.structures import Thresholds
from fpn.structures.thresholds import read_thresholds
from fpn.suggestions import nearest_path
from fpn.version import __version__

# Raised when a file of this version could not be read by an older `fpn`.
FORMAT = 1
# Under it, a file of a backbone alone says what it is.
BACKBONE_KEY = "fpn-backbone"

# Building makes more than ends in the file: layers are made up to three times to try them, stages that are not used are
# cut off. Sixteen times, and 25 million (100 MB) for small files, is ample for every detector that was tried.
_ROOM, _MORE_ROOM = 16, 25_000_000

T = TypeVar("T")


def save(detector: Detector, path: str | os.PathLike[str]) -> Path:
    """Write a detector to one `.safetensors` file, atomically.

    Raises:
        OutputError: the file can't be written.
        ConfigError: the detector is an optimized copy.
    """
    path = Path(path)
    if not detector.saveable:
        raise ConfigError(f"{path}: an optimized detector can't be saved: its norms are gone. Save the original.")
    header = {
        "format": FORMAT,
        "fpn": __version__,
        "recipe": detector.recipe.to_json(),
        "training": detector.training_record,
    }
    if detector.thresholds is not None:
        header["thresholds"] = detector.thresholds.to_json()
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in detector.state_dict().items()}
    _write(path, state, {"fpn": json.dumps(header)})
    return path


def save_thresholds(model: str | os.PathLike[str], thresholds: Thresholds, output: str | os.PathLike[str]) -> Path:
    """Write a model file with other thresholds: weights, recipe and record are what they were, to the bit.

    Args:
        model: a file that `save` wrote.
        thresholds: as many as it has classes.
        output: where to; `model` itself: it is replaced when the new file is complete.

    Raises:
        DataNotFoundError, ModelFileError: no such model.
        OutputError: the file can't be written.
    """
    # Where the name is a link, what it leads to is replaced, not the link.
    path = Path(os.path.realpath(output))
    metadata, state = _open(Path(model), lambda file: (dict(file.metadata() or {}), _tensors(file)))
    header = _header(metadata, Path(model))
    header["thresholds"] = thresholds.to_json()
    _write(path, state, {**metadata, "fpn": json.dumps(header)})
    return Path(output)


def _write(path: Path, state: dict[str, Tensor], metadata: dict[str, str]) -> None:
    with atomic_path(path) as temporary:
        try:
            save_file(state, temporary, metadata=metadata)
        except SafetensorError as error:
            raise OutputError(f"{path}: writing failed ({error}). Free some space or choose another place.") from error


def load(
    path: str | os.PathLike[str], *, device: str | torch.device | None = None, max_detections: int | None = None
) -> Detector:
    """Read a detector that `save` wrote, ready to predict.

    Args:
        path: a `.safetensors` model file.
        device: where to put it; None: the GPU where there is one, else the CPU.
        max_detections: the most detections an image; None: the model's own setting.

    Raises:
        DataNotFoundError: no such file.
        ModelFileError: damaged, a pickle, another program's weights, of a newer format, or its weights are of another
            type or not finite.
        ConfigError: a limit below 1, or this kind of detector has none.
    """
    path = Path(path)
    header, state = _read(path)
    room = _ROOM * sum(tensor.numel() for tensor in state.values()) + _MORE_ROOM
    detector = build_from_header(header, where=str(path), room=room, max_detections=max_detections)
    _refuse_numbers(state, detector, path)
    try:
        detector.load_state_dict(state)
    except RuntimeError as error:
        raise ModelFileError(f"{path}: weights do not fit their own recipe: {_shortened(error)}") from error
    detector.training_record = header.get("training", {})
    detector.thresholds = _thresholds(header, detector, path)
    return detector.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()


def read_header(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A model file's metadata alone: `format`, `fpn`, `recipe`, `training`, and `thresholds` if they were chosen."""
    return _open(Path(path), lambda file: _header(file.metadata(), Path(path)))


def recipe_of(header: Mapping[str, Any], where: str) -> Recipe:
    """What a model is made of, from its metadata alone.

    Raises:
        ModelFileError: its recipe can't be understood.
    """
    try:
        return read_recipe(header["recipe"])
    except (ConfigError, LookupError, TypeError) as error:
        raise ModelFileError(f"{where}: its recipe can't be understood ({_shortened(error)})") from error


def build_from_header(
    header: Mapping[str, Any], *, where: str, room: int | None = None, max_detections: int | None = None
) -> Detector:
    """A detector with fresh weights from a model file's metadata.

    Args:
        header: as `read_header` gives it.
        where: what messages call the file.
        room: how many weights and buffers may be made on the way; None: any number.
        max_detections: the most detections an image; None: the recipe's own setting.

    Raises:
        ModelFileError: it can't be understood, or not be built.
        ConfigError: a limit below 1, or this kind of detector has none.
    """
    with _understanding(header, where):
        recipe = read_recipe(header["recipe"])
    if max_detections is not None:
        recipe = recipe.limited(max_detections)
    with _understanding(header, where), nullcontext() if room is None else parameter_limit(room):
        return build_detector(recipe)


@contextmanager
def _understanding(header: Mapping[str, Any], where: str) -> Iterator[None]:
    try:
        yield
    # Many hands build, timm's among them, and a recipe may bring any of them to stumble over what it says.
    except Exception as error:
        raise ModelFileError(
            f"{where}: its recipe can't be understood ({type(error).__name__}: {_shortened(error)}). "
            f"It was written by fpn {shown(header.get('fpn'))}, this is {__version__}."
        ) from error


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    return _open(path, lambda file: (_header(file.metadata(), path), _tensors(file)))


def _tensors(file: Any) -> dict[str, Tensor]:
    return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _thresholds(header: Mapping[str, Any], detector: Detector, path: Path) -> Thresholds | None:
    if "thresholds" not in header:  # written before there were any, or never calibrated
        return None
    try:
        return read_thresholds(header["thresholds"], len(detector.classes))
    except ConfigError as error:
        raise ModelFileError(f"{path}: its thresholds are damaged ({error}). Calibrate it again.") from error


def _of_stopped_run(folder: Path) -> str:
    """What to do where a training was stopped before it wrote a model."""
    if not (folder / "run.json").is_file() or any(folder.glob("*.safetensors")):
        return ""
    return f" The run in {folder} has not written one: it does at its first validation. fpn train --resume {folder}"


def _open(path: Path, use: Callable[[Any], T]) -> T:
    if not path.exists():
        raise DataNotFoundError(f"{path}: no such model file.{_of_stopped_run(path.parent) or nearest_path(path)}")
    if path.is_dir():
        raise ModelFileError(f"{path}: is a folder; a model is one .safetensors file, such as {path}/best.safetensors")
    _refuse_pickle(path)
    try:
        with safe_open(path, framework="pt") as file:
            return use(file)
    except PermissionError as error:
        raise ModelFileError(f"{path}: no permission to read it") from error
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        if isinstance(error, ModelFileError):
            raise
        remedy = "Copy it again from where it came."
        if path.suffix != ".safetensors":
            remedy = "A model is one such file; on the command line it comes before images and data."
        raise ModelFileError(f"{path}: damaged or not a .safetensors file ({_shortened(error)}). {remedy}") from error


def _refuse_numbers(state: Mapping[str, Tensor], detector: Detector, path: Path) -> None:
    """Stop for weights that would be rounded or find nothing, without a word. Names are checked elsewhere."""
    expected = detector.state_dict()
    for name, given in state.items():
        own = expected.get(name, given)
        if own.is_floating_point() != given.is_floating_point():
            raise ModelFileError(f"{path}: {name} is of {given.dtype}, expected {own.dtype}. Save the model again.")
        # The sum takes a fraction of the time, and is finite unless a number is not, or all are absurdly large.
        if not given.sum().isfinite() and not given.isfinite().all():
            raise ModelFileError(
                f"{path}: {name} holds values that are not finite numbers: it is damaged, or its training went astray. "
                "Copy it again from where it came, or train again with a smaller learning rate."
            )


def _refuse_pickle(path: Path) -> None:
    with path.open("rb") as stream:
        start = stream.read(9)
    # A .safetensors file begins with the length of its JSON, whose first byte is 0x80 for one length in 32.
    if start[8:] == b"{":
        return
    # Pickle protocol 2 and later starts with 0x80; torch.save writes a zip around it.
    if start[:1] == b"\x80" or start[:4] == b"PK\x03\x04":
        raise ModelFileError(
            f"{path}: is a pickle (a .pt / .pth file). It could run any program, so it is not opened. Models of "
            f"fpn are .safetensors files; `fpn import {path} --output MODEL.safetensors` makes one of others'."
        )


def _header(metadata: Mapping[str, str] | None, path: Path) -> dict[str, Any]:
    if metadata and BACKBONE_KEY in metadata:
        raise ModelFileError(
            f"{path}: is a backbone, without a detector's heads. `fpn train DATA --init {path}` trains one that begins "
            "with it."
        )
    if not metadata or "fpn" not in metadata:
        raise ModelFileError(f"{path}: holds weights, but no fpn recipe. Was it written by another program?")
    try:
        header = json.loads(metadata["fpn"])
        newer = header.get("format", 0) > FORMAT
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ModelFileError(f"{path}: its fpn recipe is damaged ({_shortened(error)}). Copy it again.") from error
    if newer:
        raise ModelFileError(f"{path}: written by fpn {shown(header.get('fpn'))} in a newer format. Update fpn.")
    if not isinstance(header.get("training", {}), dict):
        raise ModelFileError(f"{path}: its record of the training is damaged. Copy it again.")
    return dict(header)


def shown(value: object) -> str:
    """What a file says, cut to a length that a message can hold and made of what can be printed."""
    text = value if isinstance(value, str) else str(type(value).__name__)
    return ascii(text[:40])[1:-1]


def _shortened(error: Exception, limit: int = 2000) -> str:
    text = str(error).encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= limit else f"{text[:limit]} ..."
