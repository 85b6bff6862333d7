"""Other toolkits' weights: the toolkit is recognised by its names."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fpn.detectors.recipe import parameter_limit
from fpn.errors import FpnError, ModelFileError
from fpn.interop import (
    classifiers,
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
from fpn.interop.pickle_parts import printable


class Toolkit(NamedTuple):
    """What is known of a toolkit: how its names look, and how its weights become ours."""

    recognises: Callable[[Collection[str]], bool]
    import_weights: Callable[..., ImportedWeights]


IMAGENET = "ImageNet"
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
    "Detectron2's ViTDet": Toolkit(vitdet.recognises, vitdet.import_weights),
    # Last: the names of a backbone alone are among those of some detectors.
    IMAGENET: Toolkit(classifiers.recognises, classifiers.import_weights),
}
# Under these keys checkpoints keep their weights, beside optimizers and counters.
_WRAPPERS = ("model", "state_dict", "model_state_dict", "model_ema", "ema_state_dict")
# What trainers, compilers and averages put before every name; and how an average counts.
_PREFIX = re.compile(r"(module|_orig_mod|model|ema|ema_model)\.")
_COUNTERS = ("n_averaged", "steps")
# MMDetection 2.x keeps beside each weight what its moving average was made from; the weights are the average.
_AVERAGED = re.compile(r"ema_\w+")
# Building makes more than ends in a detector: layers are made to try them. As for model files.
_ROOM, _MORE_ROOM = 16, 25_000_000
_KNOWN = (
    "detectors of torchvision, Detectron2, MMDetection, fpn.pytorch and matterport, the pyramids of pytorch-fpn and "
    "EfficientDet, and ImageNet's ResNets, ResNeXts and MobileNets"
)


def import_state(state: Mapping[str, Any], **conventions: Any) -> ImportedWeights:
    """Put another toolkit's weights into our modules.

    Args:
        state: the toolkit's names to arrays or tensors, or a checkpoint that holds such a mapping as "model" or
            "state_dict". A prefix such as "module." (of data-parallel training) does no harm.
        conventions: fields of the dialect that the weights were trained with and that no name tells, such as
            `roi_sampler="pool"`; for detectors also `classes`, the class names.

    Returns:
        The module in eval mode, the dialect that was found, and the names that had no place.

    Raises:
        ModelFileError: no toolkit has such names, or weights are missing or of other shapes.
        ConfigError: an unknown convention.
    """
    tensors = _tensors(unwrap_state(state))
    averaged = tuple(name for name in tensors if _AVERAGED.fullmatch(name))
    tensors = {name: value for name, value in tensors.items() if name not in averaged}
    for name, toolkit in TOOLKITS.items():
        if toolkit.recognises(tensors.keys()):
            with _understanding(name, tensors):
                imported = toolkit.import_weights(tensors, **conventions)
            aside = (f"{len(averaged)} weights ema_... beside those of the average are left out",) if averaged else ()
            remarks = (*imported.remarks, *aside)
            return replace(imported, toolkit=name, leftover=(*imported.leftover, *averaged), remarks=remarks)
    first = ", ".join(list(tensors)[:3]) or "no names at all"
    raise ModelFileError(f"no toolkit that is known has such names: they begin with {first}. Known are {_KNOWN}.")


@contextmanager
def _understanding(toolkit: str, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Names that nearly are a toolkit's lead anywhere: whatever is stumbled over there, the file is to blame."""
    room = _ROOM * sum(tensor.numel() for tensor in tensors.values()) + _MORE_ROOM
    try:
        with parameter_limit(room):
            yield
    except FpnError:
        raise
    except (LookupError, ValueError, TypeError, ArithmeticError, StopIteration, RuntimeError) as error:
        raise ModelFileError(
            f"{toolkit} weights: one is missing or has another shape than there ({type(error).__name__}: "
            f"{printable(error)}). Is the file whole?"
        ) from error


def unwrap_state(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """The weights of a checkpoint."""
    for key in _WRAPPERS:
        if isinstance(state.get(key), Mapping):
            return unwrap_state(state[key])
    return state


def _tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: _tensor(value) for name, value in plain_names(state).items()}


def plain_names(state: Mapping[str, Any]) -> dict[str, Any]:
    """The weights among what a mapping holds, by the names that they have in the network itself."""
    weights = {name: value for name, value in state.items() if isinstance(name, str) and _is_weight(value)}
    plain = {name.removeprefix("module."): value for name, value in weights.items() if name not in _COUNTERS}
    while plain and (found := _PREFIX.match(next(iter(plain)))) and all(name.startswith(found[0]) for name in plain):
        plain = {name.removeprefix(found[0]): value for name, value in plain.items()}
    return plain


def _is_weight(value: Any) -> bool:
    if isinstance(value, Tensor | float | int):
        return True
    return (hasattr(value, "__array__") or isinstance(value, list)) and np.asarray(value).dtype.kind in "biuf"


def _tensor(value: Any) -> Tensor:
    # Arrays that came from a file may not be written to; torch shares only what may.
    return value if isinstance(value, Tensor) else torch.from_numpy(np.require(value, requirements=["C", "W"]))
