from __future__ import annotations

import copy
import pickle
import shutil
import threading
import weakref

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch._dynamo.exc import TorchDynamoException
from torch.fx import Tracer
from torch.nn.utils.parametrizations import spectral_norm

import fpn
from fpn.detectors import TwoStageDetector
from fpn.errors import ConfigError
from fpn.features import fused_graph
from fpn.features.backbones.backbone import Backbone
from fpn.features.frozen import FrozenNorm
from fpn.inference.folding import fold_sequences, folded
from fpn.inference.fused_convolution import FusedConvolution
from fpn.inference.optimize import optimize
from fpn.ops.onednn_convolution import has_onednn
from fpn.structures import Detections, ImageBatch


def _image(height: int, width: int, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.BILINEAR)


def _batch() -> ImageBatch:
    return ImageBatch(torch.zeros(1, 3, 64, 64), torch.tensor([[64, 64]]))


def _same(found: Detections, other: Detections) -> None:
    assert len(found) > 0
    assert found.labels.tolist() == other.labels.tolist()
    torch.testing.assert_close(found.scores, other.scores, rtol=0, atol=1e-4)
    torch.testing.assert_close(found.boxes / 200, other.boxes / 200, rtol=0, atol=1e-4)


def _stir_norms(module: nn.Module) -> None:
    """Fresh norms do nothing; make them do something."""
    random = torch.Generator().manual_seed(0)
    for part in module.modules():
        if isinstance(part, FrozenNorm):
            part.running_mean.normal_(0, 0.1, generator=random)
            part.running_var.uniform_(0.5, 1.5, generator=random)
            part.bias.normal_(0, 0.1, generator=random)


@pytest.fixture
def stirred(small: TwoStageDetector) -> TwoStageDetector:
    stirred = copy.deepcopy(small)
    _stir_norms(stirred)
    return stirred


def test_float32_detections_are_the_same(stirred) -> None:
    images = [_image(64, 96), _image(128, 100, seed=1)]
    fast = optimize(stirred)
    for found, wanted in zip(fast.predict(images), stirred.predict(images), strict=True):
        _same(found, wanted)
    for _ in range(2):  # weights are in oneDNN's order then
        fast.predict(images[:1])
    for twin in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        _same(twin.predict(images[:1])[0], stirred.predict(images[:1])[0])


def test_wide_3x3_convolutions_take_fewer_multiplications_and_give_the_same() -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(128, 128, 3, padding=1)
    fused = FusedConvolution(convolution, activation=nn.ReLU())
    fused.prepare()
    x = torch.randn(1, 128, 32, 40)
    assert fused.transformed is not None
    torch.testing.assert_close(fused(x), convolution(x).relu(), rtol=0, atol=2e-5)
    few = torch.randn(1, 128, 3, 4)  # too few tiles: the plain way
    torch.testing.assert_close(fused(few), convolution(few).relu(), rtol=0, atol=2e-5)


