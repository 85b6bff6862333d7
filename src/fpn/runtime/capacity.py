"""What the machine at hand has: its device, cores and free memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from fpn.runtime.cores import usable_cores

_GIB = 2**30
# What is taken to be free where the system does not say.
_UNKNOWN_GIB = 8.0


@dataclass(frozen=True)
class Capacity:
    """What a device can hold.

    Attributes:
        kind: "cpu", "cuda", "mps", ...
        name: for people.
        cores: of the CPU that this process may use.
        free: memory of the device that is free, GiB.
    """

    kind: str
    name: str
    cores: int
    free: float

    def __str__(self) -> str:
        return f"{self.name}, {self.cores} CPU cores, {self.free:.0f} GiB of memory free"


def find_capacity(*, cpu: bool = False) -> Capacity:
    """The device that training would use.

    Args:
        cpu: whether it has to be the CPU.
    """
    cores = usable_cores()
    device = None if cpu else torch.accelerator.current_accelerator(check_available=True)
    if device is None:
        return Capacity("cpu", "CPU", cores, _free_of_cpu())
    if device.type == "cuda":
        return Capacity("cuda", torch.cuda.get_device_name(), cores, torch.cuda.mem_get_info()[0] / _GIB)
    return Capacity(device.type, device.type.upper(), cores, _UNKNOWN_GIB)


def _free_of_cpu() -> float:
    """Of the machine, and of the container where there is a limit."""
    free = [_UNKNOWN_GIB]
    lines = _read(Path("/proc/meminfo")).splitlines()
    free[:0] = [int(line.split()[1]) * 1024 / _GIB for line in lines if line.startswith("MemAvailable")]
    limit, used = (_read(Path("/sys/fs/cgroup") / name).strip() for name in ("memory.max", "memory.current"))
    limited = [(int(limit) - int(used)) / _GIB] if limit.isdigit() and used.isdigit() else []
    return min([free[0], *limited])


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
