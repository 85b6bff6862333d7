"""A run: its parts, its position, one step of it, and its state as tensors and numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import islice

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from fpn.data.loading.batch import LabelledBatch
from fpn.data.loading.loader import Loader
from fpn.detectors import Detector
from fpn.errors import ModelFileError
from fpn.structures import ImageBatch, LossTerms, Targets
from fpn.training.checkpoint import Checkpoint
from fpn.training.config import TrainConfig
from fpn.training.distributed import Processes
from fpn.training.loss_monitor import LossWatch, Meter, StepValues
from fpn.training.optimization import Average, RateOfStep, clip_gradients, set_rate
from fpn.training.optimizer_state import capture_optimizer, restore_optimizer
from fpn.training.precision import choose_layout
from fpn.training.seeding import image_generators, seed_step


class LossModule(nn.Module):
    """What DDP wraps: its forward is the detector's `losses` in the run's precision."""

    def __init__(self, detector: Detector, *, bf16: bool) -> None:
        super().__init__()
        self.detector = detector
        self.bf16 = bf16

    def forward(
        self, images: ImageBatch, targets: Sequence[Targets], generators: Sequence[torch.Generator]
    ) -> LossTerms:
        """See `Detector.losses`."""
        with torch.autocast(images.pixels.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            return self.detector.losses(images, targets, generator=generators)


@dataclass
class Position:
    """How far a run is.

    Attributes:
        step: optimizer steps done.
        epoch: epochs done, validation included.
        batch: batches of the current epoch done.
        best_metric: what says which weights are best.
        best_value: its best value in a validation so far, or None.
        best_epoch: after which epoch that was; 0: none yet.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    best_metric: str = "ap"
    best_value: float | None = None
    best_epoch: int = 0