def test_weights_of_winograds_form_take_no_more_than_all_others_those_of_heads_first() -> None:
    detector = fpn.retinanet(backbone="resnet50", weights=None, classes=["thing"]).eval()
    fast = optimize(detector)
    plain = sum(each.nbytes for each in (*fast.parameters(), *fast.buffers()))
    parts = {name: part for name, part in fast.named_modules() if isinstance(part, FusedConvolution)}
    moved = {name: part.transformed.nbytes for name, part in parts.items() if part.transformed is not None}
    assert 0.8 * plain < sum(moved.values()) <= plain
    assert sum("smooths" in name for name in moved) == 3
    assert sum("tower" in name for name in moved) == 8


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0", "mobilenetv3_small_100"])
def test_a_folded_path_has_no_norms_and_the_same_maps(name: str) -> None:
    backbone = Backbone(name).eval()
    _stir_norms(backbone)
    net = folded(backbone.net)
    assert net is not None
    assert not any(isinstance(part, FrozenNorm) for part in net.modules())
    for part in net.modules():
        if isinstance(part, FusedConvolution):
            part.prepare()
    pixels = torch.randn(1, 3, 70, 90, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for got, wanted in zip(net(pixels), backbone.net(pixels), strict=True):
            scale = float(wanted.abs().max())
            torch.testing.assert_close(got / scale, wanted / scale, rtol=0, atol=1e-5)


def test_a_path_that_decides_by_its_values_stays_as_it_is() -> None:
    class Undecided(nn.Module):
        def forward(self, pixels: torch.Tensor) -> list[torch.Tensor]:
            return [pixels if pixels.sum() > 0 else -pixels]

    assert folded(Undecided()) is None


def test_the_original_is_left_alone(stirred) -> None:
    before = {name: value.clone() for name, value in stirred.state_dict().items()}
    optimize(stirred, "bf16")
    assert all(torch.equal(value, before[name]) for name, value in stirred.state_dict().items())


def test_it_shares_no_memory_with_the_original_which_may_be_trained_on(stirred) -> None:
    own, other = (
        {each.untyped_storage().data_ptr() for each in (*part.parameters(), *part.buffers())}
        for part in (optimize(stirred), stirred)
    )
    assert own
    assert not own & other


def test_what_hooks_and_parametrizations_do_to_weights_and_maps_is_kept(small) -> None:
    detector = copy.deepcopy(small)
    spectral_norm(detector.features.backbone.net.blocks[1][0].conv_pw)
    spectral_norm(detector.rpn.shared)
    detector.features.neck.laterals["c4"].register_forward_hook(lambda _part, _given, found: found + 1)
    images = ImageBatch(torch.rand(1, 3, 64, 96), torch.tensor([[64, 96]]))
    (ours,), (plain,) = optimize(detector).detect(images), detector.eval().detect(images)
    torch.testing.assert_close(ours.boxes, plain.boxes, rtol=0, atol=1e-3)
    torch.testing.assert_close(ours.scores, plain.scores, rtol=0, atol=1e-4)


def test_bf16_finds_the_same_objects_with_float32_boxes(stirred) -> None:
    (found,) = optimize(stirred, "bf16").predict([_image(64, 96)])
    (wanted,) = stirred.predict([_image(64, 96)])
    assert found.boxes.dtype == found.scores.dtype == torch.float32
    assert float(found.scores[0]) == pytest.approx(float(wanted.scores[0]), abs=0.05)


def test_auto_is_float32_where_bf16_is_emulated(stirred, monkeypatch) -> None:
    monkeypatch.setattr("fpn.inference.optimize.has_fast_bf16", lambda device: False)
    assert optimize(stirred, "auto").info.precision == "float32"
    monkeypatch.setattr("fpn.inference.optimize.has_fast_bf16", lambda device: True)
    assert optimize(stirred, "auto").info.precision == "bf16"


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_processor_without_fused_convolutions_does_without(stirred, monkeypatch, precision) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("mkldnn_convolution: not on this processor")

    monkeypatch.setattr("fpn.ops.onednn_convolution.convolve_and", refuse)
    has_onednn.cache_clear()
    try:
        quick = optimize(stirred, precision)
        assert not any(part._native for part in quick.modules() if isinstance(part, FusedConvolution))
        assert len(quick.predict([_image(64, 96)])[0]) > 0
    finally:
        has_onednn.cache_clear()


def test_the_method_is_one_short_line(stirred) -> None:
    assert str(optimize(stirred).info) == "float32 on cpu, channels-last, norms folded"


def test_training_and_saving_are_refused_with_the_remedy(stirred, tmp_path) -> None:
    fast = optimize(stirred)
    with pytest.raises(ConfigError, match="Train the original"):
        fast.losses(_batch(), [])
    with pytest.raises(ConfigError, match="Save the original"):
        fpn.save(fast, tmp_path / "m.safetensors")
    with pytest.raises(ConfigError, match="optimized already"):
        optimize(fast)
    with pytest.raises(ConfigError, match=r"turned into float16: .* works in bf16"):
        fast.half()
    assert fast.float() is fast
    assert not list(tmp_path.iterdir())


def test_without_a_compiler_it_says_so_and_works(stirred, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv("CXX", raising=False)
    fast = optimize(stirred, compile=True)
    assert str(fast.info).endswith("; not compiled, because there is no C++ compiler")
    _same(fast.predict([_image(64, 96)])[0], stirred.predict([_image(64, 96)])[0])


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated")  # torch 2.10, of itself
def test_compiling_that_fails_is_done_without(stirred, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: name)
    fast = optimize(stirred, compile=True)

    def fail(pixels: torch.Tensor) -> None:
        raise TorchDynamoException("no such header")

    fast.inner.compiled_dense = fail
    _same(fast.predict([_image(64, 96)])[0], stirred.predict([_image(64, 96)])[0])
    assert str(fast.info).endswith("not compiled, because compiling failed (TorchDynamoException)")


def test_what_a_image_shows_does_not_depend_on_its_neighbours(stirred) -> None:
    wide, tall = _image(64, 160), _image(160, 64, seed=1)
    mixed = stirred.predict([wide, tall, wide], batch_size=3)
    _same(mixed[0], stirred.predict([wide])[0])
    _same(mixed[1], stirred.predict([tall])[0])
    _same(mixed[2], mixed[0])


def test_norms_of_necks_and_heads_go_into_the_convolutions_before_them() -> None:
    torch.manual_seed(0)
    sequence = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.SiLU(), nn.Conv2d(4, 2, 1), nn.ReLU())
    sequence[1].running_mean.normal_()
    sequence[1].running_var.uniform_(0.5, 2.0)
    x = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        wanted = sequence.eval()(x)
        fold_sequences(sequence)
        torch.testing.assert_close(sequence(x), wanted)
    names = [type(part).__name__ for part in sequence]
    assert names == ["FusedConvolution", "Identity", "Identity", "FusedConvolution", "Identity"]


def test_norms_that_look_at_the_map_stay_where_they_are() -> None:
    sequence = nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4), nn.ReLU())
    fold_sequences(sequence)
    assert [type(part).__name__ for part in sequence] == ["Conv2d", "GroupNorm", "ReLU"]


