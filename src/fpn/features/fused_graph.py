"""A network's graph, traced, in which a convolution takes in what follows it: norm, sum and activation."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast

import torch
from timm.layers import Conv2dSame
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrize import is_parametrized

from fpn.features.frozen import FrozenNorm
from fpn.ops.shared_convolution import has_hooks
from fpn.runtime.turns import NETWORKS

# (convolution, *, norm, activation, same) -> one module that is all of them; same: padded as TensorFlow does.
Fuser: TypeAlias = Callable[..., nn.Module]

_SUMS: tuple[Callable[..., Any], ...] = (operator.add, operator.iadd, torch.add)
# Shapes at which the graph is compared with the original before it is used.
_PROBES = ((64, 96), (65, 97))


class Affine(nn.Module):
    """A frozen norm without the activation that timm has in the same module; it keeps what the norm has."""

    def __init__(self, norm: FrozenNorm) -> None:
        """Args:
        norm: whose numbers are read each time.
        """
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """Scaled and shifted."""
        return self.norm.transform(x)


def fused_graph(
    net: nn.Module, make: Fuser, activations: tuple[type[nn.Module], ...], *, wanted: Sequence[int] | None = None
) -> fx.GraphModule | None:
    """A network that computes the same with fewer passes over memory; None: it can't be traced.

    It is compared with the original before it is given out. What is not replaced is the original's own. None has a
    network, too, whose weights are made anew at each call (parametrizations), or whose parts have hooks.

    Args:
        net: without norms whose statistics change: in eval mode, or all frozen.
        make: what it makes is given x, or x and another map to be added: act(norm(conv(x)) + other).
        activations: that it can take in, by their exact type.
        wanted: positions of those of its maps that are read, None: all. In place of another one it gives None, and the
            map's memory is free as soon as the network itself needs it no more.
    """
    if any(has_hooks(module) or is_parametrized(module) for module in net.modules()):
        return None
    try:
        with NETWORKS.alone():
            graph = _Tracer().trace(net)
        if wanted is not None:
            _leave_out_all_but(graph, wanted)
        result = fx.GraphModule(net, graph)
        _remove_identities(result)
        _split_tails(result)
        _fuse(result, make, activations)
        result.training = net.training
        return result if _same(net, result) else None
    except (fx.proxy.TraceError, TypeError, ValueError, RuntimeError, AttributeError, KeyError, AssertionError):
        # timm has a thousand networks, and some decide by the values that flow through them: these stay as they are.
        return None


def plain_convolution(module: nn.Module) -> bool:
    """Whether it is a convolution of weight and bias alone, padded with zeros, and nobody looks at its calls."""
    plain = type(module) is nn.Conv2d and module.padding_mode == "zeros" and not isinstance(module.padding, str)
    return plain and not has_hooks(module)


def in_place(module: nn.Module | None) -> nn.Module | None:
    """A copy that writes over what the convolution has just made."""
    module = copy.copy(module)
    if module is not None and hasattr(module, "inplace"):
        setattr(module, "inplace", True)  # noqa: B010 nn.Module types attributes as tensors
    return module


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return next(m.children(), None) is None or isinstance(m, FrozenNorm | _BatchNorm)


def _leave_out_all_but(graph: fx.Graph, wanted: Sequence[int]) -> None:
    output = graph.output_node()
    if isinstance(output.args[0], list | tuple):
        output.args = ([node if place in wanted else None for place, node in enumerate(output.args[0])],)


def _remove_identities(result: fx.GraphModule) -> None:
    modules = dict(result.named_modules())
    for node in list(result.graph.nodes):
        module = modules[str(node.target)] if node.op == "call_module" else None
        silent = isinstance(module, nn.Dropout) and not (module.training and module.p > 0)
        if silent or isinstance(module, nn.Identity):
            node.replace_all_uses_with(node.args[0])
            result.graph.erase_node(node)


def _split_tails(result: fx.GraphModule) -> None:
    """Batch norms become frozen ones, and the activations that timm puts inside them nodes of their own."""
    for node in list(result.graph.nodes):
        norm = _module(result, node)
        if not isinstance(norm, FrozenNorm | _BatchNorm):
            continue
        frozen = norm if isinstance(norm, FrozenNorm) else FrozenNorm.of(norm)
        name = _add(result, Affine(frozen))
        with result.graph.inserting_before(node):
            new = result.graph.call_module(name, node.args)
        if frozen.tail is not None:
            tail_name = _add(result, frozen.tail)
            with result.graph.inserting_after(new):
                new = result.graph.call_module(tail_name, (new,))
        node.replace_all_uses_with(new)
        result.graph.erase_node(node)


def _fuse(result: fx.GraphModule, make: Fuser, activations: tuple[type[nn.Module], ...]) -> None:
    for node in list(result.graph.nodes):
        convolution = _module(result, node)
        if convolution is None or not (isinstance(convolution, Conv2dSame) or plain_convolution(convolution)):
            continue
        name, chain, other = _chain(result, node, cast(nn.Conv2d, convolution), make, activations)
        with result.graph.inserting_after(chain[-1]):
            new = result.graph.call_module(name, (node.args[0],) if other is None else (node.args[0], other))
        chain[-1].replace_all_uses_with(new)
        for each in reversed(chain):
            result.graph.erase_node(each)
    result.graph.lint()
    result.delete_all_unused_submodules()
    result.recompile()


def _chain(
    result: fx.GraphModule, node: fx.Node, convolution: nn.Conv2d, make: Fuser, activations: tuple[type[nn.Module], ...]
) -> tuple[str, list[fx.Node], fx.Node | None]:
    """The new module's name, the nodes that it stands for, and the one whose map it adds."""
    chain, other = [node], None
    norm = _module(result, _only_user(node))
    if isinstance(norm, Affine):
        chain.append(cast(fx.Node, _only_user(node)))
    user = _only_user(chain[-1])
    if user is not None and _is_sum(user):
        first, second = cast("tuple[fx.Node, fx.Node]", user.args[:2])
        other = second if first is chain[-1] else first
        chain.append(user)
        user = _only_user(user)
    activation = _activation(result, user, activations)
    if activation is not None and user is not None:
        chain.append(user)
    fixed = norm.norm if isinstance(norm, Affine) else None
    same = isinstance(convolution, Conv2dSame)
    return _add(result, make(convolution, norm=fixed, activation=activation, same=same)), chain, other


