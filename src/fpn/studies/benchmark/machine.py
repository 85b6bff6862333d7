"""Where and when a figure was measured, and how fast that machine multiplies matrices."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path

import torch
import torchvision

from fpn.runtime.cores import usable_cores
from fpn.studies.benchmark.turns import in_turns

# Large enough that the rate is that of the arithmetic: smaller ones measure the cost of the call.
_SIDES = {"cpu": 2048, "cuda": 8192}


def describe_machine(device: torch.device | None = None) -> dict[str, object]:
    """Date, hardware and versions."""
    about: dict[str, object] = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "processor": processor(),
        "cores": usable_cores(),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
    }
    if hasattr(os, "getloadavg"):
        about["load"] = round(os.getloadavg()[0], 1)
    if device is not None and device.type == "cuda":
        about |= {"gpu": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
    return about


def processor() -> str:
    """The processor's name, as the system gives it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def matmul_rates(device: torch.device, *, side: int | None = None, repeats: int = 3) -> dict[str, float]:
    """GFLOP/s of a square matrix product, in float32 as torch is set to compute it and in bf16."""
    side = side or _SIDES.get(device.type, 2048)
    rates = {}
    for name, dtype in (("float32", torch.float32), ("bf16", torch.bfloat16)):
        # Where bf16 is emulated it is 50 times slower than float32, which a quarter of the side shows as well.
        shorter = side // 4 if name == "bf16" and device.type == "cpu" else side
        matrix = torch.randn(shorter, shorter, device=device).to(dtype)
        timed = in_turns({name: lambda m=matrix: m @ m}, repeats=repeats, device=device)[name]  # type: ignore[misc]
        rates[name] = 2 * shorter**3 / timed.seconds / 1e9
    return rates
