"""Any timm model as a bottom-up path, and by name also the one transformer that timm does not have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fpn.errors import ConfigError
from fpn.features.backbones.mobilenets import split_stages
from fpn.features.backbones.plain_transformers import is_plain, plain_options
from fpn.features.backbones.resnet_variants import BackboneConfig, adapt_resnet
from fpn.features.backbones.weights import load_weights, network_with_imagenet_weights
from fpn.features.backbones.windowed_transformer import TRANSFORMER, ViTConfig, WindowedTransformer
from fpn.features.blocks import quicken_linear
from fpn.features.extractor import BottomUp, Fold
from fpn.features.frozen import freeze, freeze_norms
from fpn.features.trained_convolution import TrainedForms
from fpn.runtime.turns import NETWORKS
from fpn.structures import Features, Level
from fpn.suggestions import nearest

# Images of these sizes show how a model treats sizes: 65x97 leaves a remainder at every stride.
EVEN, ODD = (64, 96), (65, 97)
_AS_TIMM = BackboneConfig()


class Backbone(BottomUp):
    """A timm model that emits the last map of each wanted stage as c2, c3, ...: level k has stride 2**k.

    Attributes:
        name: of the timm model.
        net: timm's network (`features_only`), with its own names inside.
        frozen_stages: stages that are not trained, counted from the stem.
        pixel_mean: subtracted from RGB in 0..1, as the model's ImageNet weights were trained.
        pixel_std: divided by after that.
    """

    def __init__(
        self,
        name: str,
        *,
        weights: str | Path | None = None,
        out: Sequence[int] = (2, 3, 4, 5),
        frozen_stages: int = 0,
        frozen_norm: bool = True,
        config: BackboneConfig | None = None,
    ) -> None:
        """Build a bottom-up path.

        Args:
            name: of a timm model with maps at several strides, such as "resnet50" or "swin_tiny_patch4_window7_224", or
                of a plain transformer, which has c4 alone (out=(4,)), whatever the size of its patches is.
            weights: "imagenet" (timm's hub), "offline" (the package of the `offline` extra), a file, or None: random.
            out: which levels to emit.
            frozen_stages: how many stages are not trained: 1 is the stem (up to c1), 2 goes up to c2, ..., 0 none.
            frozen_norm: batch norms keep their statistics and affine in training, as detectors with few images a
                batch need. Those of frozen stages always do.
            config: how a ResNet differs from timm's (stride on the 1x1, epsilon, ...).

        Raises:
            ConfigError: no such model, or one without the wanted levels, or not a ResNet where a variant is asked for.
            DataNotFoundError, ModelFileError, MissingExtraError: the weights can't be had.
        """
        super().__init__()
        self.name = name
        self.frozen_stages = frozen_stages
        net, options = _network(name, tuple(out))
        if weights == "imagenet":
            net = network_with_imagenet_weights(name, **options)
        elif weights is not None:
            load_weights(net, name, weights)
        self._channels_last = str(getattr(net, "output_fmt", "NCHW")).endswith("NHWC")
        self._multiple = _size_multiple(net, self._channels_last)
        self._index, levels = _choose_levels(net, name, tuple(out))
        _drop_unused_blocks(net, self._index[-1])
        self.levels: tuple[Level, ...] = levels
        if config is not None:
            self.levels = adapt_resnet(net, self.levels, config, name)
            if config.split_last_stage:
                net, self.levels = split_stages(net, self.levels, name)
                self._index = [0, 1]
        pretrained = timm.get_pretrained_cfg(name)
        self.pixel_mean: tuple[float, float, float] = tuple(pretrained.mean)
        self.pixel_std: tuple[float, float, float] = tuple(pretrained.std)
        if frozen_norm:
            freeze_norms(net)
        freeze(net, _first_stages(net, frozen_stages, name))
        quicken_linear(net)
        self.net = net
        self._trained = TrainedForms(self._index)

    def forward(self, pixels: Float[Tensor, "B 3 H W"]) -> Features:
        """The maps of `levels`, finest first."""
        height, width = pixels.shape[-2:]
        padded = _pad(pixels, self._multiple)
        maps = self._trained.of(self.net, padded)(padded)
        features: Features = {}
        for index, level in zip(self._index, self.levels, strict=True):
            found = maps[index].permute(0, 3, 1, 2) if self._channels_last else maps[index]
            if self._multiple > 1:
                found = found[..., : -(-height // level.stride), : -(-width // level.stride)]
            features[level.name] = found
        return features

    def rewrite(self, change: Fold) -> bool:
        """Replace `net` by what `change` makes of it; see `BottomUp.rewrite`."""
        changed = change(self.net, self._index)
        if changed is None:
            return False
        self.net = changed
        return True


def make_backbone(
    name: str,
    *,
    weights: str | Path | None = None,
    out: Sequence[int] = (2, 3, 4, 5),
    frozen_stages: int = 0,
    frozen_norm: bool = True,
    config: BackboneConfig = _AS_TIMM,
) -> Backbone | WindowedTransformer:
    """What a recipe calls its backbone: a timm model, or "vitdet", whose sizes are section `backbone.vit`.

    Args:
        name, weights, out, frozen_stages, frozen_norm: as `Backbone` takes them.
        config: a dialect's section.

    Raises:
        ConfigError: as `Backbone`, or settings of another backbone than this one.
        DataNotFoundError, ModelFileError, MissingExtraError: the weights can't be had.
    """
    if name == TRANSFORMER:
        if config != BackboneConfig(vit=config.vit):
            raise ConfigError(
                f"backbone {TRANSFORMER!r}: of the settings backbone.* it has vit.* alone, the others are of ResNets. "
                f"Use dialect {TRANSFORMER}."
            )
        return WindowedTransformer(config=config.vit, weights=weights, out=out, frozen_stages=frozen_stages)
    if config.vit != ViTConfig():
        raise ConfigError(f"backbone {name!r}: the settings backbone.vit.* are of backbone {TRANSFORMER} alone")
    return Backbone(name, weights=weights, out=out, frozen_stages=frozen_stages, frozen_norm=frozen_norm, config=config)


@cache
def refuse_unfit_backbone(name: str, out: tuple[int, ...]) -> None:
    """Stop at a backbone that there is not, or that has no such levels. Nothing is kept of it, not even in memory.

    Args:
        name, out: as `make_backbone` takes them.

    Raises:
        ConfigError: as `Backbone`.
    """
    if name != TRANSFORMER:
        with torch.device("meta"):
            _network(name, out)


def _network(name: str, out: tuple[int, ...]) -> tuple[Any, dict[str, Any]]:
    """timm's network with random weights, and the options that make it take any size and emit what is wanted."""
    if not timm.is_model(name.split(".")[0]):
        hint = nearest(name, [*timm.list_models(), TRANSFORMER], count=3) or " See timm.list_models()."
        raise ConfigError(f"backbone {name!r}: timm has no such model.{hint}")
    net, options = _network_of_any_size(name)
    index, _ = _choose_levels(net, name, out)
    if index[-1] + 1 < len(net.feature_info.out_indices):
        # Later stages would cost time, and their unused parameters would stop distributed training.
        options["out_indices"] = tuple(net.feature_info.out_indices[: index[-1] + 1])
        net = _create(name, **options)
    return net, options


def _network_of_any_size(name: str) -> tuple[Any, dict[str, Any]]:
    net = _create(name)
    if _runs(net, EVEN):
        return net, {}
    # Transformers are tied to one size unless told otherwise.
    options: dict[str, Any] = plain_options(net) if is_plain(net) else {"strict_img_size": False}
    try:
        net = _create(name, **options)
    except TypeError:
        net = None
    if net is None or not _runs(net, EVEN):
        raise ConfigError(
            f"backbone {name!r} takes images of one size only, so it can't be a bottom-up path for detection. "
            "Use a convolutional one (resnet50, convnext_tiny, tf_efficientnet_lite0), a Swin transformer, or a plain "
            "one that timm gives any size (vit_*, deit_*, DINOv2, DINOv3, CLIP)."
        )
    return net, options


def _create(name: str, **options: Any) -> Any:
    try:
        return timm.create_model(name, pretrained=False, features_only=True, **options)
    except (RuntimeError, AttributeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"backbone {name!r}: timm can't emit its intermediate maps ({error}). Choose another model."
        ) from error


def _runs(net: nn.Module, size: tuple[int, int]) -> bool:
    try:
        _probe(net, size)
    except (AssertionError, RuntimeError, ValueError):
        return False
    return True


def _probe(net: nn.Module, size: tuple[int, int]) -> list[Tensor]:
    training = net.training
    with NETWORKS.together(), torch.no_grad():  # another thread may optimize a detector meanwhile
        maps: list[Tensor] = net.eval()(torch.zeros(1, 3, *size))
    net.train(training)
    return maps


def _size_multiple(net: Any, channels_last: bool) -> int:
    """1 if every map of an odd-sized image has ceil(size / stride) cells; else what images must be padded to."""
    strides = net.feature_info.reduction()
    if _runs(net, ODD):
        shapes = [tuple(m.shape[1:3] if channels_last else m.shape[2:]) for m in _probe(net, ODD)]
        if shapes == [(-(-ODD[0] // s), -(-ODD[1] // s)) for s in strides]:
            return 1
    return int(max(strides))


def _choose_levels(net: Any, name: str, out: tuple[int, ...]) -> tuple[list[int], tuple[Level, ...]]:
    """Positions of the wanted levels among what the network emits: the last map of each stride."""
    info = net.feature_info
    last = {stride: index for index, stride in enumerate(info.reduction())}
    available = [round(math.log2(stride)) for stride in last]
    if not out or not set(out) <= set(available) or tuple(sorted(set(out))) != out:
        remedy = "Ask for some of them, finest first."
        if is_plain(net):
            remedy = "A plain transformer has no other: use neck simple_pyramid, which makes all levels of it."
        raise ConfigError(
            f"backbone {name!r} has levels {', '.join(f'c{k}' for k in available)}, "
            f"asked for {', '.join(f'c{k}' for k in out) or 'none'}. {remedy}"
        )
    index = [last[2**number] for number in out]
    channels = info.channels()
    levels = tuple(Level(f"c{number}", channels[last[2**number]], 2**number, number) for number in out)
    return index, levels


def _drop_unused_blocks(net: Any, last: int) -> None:
    """timm's EfficientNets keep all blocks, whatever is asked for; cut those after the last map that is used."""
    kind, _, number = net.feature_info.module_name()[last].partition(".")
    if kind == "blocks" and number.isdigit() and isinstance(getattr(net, "blocks", None), nn.Sequential):
        net.blocks = net.blocks[: int(number) + 1]


def _first_stages(net: Any, count: int, name: str) -> list[nn.Module]:
    """The modules that make level `count` (1: the stem) and everything before them."""
    if count <= 0:
        return []
    ordered = [(path.replace(".", "_"), module) for path, module in net.named_modules() if path]
    stages = _stage_modules(net)
    if count > max(stages):
        raise ConfigError(f"backbone {name!r} has {max(stages)} stages, frozen_stages is {count}")
    # A model whose first map is c2 has a stem all the same: what comes before that map's stage.
    before = count not in stages
    stage = stages[min(stages)] if before else stages[count]
    places = [place for place, (path, _) in enumerate(ordered) if _inside(path, stage)]
    if not places:
        raise ConfigError(
            f"backbone {name!r}: timm does not say which of its modules make stage {count}, so they can't be frozen. "
            "Use frozen_stages=0."
        )
    return [module for _, module in ordered[: places[0] if before else places[-1] + 1]]


def _stage_modules(net: Any) -> dict[int, str]:
    info = net.feature_info
    if is_plain(net):
        return {4: "blocks"}
    pairs = zip(info.reduction(), info.module_name(), strict=True)
    return {round(math.log2(stride)): module.replace(".", "_") for stride, module in pairs}


def _inside(path: str, stage: str) -> bool:
    path = path.removeprefix("model_")
    return path == stage or path.startswith(f"{stage}_")


def _pad(pixels: Tensor, multiple: int) -> Tensor:
    height, width = pixels.shape[-2:]
    below, right = -height % multiple, -width % multiple
    return functional.pad(pixels, (0, right, 0, below)) if below or right else pixels
