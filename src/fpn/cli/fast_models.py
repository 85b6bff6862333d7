"""A model file of any kind, ready to detect as fast as it can."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from fpn.export.exported import ExportedDetector
    from fpn.inference.optimize import OptimizedDetector


def load_fast(
    model: Path,
    *,
    device: str | None = None,
    max_detections: int | None = None,
    precision: Literal["float32", "bf16", "auto"] = "auto",
) -> OptimizedDetector | ExportedDetector:
    """An optimized detector, or an exported file as it is; arguments are the options of `fpn predict`.

    Raises:
        DataNotFoundError, ModelFileError, MissingExtraError, ConfigError: as `fpn.load`; or an exported file is to work
            in bf16 and can't.
    """
    from fpn.batch.worker import load_predictor
    from fpn.cli.devices import check_device

    return load_predictor(model, device=check_device(device), max_detections=max_detections, precision=precision)
