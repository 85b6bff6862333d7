"""`fpn.load`: a model file of any kind as a detector."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch

from fpn.detectors import model_file
from fpn.detectors.detector import Detector
from fpn.errors import ConfigError, DataNotFoundError
from fpn.export.exported import ExportedDetector, export_with
from fpn.export.runtimes import OnnxRuntime, OpenVINORuntime, Runtime, TorchRuntime, read_file_header

RUNTIMES: dict[str, Callable[[Path, str], Runtime]] = {
    ".onnx": lambda path, where: OnnxRuntime(path, where=where),
    ".xml": lambda path, where: OpenVINORuntime(path, where=where),
    ".pt2": lambda path, where: TorchRuntime(path, where=where),
}


def load_any(
    path: str | os.PathLike[str], *, device: str | torch.device | None = None, max_detections: int | None = None
) -> Detector:
    """A detector from a file: of `fpn.save` (`.safetensors`), or an exported one, told by its ending.

    Exported are `.onnx`, `.xml` (OpenVINO) and `.pt2` (`torch.export`, which can run code of the file: load those of
    people you trust alone).

    Args:
        path: the file.
        device: where its weights go; None: the GPU where there is one. Exported files run on the CPU.
        max_detections: the most detections an image; None: the model's own setting. It is a part of exported files.

    Raises:
        DataNotFoundError, ModelFileError: no such file, or it is damaged or of another kind.
        MissingExtraError: what runs it is not installed.
        ConfigError: an option that does not go with such a file.
    """
    path = Path(path)
    if path.suffix not in RUNTIMES:
        return model_file.load(path, device=device, max_detections=max_detections)
    return load_exported(path, device=device, max_detections=max_detections)


def load_exported(
    path: Path,
    *,
    device: str | torch.device | None = None,
    max_detections: int | None = None,
    precision: Literal["float32", "bf16", "auto"] = "auto",
) -> ExportedDetector:
    """An exported file as a detector.

    Args:
        path: ends as `RUNTIMES` says.
        device, max_detections: as `load_any`.
        precision: of its arithmetic. auto, float32: as in the file, which is what was proven. bf16: what is float32
            in the file of OpenVINO, in bf16; nothing is proven of that.

    Raises:
        DataNotFoundError, ModelFileError, MissingExtraError: as `load_any`.
        ConfigError: as `load_any`; or there is no bf16, in what runs the file or in the processor.
    """
    if not path.is_file():
        raise DataNotFoundError(f"{path}: no such model file")
    if max_detections is not None:
        raise ConfigError(
            f"{path}: how many detections an exported file gives was decided when it was made. "
            f"{export_with(str(path), max_detections)}"
        )
    if device is not None and torch.device(device).type != "cpu":
        raise ConfigError(f"{path}: device {device}: exported files run on the cpu here")
    in_bf16 = precision == "bf16"
    if in_bf16 and path.suffix != ".xml":
        raise ConfigError(
            f"{path}: --precision bf16 is of models and of OpenVINO's files (.xml); what runs this one has no bf16 on "
            "a CPU. Leave it out, or export the model with --format openvino."
        )
    where = str(path)
    runtime = OpenVINORuntime(path, where=where, precision="bf16") if in_bf16 else RUNTIMES[path.suffix](path, where)
    header = read_file_header(runtime.header, where)
    if in_bf16:
        own = header.get("precision", "float32")
        header["precision"] = "bf16" if own == "float32" else f"{own} and bf16"
    return ExportedDetector(runtime, header, where=where)
