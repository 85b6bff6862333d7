"""What a step does to the weights: groups, rates, clipping, averaging. Schedules are pure functions of the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from fpn.errors import ConfigError
from fpn.suggestions import nearest
from fpn.training.config import TrainConfig

OptimizerFactory = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]


@runtime_checkable
class RateOfStep(Protocol):
    """Says which learning rate each step has."""

    def rate(self, step: int) -> float:
        """The rate of step 0, 1, ..."""
        ...


@dataclass(frozen=True)
class Schedule:
    """The learning rate of every step of a run.

    Attributes:
        peak: rate after warm-up.
        total: number of optimizer steps in the run.
        warmup: steps of linear warm-up.
        kind: "cosine", "step" or "constant".
        milestones: fractions of the run at which "step" falls tenfold.
    """

    peak: float
    total: int
    warmup: int
    kind: str
    milestones: tuple[float, ...]

    @classmethod
    def of(cls, config: TrainConfig, total: int, *, peak: float | None = None) -> Schedule:
        """The schedule that `config` describes for a run of `total` steps; its peak is `peak`, if given."""
        warmup = min(500, total // 10) if config.warmup_steps is None else config.warmup_steps
        peak = learning_rate(config) if peak is None else peak
        return cls(peak, total, warmup, config.schedule, config.milestones)

    def rate(self, step: int) -> float:
        """The rate of step 0, 1, ... total - 1."""
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        if self.kind == "cosine":
            done = (step - self.warmup) / max(1, self.total - self.warmup)
            return self.peak * 0.5 * (1 + math.cos(math.pi * done))
        if self.kind == "step":
            return self.peak * 0.1 ** sum(step >= fraction * self.total for fraction in self.milestones)
        return self.peak


def learning_rate(config: TrainConfig) -> float:
    """The peak rate: as given, or by optimizer and images a step.

    The linear rule for SGD is Goyal et al. 2017 (arXiv:1706.02677) from Detectron's 0.02 at 16 images; the square
    root for adaptive optimizers is Malladi et al. 2022 (arXiv:2205.10287).
    """
    if config.learning_rate is not None:
        return config.learning_rate
    images = config.batch_size * config.accumulate
    return 0.02 * images / 16 if config.optimizer == "sgd" else 3e-4 * math.sqrt(images / 4)


def freeze_parts(module: nn.Module, parts: Sequence[str]) -> None:
    """Take parts, such as "features.backbone", out of training: no gradients, and norms keep their statistics.

    Raises:
        ConfigError: no part has that name.
    """
    known = dict(module.named_modules())
    for name in parts:
        if name not in known or not name:
            raise ConfigError(f"frozen part {name!r}: the detector has no such part.{nearest(name, known)}")
        known[name].requires_grad_(False).eval()


def parameter_groups(
    module: nn.Module, config: TrainConfig, *, backbone: Iterable[nn.Parameter] = ()
) -> list[dict[str, Any]]:
    """Trainable weights in up to four groups: backbone or not, with weight decay or without.

    Norms' weights and all biases are vectors; what has two dimensions or more decays.

    Args:
        module: whose weights.
        config: decay, and the backbone's share of the rate.
        backbone: those of the weights that are a backbone's, such as `Detector.backbone_parameters`.
    """
    of_backbone = {id(weight) for weight in backbone}
    decay = config.weight_decay
    if decay is None:
        decay = 1e-4 if config.optimizer == "sgd" else 0.05
    groups: dict[tuple[bool, bool], dict[str, Any]] = {}
    for name, weight in module.named_parameters():
        if not weight.requires_grad:
            continue
        inside, decays = id(weight) in of_backbone, weight.ndim > 1
        multiplier = config.backbone_multiplier if inside else 1.0
        empty = {"params": [], "names": [], "weight_decay": decay if decays else 0.0, "multiplier": multiplier}
        group = groups.setdefault((inside, decays), empty)
        group["params"].append(weight)
        group["names"].append(name)
    if not groups:
        raise ConfigError("every part of the detector is frozen: nothing to train. Take parts out of --frozen.")
    return list(groups.values())


def make_optimizer(
    module: nn.Module, config: TrainConfig, *, backbone: Iterable[nn.Parameter] = ()
) -> torch.optim.Optimizer:
    """SGD or AdamW over `parameter_groups`, in torch's fused form where the device has one."""
    groups = parameter_groups(module, config, backbone=backbone)
    fused = all(weight.device.type in ("cpu", "cuda") for group in groups for weight in group["params"])
    rate = learning_rate(config)
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=config.momentum, fused=fused)
    return torch.optim.AdamW(groups, lr=rate, betas=(config.momentum, 0.999), fused=fused)


