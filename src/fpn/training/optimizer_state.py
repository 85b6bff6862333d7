"""An optimizer's state as named tensors and plain values, so that it is kept without a pickle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fpn.errors import ConfigError, ModelFileError

# What a group has beside its optimizer's own values; the schedule sets its rate before each step.
_OURS = frozenset({"params", "names", "multiplier", "lr"})
_PLAIN = (bool, int, float, str, type(None))


def optimizer_class(optimizer: torch.optim.Optimizer) -> str:
    """Module and name of an optimizer's class."""
    kind = type(optimizer)
    return f"{kind.__module__}.{kind.__qualname__}"


def capture_optimizer(optimizer: torch.optim.Optimizer, *, from_outside: bool) -> tuple[dict[str, Tensor], Any]:
    """Tensors by "weight/key", and all else, JSON-able.

    Args:
        optimizer: its groups have "names" of their "params".
        from_outside: also keep the plain values of its groups, where some optimizers count; those of the built-in ones
            are the configuration's.

    Raises:
        ConfigError: it keeps something that is neither a tensor nor a plain value.
    """
    tensors: dict[str, Tensor] = {}
    values: dict[str, dict[str, Any]] = {}
    names: dict[Tensor, str] = {weight: name for name, weight in _named_weights(optimizer)}
    for weight, state in optimizer.state.items():
        for key, value in state.items() if weight in names else ():
            if isinstance(value, Tensor):
                tensors[f"{names[weight]}/{key}"] = value
            elif isinstance(value, _PLAIN):
                values.setdefault(names[weight], {})[key] = value
            else:
                _refuse(optimizer, f"a {type(value).__name__} named {key!r} for each weight")
        if weight not in names:
            _refuse(optimizer, "state that belongs to no weight")
    groups = [_plain_values(group) for group in optimizer.param_groups] if from_outside else None
    return tensors, {"class": optimizer_class(optimizer), "values": values, "groups": groups}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], rest: Mapping[str, Any]) -> None:
    """Put a fresh optimizer where `capture_optimizer` was called.

    Raises:
        ConfigError: the state is another class's.
        ModelFileError: it is of other weights.
    """
    before, now = rest["class"], optimizer_class(optimizer)
    if before != now:
        raise ConfigError(
            f"the checkpoint has the state of {before}, this run's optimizer is {now}: go on with the same one, or "
            "begin a new run from the weights."
        )
    weights = dict(_named_weights(optimizer))
    try:
        for name, value in tensors.items():
            weight_name, key = name.rsplit("/", 1)
            optimizer.state[weights[weight_name]][key] = _as_made(optimizer, weights[weight_name], key, value)
        for weight_name, plain in rest["values"].items():
            optimizer.state[weights[weight_name]].update(plain)
    except KeyError as error:
        raise ModelFileError(f"the checkpoint's optimizer trained {error}, which this run does not") from error
    for group, plain in zip(optimizer.param_groups, rest["groups"] or (), strict=False):
        group.update(plain)


def _as_made(optimizer: torch.optim.Optimizer, weight: nn.Parameter, key: str, value: Tensor) -> Tensor:
    """A state's tensor as the optimizer itself makes it: fused kernels rely on the weight's memory layout."""
    if key == "step":  # torch keeps the count on the CPU unless a kernel reads it
        on_device = optimizer.defaults.get("fused") or optimizer.defaults.get("capturable")
        return value.to(weight.device if on_device else "cpu")
    if value.shape == weight.shape:
        return torch.empty_like(weight, dtype=value.dtype).copy_(value)
    return value.to(weight.device)


def _plain_values(group: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key not in _OURS and isinstance(value, _PLAIN)}


def _named_weights(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, nn.Parameter]]:
    for group in optimizer.param_groups:
        yield from zip(group["names"], group["params"], strict=True)


def _refuse(optimizer: torch.optim.Optimizer, what: str) -> None:
    raise ConfigError(
        f"optimizer {optimizer_class(optimizer)}: keeps {what}, which a checkpoint can't hold. Take another optimizer, "
        "or train without an output folder."
    )