def _is_sum(node: fx.Node) -> bool:
    """A sum of two different maps."""
    if node.op != "call_function" or node.target not in _SUMS or node.kwargs or len(node.args) != 2:
        return False
    return all(isinstance(each, fx.Node) for each in node.args) and node.args[0] is not node.args[1]


def _activation(result: fx.GraphModule, node: fx.Node | None, known: tuple[type[nn.Module], ...]) -> nn.Module | None:
    if node is None:
        return None
    module = _module(result, node)
    if type(module) in known:
        return in_place(module)
    if node.op == "call_function" and node.target in (functional.relu, torch.relu):
        return nn.ReLU(inplace=True)
    return None


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
    with NETWORKS.together(), torch.autocast(device.type, enabled=False):
        return all(_same_maps(net, result, size, device) for size in _PROBES)


def _same_maps(net: nn.Module, result: nn.Module, size: tuple[int, int], device: torch.device) -> bool:
    random = torch.Generator().manual_seed(0)
    pixels = torch.randn(2, 3, *size, generator=random).to(device)
    pairs = zip(net(pixels), result(pixels), strict=True)
    return all(got is None or _close(wanted, got) for wanted, got in pairs)


def _close(wanted: Tensor, got: Tensor) -> bool:
    if wanted.shape != got.shape:
        return False
    return bool((wanted - got).abs().max() <= 1e-4 * wanted.abs().max().clamp(min=1e-6))
