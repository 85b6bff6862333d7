"""Datasets: labelled images in, samples out. This subpackage never sees detectors and is never seen by them.

The names below are imported when first used, so that settings can be read without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_WHERE = {
    "Dataset": "fpn.data.dataset",
    "Limits": "fpn.data.limits",
    "Sample": "fpn.data.dataset",
    "divide": "fpn.data.split",
    "list_splits": "fpn.data.formats.open",
    "open_dataset": "fpn.data.formats.open",
    "split_dataset": "fpn.data.split",
}

__all__ = ["Dataset", "Limits", "Sample", "divide", "list_splits", "open_dataset", "split_dataset"]

if TYPE_CHECKING:
    from fpn.data.dataset import Dataset, Sample
    from fpn.data.formats.open import list_splits, open_dataset
    from fpn.data.limits import Limits
    from fpn.data.split import divide, split_dataset


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'fpn.data' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)
