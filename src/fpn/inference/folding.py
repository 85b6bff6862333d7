"""A detector's convolutions for inference: what follows them goes into them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import fx, nn

from fpn.features.extractor import BottomUp
from fpn.features.frozen import FrozenNorm
from fpn.features.fused_graph import fused_graph, in_place, plain_convolution
from fpn.inference.fused_convolution import FusedConvolution
from fpn.ops.shared_convolution import has_hooks

_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish, nn.Sigmoid)


def folded(net: nn.Module, wanted: Sequence[int] | None = None) -> fx.GraphModule | None:
    """A network in eval mode that computes the same with fewer passes over memory; None: it can't be traced.

    Norms with fixed statistics, sums of two maps and common activations go into the convolution before them. The
    weights are copies. Of its maps those of the positions `wanted` are made; see `fused_graph`.
    """
    result = fused_graph(net, FusedConvolution, _ACTIVATIONS, wanted=wanted)
    if result is not None:
        _write_over(result)
    return result


def _write_over(result: fx.GraphModule) -> None:
    """A sum takes the place of the map that is added, where that is not needed any more, nor is what was convolved."""
    modules, order = dict(result.named_modules()), {node: place for place, node in enumerate(result.graph.nodes)}
    for node in result.graph.nodes:
        part = modules.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(part, FusedConvolution) or len(node.args) != 2:
            continue
        x, other = node.args
        made = other.op == "call_module" and isinstance(modules.get(str(other.target)), FusedConvolution)
        part.over = made and x is not other and max(other.users, key=order.__getitem__) is node


def fold_sequences(part: nn.Module) -> None:
    """Put norms with fixed statistics and activations into the convolutions that they follow in a sequence, in place.

    Bottom-up paths are left out: what could be done there is done by `folded`.
    """
    for child in part.children():
        if not isinstance(child, BottomUp):
            fold_sequences(child)
    if isinstance(part, nn.Sequential) and type(part).forward is nn.Sequential.forward:
        for place in range(len(part)):
            _fold_place(part, place)


def _fold_place(sequence: nn.Sequential, place: int) -> None:
    """A convolution here takes in what stands behind it, whose places are left to pass on what comes."""
    convolution = sequence[place]
    if not plain_convolution(convolution):
        return
    behind = [sequence[k] for k in range(place + 1, min(place + 3, len(sequence)))]
    if any(map(has_hooks, behind)):
        return
    norm = _fixed(behind[0]) if behind else None
    rest = behind[1:] if norm is not None else behind
    activation = in_place(rest[0]) if rest and type(rest[0]) in _ACTIVATIONS else None
    if norm is None and activation is None:
        return
    fused = FusedConvolution(cast(nn.Conv2d, convolution), norm=norm, activation=activation)
    sequence[place] = fused
    for taken in range((norm is not None) + (activation is not None)):
        sequence[place + 1 + taken] = nn.Identity()


def _fixed(norm: nn.Module) -> FrozenNorm | None:
    """A norm that is a multiplication and an addition a channel, without anything behind it."""
    frozen = FrozenNorm.of(norm) if isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None else norm
    return frozen if isinstance(frozen, FrozenNorm) and frozen.tail is None else None
