"""A training step of Faster R-CNN with a pyramid: ours and torchvision's, in turns, one process.

    python benchmarks/training_step.py [--repeats 5] [--images 4] [--channels 256] [--precision float32|bf16]

`fpn benchmark --parts training`, with two things more: a pyramid and a head of other widths than torchvision's, which
stay at 256 and 1024 as its recipe has it, and bf16 wherever it runs. Both sides get the same images, backbone weights
and optimizer, and sample 512 RoIs an image.
"""

from __future__ import annotations

import argparse
import json

import machine
import torch

from fpn.shapes import Size
from fpn.studies.benchmark.torchvision_pair import build_pair
from fpn.studies.benchmark.training import measure


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--weights", default="offline", help="of the backbone; 'none': random")
    parser.add_argument("--size", type=int, nargs=2, default=(320, 427), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--head-width", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--precision", choices=["float32", "bf16"], default="float32")
    return parser.parse_args()


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    size = Size(*options.size)
    pair = build_pair(
        options.backbone,
        size,
        weights=None if options.weights == "none" else options.weights,
        num_classes=3,
        channels=options.channels,
        head_width=options.head_width,
    )
    sides = measure(pair, size, batch=options.images, precision=options.precision, repeats=options.repeats)
    medians = {name: side.seconds for name, side in sides.items()}
    result = {
        **machine.describe_machine(),
        "command": machine.command(),
        "options": vars(options),
        "seconds_a_step": {name: side.wall for name, side in sides.items()},
        "processor_seconds_a_step": {name: side.busy for name, side in sides.items()},
        "median": medians,
        "ratio": medians["torchvision"] / medians["fpn"],
        "ratio_of_processor_time": sides["torchvision"].busy_seconds / sides["fpn"].busy_seconds,
    }
    print(json.dumps(result, indent=2))
    print(f"fpn is {result['ratio']:.2f}x as fast as torchvision")


if __name__ == "__main__":
    main()
