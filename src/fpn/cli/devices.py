"""The `--device` option."""

from __future__ import annotations

import torch

from fpn.errors import ConfigError


def check_device(name: str | None) -> torch.device | None:
    """The device of that name; None stays None.

    Raises:
        ConfigError: no such device, or not on this machine.
    """
    if name is None:
        return None
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        here = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
        raise ConfigError(f"--device {name}: is not usable on this machine. It has: {', '.join(here)}.") from error
    return device
