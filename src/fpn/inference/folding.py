"""A bottom-up path for inference: its graph is traced, and what follows a convolution goes into it."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from typing import Any, cast

import torch
from timm.layers import Conv2dSame
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from fpn.features.extractor import BottomUp
from fpn.features.frozen import FrozenNorm
from fpn.inference.fused_convolution import FusedConvolution, plain_convolution
from fpn.runtime.turns import NETWORKS

_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish, nn.Sigmoid)
_SUMS: tuple[Callable[..., Any], ...] = (operator.add, operator.iadd, torch.add)
# Shapes at which the folded path is compared with the original before it is used.
_PROBES = ((64, 96), (65, 97))


def folded(net: nn.Module) -> fx.GraphModule | None:
    """A network in eval mode that computes the same with fewer passes over memory; None: it can't be traced.

    Norms with fixed statistics, sums of two maps and common activations go into the convolution before them. The
    weights are copies. It is compared with the original before it is given out.
    """
    try:
        with NETWORKS.alone():
            graph = _Tracer().trace(net)
        result = fx.GraphModule(net, graph)
        _remove_identities(result)
        _split_tails(result)
        _fuse(result)
        result.eval()
        return result if _same(net, result) else None
    except (fx.proxy.TraceError, TypeError, ValueError, RuntimeError, AttributeError, KeyError, AssertionError):
        # timm has a thousand networks, and some decide by the values that flow through them: these stay as they are.
        return None


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
    norm = _fixed(behind[0]) if behind else None
    rest = behind[1:] if norm is not None else behind
    activation = _in_place(rest[0]) if rest and type(rest[0]) in _ACTIVATIONS else None
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


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return next(m.children(), None) is None or isinstance(m, FrozenNorm | _BatchNorm)


def _remove_identities(result: fx.GraphModule) -> None:
    modules = dict(result.named_modules())
    for node in list(result.graph.nodes):
        if node.op == "call_module" and isinstance(modules[str(node.target)], nn.Identity | nn.Dropout):
            node.replace_all_uses_with(node.args[0])
            result.graph.erase_node(node)


def _split_tails(result: fx.GraphModule) -> None:
    """Batch norms become frozen ones, and the activations that timm puts inside them nodes of their own."""
    for node in list(result.graph.nodes):
        norm = _module(result, node)
        if not isinstance(norm, FrozenNorm | _BatchNorm):
            continue
        frozen = norm if isinstance(norm, FrozenNorm) else FrozenNorm.of(norm)
        tail, plain = frozen.tail, FrozenNorm(len(frozen.weight), eps=frozen.eps)
        plain.load_state_dict({k: v for k, v in frozen.state_dict().items() if not k.startswith("tail.")})
        name = _add(result, plain)
        with result.graph.inserting_before(node):
            new = result.graph.call_module(name, node.args)
        if tail is not None:
            tail_name = _add(result, tail)
            with result.graph.inserting_after(new):
                new = result.graph.call_module(tail_name, (new,))
        node.replace_all_uses_with(new)
        result.graph.erase_node(node)


def _fuse(result: fx.GraphModule) -> None:
    for node in list(result.graph.nodes):
        convolution = _module(result, node)
        same = isinstance(convolution, Conv2dSame)
        if convolution is None or not (same or plain_convolution(convolution)):
            continue
        _fuse_one(result, node, cast(nn.Conv2d, convolution), same)
    result.graph.lint()
    result.delete_all_unused_submodules()
    result.recompile()


def _fuse_one(result: fx.GraphModule, node: fx.Node, convolution: nn.Conv2d, same: bool) -> None:
    last, chain, other, activation = node, [node], None, None
    norm = _module(result, _only_user(last))
    if isinstance(norm, FrozenNorm):
        last = cast(fx.Node, _only_user(last))
        chain.append(last)
    else:
        norm = None
    user = _only_user(last)
    if user is not None and _is_sum(user):
        first, second = cast("tuple[fx.Node, fx.Node]", user.args[:2])
        other = second if first is last else first
        last = user
        chain.append(last)
        user = _only_user(last)
    activation = _activation(result, user)
    if activation is not None and user is not None:
        last = user
        chain.append(last)
    name = _add(result, FusedConvolution(convolution, norm=norm, activation=activation, same=same))
    with result.graph.inserting_after(last):
        new = result.graph.call_module(name, (node.args[0],) if other is None else (node.args[0], other))
    last.replace_all_uses_with(new)
    for each in reversed(chain):
        result.graph.erase_node(each)


def _is_sum(node: fx.Node) -> bool:
    """A sum of two different maps."""
    if node.op != "call_function" or node.target not in _SUMS or node.kwargs or len(node.args) != 2:
        return False
    return all(isinstance(each, fx.Node) for each in node.args) and node.args[0] is not node.args[1]


def _activation(result: fx.GraphModule, node: fx.Node | None) -> nn.Module | None:
    if node is None:
        return None
    module = _module(result, node)
    if type(module) in _ACTIVATIONS:
        return _in_place(module)
    if node.op == "call_function" and node.target in (functional.relu, torch.relu):
        return nn.ReLU(inplace=True)
    return None


def _in_place(module: nn.Module | None) -> nn.Module | None:
    """A copy that writes over what the convolution has just made."""
    module = copy.copy(module)
    if module is not None and hasattr(module, "inplace"):
        setattr(module, "inplace", True)  # noqa: B010 nn.Module types attributes as tensors
    return module


def _module(result: fx.GraphModule, node: fx.Node | None) -> nn.Module | None:
    if node is None or node.op != "call_module" or len(node.args) != 1:
        return None
    return result.get_submodule(str(node.target))


def _only_user(node: fx.Node) -> fx.Node | None:
    (user,) = node.users if len(node.users) == 1 else (None,)
    return user


def _add(result: fx.GraphModule, module: nn.Module) -> str:
    name = f"part{sum(1 for child in result.children())}"
    result.add_submodule(name, module)
    return name


@torch.no_grad()
def _same(net: nn.Module, result: nn.Module) -> bool:
    device = next(net.parameters()).device
    random = torch.Generator().manual_seed(0)
    for size in _PROBES:
        pixels = torch.randn(2, 3, *size, generator=random).to(device)
        pairs = zip(net(pixels), result(pixels), strict=True)
        if not all(_close(wanted, got) for wanted, got in pairs):
            return False
    return True


def _close(wanted: Tensor, got: Tensor) -> bool:
    if wanted.shape != got.shape:
        return False
    return bool((wanted - got).abs().max() <= 1e-4 * wanted.abs().max().clamp(min=1e-6))
