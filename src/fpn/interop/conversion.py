"""Other toolkits' weights: the toolkit is recognised by its names."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fpn.errors import ModelFileError
from fpn.interop import (
    dense_heads,
    detectron2,
    efficientdet,
    fpn_pytorch,
    matterport,
    minimal,
    mmdetection,
    pytorch_fpn,
    torchvision,
    vitdet,
)
from fpn.interop.imported import ImportedWeights


class Toolkit(NamedTuple):
    """What is known of a toolkit: how its names look, and how its weights become ours."""

    recognises: Callable[[Collection[str]], bool]
    import_weights: Callable[..., ImportedWeights]


TOOLKITS: dict[str, Toolkit] = {
    "fpn.pytorch": Toolkit(fpn_pytorch.recognises, fpn_pytorch.import_weights),
    "pytorch-fpn": Toolkit(pytorch_fpn.recognises, pytorch_fpn.import_weights),
    "three-level FPN": Toolkit(minimal.recognises, minimal.import_weights),
    "matterport": Toolkit(matterport.recognises, matterport.import_weights),
    "Detectron2": Toolkit(detectron2.recognises, detectron2.import_weights),
    "MMDetection's dense heads": Toolkit(dense_heads.recognises, dense_heads.import_weights),
    "torchvision": Toolkit(torchvision.recognises, torchvision.import_weights),
    "MMDetection": Toolkit(mmdetection.recognises, mmdetection.import_weights),
    "EfficientDet": Toolkit(efficientdet.recognises, efficientdet.import_weights),
    "ViTDet": Toolkit(vitdet.recognises, vitdet.import_weights),
}
# Under these keys checkpoints keep their weights, beside optimizers and counters.
_WRAPPERS = ("model", "state_dict", "model_state_dict")


def import_state(state: Mapping[str, Any], **conventions: Any) -> ImportedWeights:
    """Put another toolkit's weights into our modules.

    Args:
        state: the toolkit's names to arrays or tensors, or a checkpoint that holds such a mapping as "model" or
            "state_dict". A prefix "module." (of data-parallel training) does no harm.
        conventions: fields of the dialect that the weights were trained with and that no name tells, such as
            `roi_sampler="pool"`; for detectors also `classes`, the class names.

    Returns:
        The module in eval mode, the dialect that was found, and the names that had no place.

    Raises:
        ModelFileError: no toolkit has such names, or weights are missing or of other shapes.
        ConfigError: an unknown convention.
    """
    tensors = _tensors(unwrap_state(state))
    for name, toolkit in TOOLKITS.items():
        if toolkit.recognises(tensors.keys()):
            return replace(toolkit.import_weights(tensors, **conventions), toolkit=name)
    first = ", ".join(list(tensors)[:3]) or "no names at all"
    raise ModelFileError(f"weights of no toolkit that is known ({', '.join(TOOLKITS)}): they begin with {first}")


def unwrap_state(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """The weights of a checkpoint."""
    for key in _WRAPPERS:
        if isinstance(state.get(key), Mapping):
            return unwrap_state(state[key])
    return state


def _tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    return {
        name.removeprefix("module."): _tensor(value)
        for name, value in state.items()
        if hasattr(value, "__array__") or isinstance(value, (list, float, int))
    }


def _tensor(value: Any) -> Tensor:
    # Arrays that came from a file may not be written to; torch shares only what may.
    return value if isinstance(value, Tensor) else torch.from_numpy(np.require(value, requirements=["C", "W"]))