def make_outside_optimizer(
    module: nn.Module, config: TrainConfig, factory: OptimizerFactory, *, backbone: Iterable[nn.Parameter] = ()
) -> torch.optim.Optimizer:
    """What a caller's factory makes of `parameter_groups`.

    Args:
        module: whose weights.
        config: its `weight_decay` goes into the groups, if given; else the optimizer's own holds, but for norms and
            biases, where it is 0.
        factory: from groups to an optimizer.
        backbone: as `parameter_groups` takes it.

    Raises:
        ConfigError: it made something else, or left weights out.
    """
    groups = parameter_groups(module, config, backbone=backbone)
    if config.weight_decay is None:
        for group in groups:
            if group["weight_decay"] > 0:
                del group["weight_decay"]
    asked = {name for group in groups for name in group["names"]}
    optimizer = factory(groups)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ConfigError(f"optimizer: the factory made a {type(optimizer).__name__}, no torch.optim.Optimizer")
    if not all({"names", "multiplier"} <= group.keys() for group in optimizer.param_groups):
        raise ConfigError("optimizer: the factory has to pass the groups on as they are, with `names` and `multiplier`")
    missing = asked - {name for group in optimizer.param_groups for name in group["names"]}
    if missing:
        raise ConfigError(f"optimizer: the factory left out {len(missing)} weights, such as {min(missing)}")
    return optimizer


def own_rate(optimizer: torch.optim.Optimizer, config: TrainConfig) -> float:
    """The peak rate beside a caller's optimizer: the configuration's, if given, else the optimizer's own.

    Raises:
        ConfigError: there is neither.
    """
    rate = optimizer.defaults.get("lr") if config.learning_rate is None else config.learning_rate
    if rate is None:
        raise ConfigError(f"optimizer: {type(optimizer).__name__} has no `lr`. Set learning_rate.")
    return float(rate)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its multiple of `rate`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["multiplier"]


def clip_gradients(optimizer: torch.optim.Optimizer, limit: float) -> Tensor:
    """Shorten the gradient of all weights together to `limit` (0: leave it) and return its norm before."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    norm = torch.nn.utils.get_total_norm([weight.grad for weight in weights if weight.grad is not None])
    if limit > 0:
        torch.nn.utils.clip_grads_with_norm_(weights, limit, norm)
    return norm


class Average:
    """An exponential moving average of the trained weights (and of norm statistics), kept beside them.

    Args:
        module: whose weights to follow.
        decay: share of the average that a step keeps, 0 <= decay < 1; early steps keep less (see `decay_at`).
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self._live = _followed(module)
        self.weights = {name: tensor.detach().clone() for name, tensor in self._live.items()}

    def decay_at(self, update: int) -> float:
        """min(decay, (1 + t) / (10 + t)): the first steps, far from where training ends, are soon forgotten."""
        return min(self.decay, (1 + update) / (10 + update))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the weights that step 0, 1, ... left behind."""
        live = [tensor.detach() for tensor in self._live.values()]
        torch._foreach_lerp_(list(self.weights.values()), live, 1 - self.decay_at(step))

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Take an average over from a checkpoint."""
        for name, tensor in self.weights.items():
            tensor.copy_(weights[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The module holds the averaged weights inside the `with`, and its own again after it, also after an error."""
        own = {name: tensor.detach().clone() for name, tensor in self._live.items()}
        self._write(self.weights)
        try:
            yield
        finally:
            self._write(own)

    @torch.no_grad()
    def _write(self, values: Mapping[str, Tensor]) -> None:
        for name, tensor in self._live.items():
            tensor.copy_(values[name])


def _followed(module: nn.Module) -> dict[str, Tensor]:
    """Trainable weights and the buffers that training changes; frozen weights equal their own average."""
    weights = {name: weight for name, weight in module.named_parameters() if weight.requires_grad}
    saved = module.state_dict(keep_vars=True)
    buffers = {n: b for n, b in module.named_buffers() if n in saved and b.is_floating_point()}
    return {**weights, **buffers}
