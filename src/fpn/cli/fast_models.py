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
            in another precision.
    """
    from fpn.cli.devices import check_device
    from fpn.errors import ConfigError
    from fpn.export import load
    from fpn.export.exported import ExportedDetector
    from fpn.inference.optimize import optimize

    detector = load(model, device=check_device(device), max_detections=max_detections)
    if not isinstance(detector, ExportedDetector):
        return optimize(detector, precision)
    if precision == "bf16":
        raise ConfigError(f"--precision bf16: {model} is an exported file and works in {detector.info.precision}")
    return detector