def test_optimizing_waits_for_another_thread_that_detects_and_has_it_wait(stirred, monkeypatch) -> None:
    traced, detected = threading.Event(), threading.Event()
    other = threading.Thread(target=lambda: optimize(stirred))
    detect = type(stirred).detect

    def slowly(self, images):
        found = detect(self, images)
        other.start()
        assert not traced.wait(0.3)  # nothing is traced while this one is not done
        detected.set()
        return found

    trace = Tracer.trace

    def note(self, *given, **named):
        traced.set()
        assert detected.is_set()
        return trace(self, *given, **named)

    monkeypatch.setattr(type(stirred), "detect", slowly)
    monkeypatch.setattr(Tracer, "trace", note)
    assert len(stirred.predict([_image(64, 96)])[0]) > 0
    other.join()
    assert traced.is_set()


@pytest.mark.parametrize("work", [lambda _: Backbone("test_efficientnet"), lambda net: fused_graph._same(net, net)])
def test_what_another_thread_builds_or_compares_waits_until_a_network_is_traced(monkeypatch, work) -> None:
    traced, done, trace = threading.Event(), threading.Event(), Tracer.trace
    net = nn.Sequential(nn.Conv2d(3, 8, 1), FrozenNorm(8, eps=1e-5)).eval()

    def wait_and_work() -> None:
        traced.wait()
        work(net)
        done.set()

    def slowly(self, *given, **named):
        traced.set()
        assert not done.wait(0.3)
        return trace(self, *given, **named)

    monkeypatch.setattr(Tracer, "trace", slowly)
    other = threading.Thread(target=wait_and_work)
    other.start()
    assert folded(net) is not None
    other.join()
    assert done.is_set()


@pytest.mark.skipif(not has_onednn(torch.float32), reason="a torch without oneDNN's fused convolutions")
def test_a_weight_is_kept_once_in_the_order_of_the_size_that_comes_and_back_without_a_loss() -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(16, 24, 3, padding=1)
    fused = FusedConvolution(convolution, activation=nn.ReLU())
    fused.prepare()
    before, small, large = fused.weight.clone(), torch.randn(1, 16, 5, 7), torch.randn(1, 16, 20, 30)
    with torch.inference_mode():
        for x, packed in ((small, False), (small, True), (small, True), (large, False), (small, False), (small, True)):
            torch.testing.assert_close(fused(x), convolution(x).relu(), rtol=0, atol=1e-5)
            assert fused.weight.is_mkldnn is packed
        assert torch.equal(fused.weight.to_dense(), before)


def test_a_sum_is_written_over_a_map_that_nobody_else_needs() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.third, self.fourth = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(4))

        def forward(self, pixels: torch.Tensor) -> list[torch.Tensor]:
            first = self.first(pixels)
            second = self.third(self.second(first)) + first
            third = self.fourth(second) + second
            return [third, third + self.first(self.second(third))]

    torch.manual_seed(0)
    original = Twice().eval()
    net = folded(original)
    assert net is not None
    parts = [part for part in net.modules() if isinstance(part, FusedConvolution)]
    for part in parts:
        part.prepare()
    # The second sum adds what is being convolved, the third what is given out.
    sums = {"third": True, "fourth": False, "first": False}
    for name, over in sums.items():
        kernel = getattr(original, name).weight
        assert [part.over for part in parts if torch.equal(part.weight, kernel)][-1] is over
    pixels = torch.randn(1, 3, 20, 30, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for _ in range(3):
            torch.testing.assert_close(net(pixels), original(pixels), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0"])
def test_a_folded_path_makes_the_maps_that_are_read_and_holds_no_other(name: str) -> None:
    backbone = Backbone(name, out=(3, 4)).eval()
    pixels = torch.randn(1, 3, 70, 90, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = backbone(pixels)
        assert backbone.rewrite(folded)
        made: list[weakref.ref[torch.Tensor]] = []
        held: list[torch.Size] = []

        def look(*_: object) -> None:
            held.extend(map_.shape[2:] for each in made if (map_ := each()) is not None)

        parts = [part for part in backbone.net.modules() if isinstance(part, FusedConvolution)]
        for part in parts:
            part.register_forward_hook(lambda part, args, result: made.append(weakref.ref(result)))
        parts[-1].register_forward_pre_hook(look)
        maps = backbone(pixels)
    assert list(maps) == ["c3", "c4"]
    for level, map_ in maps.items():
        torch.testing.assert_close(map_, wanted[level], rtol=0, atol=1e-4 * float(wanted[level].abs().max()))
    assert len(made) == len(parts)
    assert set(held) == {maps["c3"].shape[2:], maps["c4"].shape[2:]}
