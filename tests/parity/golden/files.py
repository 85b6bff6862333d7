"""Weights of a case as the file that its toolkit writes, and what `fpn.import_weights` makes of that file."""

from __future__ import annotations

import pickle
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fpn.interop import import_weights
from fpn.interop.imported import ImportedWeights

State = Mapping[str, np.ndarray]


def _tensors(state: State) -> OrderedDict[str, torch.Tensor]:
    return OrderedDict((key, torch.from_numpy(value)) for key, value in state.items())


def _detectron2(path: Path, state: State) -> None:
    """As in its model zoo, from Python 3.7."""
    held = {"model": dict(state), "__author__": "Detectron2 Model Zoo", "matching_heuristics": True}
    path.write_bytes(pickle.dumps(held, protocol=3))


def _mmdetection(path: Path, state: State) -> None:
    torch.save({"meta": {"epoch": 12, "env_info": "sys.platform: linux"}, "state_dict": _tensors(state)}, path)


def _fpn_pytorch(path: Path, state: State) -> None:
    """As `trainval_net.py` saves, with the torch of then."""
    held = {"session": 1, "epoch": 10, "optimizer": {"state": {}, "param_groups": [{"lr": 0.001}]}}
    held |= {"model": _tensors(state), "pooling_mode": "align", "class_agnostic": False}
    torch.save(held, path, _use_new_zipfile_serialization=False)


def _old_state_dict(path: Path, state: State) -> None:
    torch.save(_tensors(state), path, _use_new_zipfile_serialization=False)


def _state_dict(path: Path, state: State) -> None:
    torch.save(_tensors(state), path)


def _keras(path: Path, state: State) -> None:
    """Groups of layers; those of the RPN, a model of its own, are one group."""
    h5py = pytest.importorskip("h5py", reason="needs the extra `keras`")
    with h5py.File(path, "w") as file:
        for name, value in state.items():
            layer = name.partition("/")[0]
            file[f"{'rpn_model' if layer.startswith('rpn_') else layer}/{name}"] = value


# Beginnings of the names of cases.
WRITERS: dict[str, tuple[str, Callable[[Path, State], None]]] = {
    "d2_": ("model_final.pkl", _detectron2),
    "mm_": ("epoch_12.pth", _mmdetection),
    "fpnpt_": ("faster_rcnn_1_10_625.pth", _fpn_pytorch),
    "mrcnn_": ("mask_rcnn_0030.h5", _keras),
    "kuangliu_": ("fpn.pth", _old_state_dict),
    "minimal_": ("fpn.pth", _old_state_dict),
    "bifpn_": ("tf_efficientdet_d0.pth", _state_dict),
}


def import_file(name: str, state: State, **settings: Any) -> ImportedWeights:
    """By way of the file that the toolkit of a case of this name writes; as large as the weights, it is gone then."""
    called, write = next(writer for beginning, writer in WRITERS.items() if name.startswith(beginning))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / called
        write(path, state)
        return import_weights(path, **settings)