@dataclass(kw_only=True)
class Run:
    """All that a training loop needs, built before its first step.

    Attributes:
        processes: this one and the others.
        module: `detector` inside `LossModule`, in DDP where several processes train.
        average: averaged weights, or None.
        outside: for each opening that decides the result the name of what the caller brought for it, or None.
        total: optimizer steps of the whole run.
    """

    config: TrainConfig
    accelerator: Accelerator
    processes: Processes
    detector: Detector
    module: nn.Module
    loader: Loader
    optimizer: torch.optim.Optimizer
    schedule: RateOfStep
    average: Average | None
    watch: LossWatch
    total: int
    outside: Mapping[str, str | None]
    position: Position = field(default_factory=Position)
    meter: Meter = field(default_factory=Meter)

    @property
    def epochs(self) -> int:
        """Epochs that the run begins."""
        return -(-self.total // steps_an_epoch(len(self.loader), self.config.accumulate))

    @property
    def done(self) -> bool:
        """No step is left, or no hope that more of them help."""
        return self.position.step >= self.total or self.given_up

    @property
    def given_up(self) -> bool:
        """As many validations in a row as `patience` says were not better than the best one before them."""
        position, config = self.position, self.config
        if not config.patience or position.best_epoch == 0 or position.batch > 0:
            return False
        return (position.epoch - position.best_epoch) // config.validate_every >= config.patience

    @property
    def finished(self) -> bool:
        """No step is left, and the last epoch is closed: validated and saved."""
        return self.done and self.position.batch == 0

    @property
    def epoch_done(self) -> bool:
        """No batch of the current epoch is left."""
        return self.position.batch >= len(self.loader)

    def averaged(self) -> AbstractContextManager[None]:
        """Inside the `with`, the detector has its averaged weights, if there are any."""
        return nullcontext() if self.average is None else self.average.applied()

    def groups(self) -> Iterator[list[LabelledBatch]]:
        """The rest of the current epoch: the batches of one optimizer step after another."""
        if self.done:
            return
        self.loader.set_epoch(self.position.epoch, skip=self.position.batch)
        batches = iter(self.loader)
        while group := list(islice(batches, self.config.accumulate)):
            yield group

    def take_step(self, group: list[LabelledBatch]) -> None:
        """Forward, backward, look, step, average: position moves on by one step.

        Raises:
            TrainingError: a loss or gradient is not finite.
        """
        step = self.position.step
        seed_step(self.config.seed, step, self.processes.rank)
        set_rate(self.optimizer, self.schedule.rate(step))
        losses = [
            self._backward(batch, share=1 / len(group), last=number == len(group))
            for number, batch in enumerate(group, start=1)
        ]
        values = StepValues.of(losses, clip_gradients(self.optimizer, self.config.clip_norm))
        self.watch.add(step + 1, values, [index for batch in group for index in batch.indices])
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(step)
        self.meter.add(values)
        self.position.step += 1
        self.position.batch += len(group)

    def _backward(self, batch: LabelledBatch, *, share: float, last: bool) -> LossTerms:
        device = self.accelerator.device
        generators = image_generators(self.config.seed, self.position.step, batch.indices, device)
        images = self._pad_alike(batch.images).to(device, memory_format=choose_layout(self.config, device))
        targets = [each.to(device) for each in batch.targets]
        # Gradients of several batches are added up before processes exchange them, once a step.
        with nullcontext() if last else self.accelerator.no_sync(self.module):
            losses = self.processes.weigh(self.module(images, targets, generators), len(targets))
            (losses.total * share).backward()  # type: ignore[no-untyped-call]
        return losses

    def _pad_alike(self, images: ImageBatch) -> ImageBatch:
        """Pad to the largest image of all processes, as one process with all of them would.

        Anchors in the padding take part in sampling, so that a step would otherwise depend on who has which image. No
        time is lost: processes wait for the one with the largest image anyway.
        """
        own = images.padded_size
        height, width = self.processes.largest(*own)
        if (height, width) == own:
            return images
        unpadded = [pixels[:, :h, :w] for pixels, (h, w) in zip(images.pixels, images.sizes.tolist(), strict=True)]
        # Collating knows what padding looks like; the empty image makes the size.
        padded = self.detector.preprocessor.collate([*unpadded, images.pixels.new_zeros(3, height, width)])
        return replace(images, pixels=padded.pixels[:-1])


def steps_an_epoch(batches: int, accumulate: int) -> int:
    """Optimizer steps in an epoch of so many batches; the last step may hold fewer of them."""
    return -(-batches // accumulate)


def capture(run: Run, log_bytes: int, meters: Sequence[Tensor | None]) -> Checkpoint:
    """Everything that going on bit by bit needs. Randomness needs nothing: it is a function of the step.

    Args:
        run: in the first process; in the others the same is known but for their meters.
        log_bytes: length of `metrics.jsonl`.
        meters: each process's sums of the log interval that has begun.
    """
    tensors = {f"model/{name}": tensor for name, tensor in run.detector.state_dict().items()}
    if run.average is not None:
        tensors |= {f"average/{name}": tensor for name, tensor in run.average.weights.items()}
    state, rest = capture_optimizer(run.optimizer, from_outside=run.outside.get("optimizer") is not None)
    tensors |= {f"optimizer/{name}": tensor for name, tensor in state.items()}
    begun = [sums for sums in meters if sums is not None]
    if begun:
        tensors["meter"] = torch.stack(begun)
    progress = {**asdict(run.position), "meter_steps": run.meter.steps, "log_bytes": log_bytes, "optimizer": rest}
    return Checkpoint(tensors, progress)


def restore(run: Run, checkpoint: Checkpoint) -> None:
    """Put a run, freshly built with the same settings, where `capture` was called.

    Raises:
        ConfigError: the state is another optimizer's.
        ModelFileError: the weights are another detector's.
    """
    parts = _by_part(checkpoint.tensors)
    device = run.accelerator.device
    try:
        run.detector.load_state_dict(parts["model"])
        if run.average is not None:
            run.average.load(parts["average"])
    except (KeyError, RuntimeError) as error:
        raise ModelFileError(f"the checkpoint does not fit the detector: {error}") from error
    restore_optimizer(run.optimizer, parts.get("optimizer", {}), checkpoint.progress["optimizer"])
    names = [each.name for each in fields(Position)]
    position = Position(**{name: checkpoint.progress[name] for name in names})
    if position.best_metric != run.config.best:  # an allowed change: values of two metrics can't be compared
        position = replace(position, best_metric=run.config.best, best_value=None, best_epoch=0)
    run.position = position
    meters = checkpoint.tensors.get("meter")
    run.meter.load(checkpoint.progress["meter_steps"], None if meters is None else _own_row(run, meters).to(device))


def _own_row(run: Run, meters: Tensor) -> Tensor:
    """This process's part of what all have measured; where they are more or fewer than then, a mean of it."""
    return meters[run.processes.rank] if len(meters) == run.processes.count else meters.mean(0)


def _by_part(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        part, _, rest = name.partition("/")
        parts.setdefault(part, {})[rest] = tensor
    return parts
