from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.parametrize import remove_parametrizations

from fpn.features.backbones.backbone import Backbone
from fpn.features.backbones.resnet_variants import BackboneConfig
from fpn.features.frozen import FrozenNorm
from fpn.features.trained_convolution import TrainedConvolution
from fpn.ops.onednn_convolution import has_onednn

pytestmark = pytest.mark.skipif(not has_onednn(torch.float32), reason="a torch without oneDNN's fused convolutions")


def _backbone(name: str = "resnet18", **options: object) -> Backbone:
    torch.manual_seed(0)
    backbone = Backbone(name, out=(2, 3, 4), **options).train()
    for part in backbone.modules():
        if isinstance(part, FrozenNorm):  # a fresh one does nothing
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
            part.weight.uniform_(0.5, 1.5)
            part.bias.normal_(0, 0.1)
    return backbone.to(memory_format=torch.channels_last)


def _pixels(batch: int = 2) -> Tensor:
    pixels = torch.randn(batch, 3, 65, 97, generator=torch.Generator().manual_seed(0))
    return pixels.contiguous(memory_format=torch.channels_last)


def _plainly(backbone: Backbone, pixels: Tensor) -> list[Tensor]:
    maps = backbone.net(pixels)
    return [maps[k] for k in backbone._index]


def _gradients(backbone: Backbone, maps: list[Tensor]) -> dict[str, Tensor]:
    backbone.zero_grad()
    torch.stack([found.float().square().mean() for found in maps]).sum().backward()
    return {name: part.grad for name, part in backbone.named_parameters() if part.grad is not None}


def _fused(net: nn.Module | None) -> list[TrainedConvolution]:
    return [] if net is None else [part for part in net.modules() if isinstance(part, TrainedConvolution)]


def _form(backbone: Backbone, pixels: Tensor) -> nn.Module:
    return backbone._trained.of(backbone.net, pixels)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet26", {"frozen_stages": 2}),
        ("resnet26", {"config": BackboneConfig(conv_bias=True, stride_on="1x1")}),
        ("tf_efficientnet_lite0", {"frozen_stages": 1}),
        ("mobilenetv3_small_100", {}),
    ],
)
@pytest.mark.parametrize("threads_choose", [True, False])
def test_maps_and_gradients_are_those_of_the_network(name, options, threads_choose, monkeypatch) -> None:
    if not threads_choose:
        monkeypatch.setattr("fpn.features.trained_convolution.onednn_is_faster", lambda: False)
    backbone, pixels = _backbone(name, **options), _pixels()
    found, wanted = list(backbone(pixels).values()), _plainly(backbone, pixels)
    assert len(_fused(backbone._trained._form)) > 10
    read = [map_ is not None for map_ in _form(backbone, pixels)(pixels)]
    assert read == [place in backbone._index for place in range(len(read))]  # no other is held
    for got, same in zip(found, wanted, strict=True):
        torch.testing.assert_close(got, same, rtol=0, atol=1e-5 * float(same.detach().abs().max()))
    ours, theirs = _gradients(backbone, found), _gradients(backbone, wanted)
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        assert float((value - theirs[key]).norm()) <= 5e-3 * float(theirs[key].norm()), key
        assert value.stride() == dict(backbone.named_parameters())[key].stride()


def test_in_bf16_it_rounds_no_more_than_the_network() -> None:
    backbone, pixels = _backbone(), _pixels()
    exact = _gradients(backbone, _plainly(backbone, pixels))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = _gradients(backbone, list(backbone(pixels).values()))
        theirs = _gradients(backbone, _plainly(backbone, pixels))
    assert _fused(backbone._trained._form)
    for key, value in exact.items():
        assert ours[key].dtype == torch.float32
        far = float((theirs[key] - value).norm())
        assert float((ours[key] - value).norm()) <= 1.3 * far, key


def test_weights_and_their_names_stay_where_they_are() -> None:
    backbone, pixels = _backbone(), _pixels()
    before = list(backbone.state_dict())
    first = backbone(pixels)["c4"]
    assert list(backbone.state_dict()) == before
    form = backbone._trained._form
    with torch.no_grad():
        backbone.net.layer3[0].conv1.weight *= 2
        backbone.net.layer3[0].bn1.bias += 1
    assert not torch.allclose(backbone(pixels)["c4"], first)
    torch.testing.assert_close(backbone(pixels)["c4"], _plainly(backbone, pixels)[-1], rtol=0, atol=1e-3)
    assert backbone._trained._form is form
    other = copy.deepcopy(backbone)
    assert other._trained._form is None
    torch.testing.assert_close(other(pixels)["c4"], backbone(pixels)["c4"], rtol=0, atol=0)


def test_hooks_on_weights_are_called_with_the_same_gradients() -> None:
    backbone, pixels = _backbone(), _pixels()
    weights = [backbone.net.conv1.weight, backbone.net.layer3[0].conv2.weight]
    seen: list[Tensor] = []
    weights[0].register_hook(lambda grad: 3 * grad)
    weights[1].register_post_accumulate_grad_hook(lambda weight: seen.append(weight.grad.clone()))
    ours, theirs = (
        _gradients(backbone, maps) for maps in (list(backbone(pixels).values()), _plainly(backbone, pixels))
    )
    assert _fused(backbone._trained._form)
    for key, value in ours.items():
        assert float((value - theirs[key]).norm()) <= 5e-3 * float(theirs[key].norm()), key
    assert float((seen[0] - seen[1]).norm()) <= 5e-3 * float(seen[1].norm())


def test_weights_that_are_made_anew_at_each_call_stay_with_their_parts() -> None:
    backbone, pixels = _backbone(), _pixels()
    assert _form(backbone, pixels) is not backbone.net
    spectral_norm(backbone.net.layer3[0].conv1)  # which counts its calls in its buffers
    assert _form(backbone, pixels) is backbone.net
    remove_parametrizations(backbone.net.layer3[0].conv1, "weight")
    assert _form(backbone, pixels) is not backbone.net


def test_a_part_that_is_replaced_is_seen() -> None:
    backbone, pixels = _backbone(), _pixels()
    backbone(pixels)
    backbone.net.layer3[0].bn1 = FrozenNorm(256, eps=3.0)
    torch.testing.assert_close(backbone(pixels)["c4"], _plainly(backbone, pixels)[-1], rtol=0, atol=1e-3)


def test_the_network_itself_runs_where_the_form_would_not_help() -> None:
    backbone, pixels = _backbone(), _pixels()
    assert _form(backbone, pixels) is not backbone.net
    assert _form(backbone, pixels.contiguous()) is backbone.net
    assert _form(backbone, pixels.double()) is backbone.net
    with torch.no_grad():
        assert _form(backbone, pixels) is backbone.net
    seen: list[object] = []
    for register in ("register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook"):
        fresh = _backbone()
        handle = getattr(fresh.net.layer1, register)(lambda *_: seen.append(None))
        assert _form(fresh, pixels) is fresh.net
        assert not seen  # a form that is tried out would call it
        handle.remove()
        assert _form(fresh, pixels) is not fresh.net
    backbone.eval()
    assert _form(backbone, pixels) is backbone.net
    learning = _backbone(frozen_norm=False, frozen_stages=2)
    assert _form(learning, pixels) is learning.net
