"""The machine around a run: device and processes, precision, randomness, and Ctrl-C."""

from __future__ import annotations

import torch

from fpn.runtime.device import has_fast_bf16
from fpn.training.config import TrainConfig


def choose_precision(config: TrainConfig, device: torch.device) -> str:
    """ "bf16" or "float32": as asked, or bf16 where the chip multiplies it faster than float32."""
    if config.precision != "auto":
        return config.precision
    return "bf16" if has_fast_bf16(device) else "float32"


def choose_layout(config: TrainConfig, device: torch.device) -> torch.memory_format | None:
    """NHWC as asked, or where it is faster; None: maps stay as they are."""
    wanted = config.channels_last
    if wanted is None:
        wanted = device.type != "cpu" or choose_precision(config, device) == "bf16"
    return torch.channels_last if wanted else None
