"""Weights of a case as the file that its toolkit writes, and what `fpn.import_weights` makes of that file."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fpn.interop import import_weights
from fpn.interop.imported import ImportedWeights


def import_file(folder: Path, name: str, state: Mapping[str, np.ndarray], **settings: Any) -> ImportedWeights:
    """Through `model_final.pkl` of Detectron2's model zoo or `epoch_12.pth` of MMDetection, by the case's name.

    The file, as large as the weights, is gone afterwards.
    """
    path = folder / ("epoch_12.pth" if name.startswith("mm_") else "model_final.pkl")
    if path.suffix == ".pth":
        tensors = OrderedDict((key, torch.from_numpy(value)) for key, value in state.items())
        torch.save({"meta": {"epoch": 12, "env_info": "sys.platform: linux"}, "state_dict": tensors}, path)
    else:
        held = {"model": dict(state), "__author__": "Detectron2 Model Zoo", "matching_heuristics": True}
        path.write_bytes(pickle.dumps(held, protocol=3))
    try:
        return import_weights(path, **settings)
    finally:
        path.unlink()
