"""A training step side by side: losses, gradients, clipping and SGD with momentum.

Ours lies in memory as `fpn train` has it (channels-last where that is the faster), torchvision's as its own reference
trains it; both have SGD in torch's fused form, and, on a CPU, a C library that keeps freed memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fpn.errors import FpnError
from fpn.runtime.device import algorithms
from fpn.runtime.memory import keep_freed_memory
from fpn.shapes import Size
from fpn.structures import Targets
from fpn.studies.benchmark.agreement import finite
from fpn.studies.benchmark.images import draw_noise, draw_truth
from fpn.studies.benchmark.torchvision_pair import Pair
from fpn.studies.benchmark.turns import Side, in_turns
from fpn.training.config import TrainConfig
from fpn.training.precision import choose_layout

StepPrecision = Literal["float32", "bf16"]
_MAX_NORM = 10.0


def time_steps(
    pair: Pair, size: Size, *, batch: int, precision: StepPrecision, repeats: int, deterministic: bool = False
) -> dict[str, Side]:
    """Time a step of both sides, in turns; each one's outcome is its loss. Both draw samples at random
    where there are proposals: 512 RoIs an image.

    Args:
        pair: on one device; its weights change.
        size: of the images.
        batch: images a step.
        precision: of both sides' arithmetic.
        repeats: turns.
        deterministic: only algorithms that repeat bit by bit.

    Raises:
        FpnError: a loss is not finite.
    """
    device = pair.ours.device
    if device.type == "cpu":
        keep_freed_memory()
    losses = make_losses(pair, size, batch=batch, precision=precision)
    models = {"torchvision": pair.theirs.train(), "fpn": pair.ours.train()}
    works = {name: make_step(models[name], losses[name]) for name in models}
    with algorithms(deterministic):
        sides = in_turns(works, repeats=repeats, device=device)
    values = [float(side.outcome) for side in sides.values()]
    if not finite(values):
        raise FpnError(f"a training step's loss is not finite: {dict(zip(sides, values, strict=True))}")
    return sides


def make_losses(pair: Pair, size: Size, *, batch: int, precision: StepPrecision) -> dict[str, Callable[[], Tensor]]:
    """Each side's loss of one and the same batch, which holds nothing of the other side.

    Moves ours to the memory layout that `fpn train` chooses.
    """
    ours, model = pair.ours, pair.theirs
    device = ours.device
    layout = choose_layout(TrainConfig(precision=precision), device)
    if layout is not None:
        ours.to(memory_format=layout)
    drawn = [each.to(device) for each in draw_noise(batch, size)]
    targets = [each.to(device) for each in draw_truth(batch, size, ours)]
    theirs = [their_targets(each, pair) for each in targets]
    preprocessor = ours.preprocessor
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preprocessor.config.mean, preprocessor.config.std))
    images = preprocessor.collate([(image.cpu() - mean) / std for image in drawn]).to(device, memory_format=layout)

    def cast() -> torch.autocast:
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")

    def their_loss() -> Tensor:
        with cast():
            terms: dict[str, Tensor] = model(drawn, theirs)
            return torch.stack([term.float() for term in terms.values()]).sum()

    def our_loss() -> Tensor:
        with cast():
            return ours.losses(images, targets).total

    return {"torchvision": their_loss, "fpn": our_loss}


def their_targets(truth: Targets, pair: Pair) -> dict[str, Tensor]:
    """The same objects as torchvision takes them: masks as whole images of zeros and ones."""
    told = {"boxes": truth.boxes, "labels": truth.labels + pair.first_label}
    if truth.masks is not None:
        told["masks"] = truth.masks.dense().to(truth.boxes.device, torch.uint8)
    if truth.keypoints is not None:
        told["keypoints"] = truth.keypoints
    return told


def make_step(model: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], Any]:
    """One step of SGD; it gives the loss."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    # The rate is small: the weights are random, and no step of any turn may leave the numbers' range.
    optimizer = torch.optim.SGD(parameters, lr=1e-6, momentum=0.9, fused=True)

    def step() -> Tensor:
        value = loss()
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, _MAX_NORM)
        optimizer.step()
        return value.detach()

    return step
