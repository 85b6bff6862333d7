"""A training step of Faster R-CNN on EfficientNet-Lite0 with a pyramid: ours and torchvision's, in turns, one process.

Both sides get the same pictures, backbone weights and optimizer, and sample 512 RoIs a picture. Usage:

    python benchmarks/training_step.py [--repeats 5] [--pictures 4] [--channels 256] [--precision float32|bf16]

`--channels` is the width of our pyramid; torchvision's stays at 256, as its recipe has it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import OrderedDict
from collections.abc import Callable

import machine
import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

import fpn
from fpn.features.backbone import Backbone
from fpn.structures import ImageBatch, Targets

HEIGHT, WIDTH = 320, 427


class TheirBackbone(nn.Module):
    """The same bottom-up path under torchvision's pyramid."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Backbone("tf_efficientnet_lite0", weights="offline", frozen_stages=2)
        channels = [level.channels for level in self.body.levels]
        self.fpn = FeaturePyramidNetwork(channels, 256, extra_blocks=LastLevelMaxPool())
        self.out_channels = 256

    def forward(self, pixels: Tensor) -> OrderedDict[str, Tensor]:
        maps = self.body(pixels).values()
        return self.fpn(OrderedDict((str(index), value) for index, value in enumerate(maps)))


def their_model() -> FasterRCNN:
    return FasterRCNN(
        TheirBackbone(),
        num_classes=4,
        min_size=HEIGHT,
        max_size=533,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
        rpn_anchor_generator=AnchorGenerator(((32,), (64,), (128,), (256,), (512,)), ((0.5, 1.0, 2.0),) * 5),
        box_roi_pool=MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2),
    ).train()


def our_model(channels: int, head_width: int) -> fpn.detectors.FasterRCNN:
    return fpn.faster_rcnn(
        backbone="tf_efficientnet_lite0",
        weights="offline",
        classes=["a", "b", "c"],
        short_side=HEIGHT,
        pyramid_channels=channels,
        output_channels=channels,
        head_width=head_width,
    ).train()


def pictures(count: int) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Noise with a dozen boxes each, as a blood smear has."""
    generator = torch.Generator().manual_seed(0)
    pixels = [torch.rand(3, HEIGHT, WIDTH, generator=generator) for _ in range(count)]
    boxes, labels = [], []
    for _ in range(count):
        sides = torch.rand(12, 2, generator=generator) * 80 + 20
        corners = torch.rand(12, 2, generator=generator) * (torch.tensor([WIDTH, HEIGHT]) - sides)
        boxes.append(torch.cat([corners, corners + sides], dim=1))
        labels.append(torch.randint(0, 3, (12,), generator=generator))
    return pixels, boxes, labels


def step(parameters: list[nn.Parameter], loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer) -> float:
    started = time.perf_counter()
    value = loss()
    optimizer.zero_grad()
    value.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 10.0)
    optimizer.step()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=4)
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--head-width", type=int, default=1024)
    parser.add_argument("--precision", choices=["float32", "bf16"], default="float32")
    options = parser.parse_args()
    torch.manual_seed(0)
    pixels, boxes, labels = pictures(options.pictures)
    theirs, ours = their_model(), our_model(options.channels, options.head_width)
    their_targets = [{"boxes": b, "labels": k + 1} for b, k in zip(boxes, labels, strict=True)]
    images: ImageBatch = ours.preprocessor.collate([(p - 0.5) / 0.5 for p in pixels])
    our_targets = [Targets(b, k) for b, k in zip(boxes, labels, strict=True)]
    cast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=options.precision == "bf16")

    def their_loss() -> Tensor:
        with cast:
            return sum(theirs(pixels, their_targets).values())

    def our_loss() -> Tensor:
        with cast:
            return ours.losses(images, our_targets).total

    sides = {}
    for name, model, loss in (("torchvision", theirs, their_loss), ("fpn", ours, our_loss)):
        parameters = [p for p in model.parameters() if p.requires_grad]
        sides[name] = (parameters, loss, torch.optim.SGD(parameters, lr=1e-4, momentum=0.9))
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(options.repeats + 1):
        for name, side in sides.items():
            took = step(*side)
            if repeat > 0:
                seconds[name].append(took)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    result = {
        **machine.describe(),
        "command": machine.command(),
        "options": vars(options),
        "seconds_a_step": seconds,
        "median": medians,
        "ratio": medians["torchvision"] / medians["fpn"],
    }
    print(json.dumps(result, indent=2))
    print(f"fpn is {result['ratio']:.2f}x as fast as torchvision")


if __name__ == "__main__":
    main()
