"""What the device at hand can do."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def has_fast_bf16(device: torch.device) -> bool:
    """Whether matrices of bfloat16 are multiplied in hardware (emulated bf16 is slower than float32)."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    if hasattr(torch.cpu, "get_capabilities"):  # torch 2.12 and later
        able = torch.cpu.get_capabilities()
        return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def no_compiler(device: torch.device) -> str | None:
    """Why torch.compile would fail here, or None. On a CPU it needs a C++ compiler, which most users do not have."""
    names = [os.environ.get("CXX", ""), "c++", "g++", "clang++", "cl"]
    if device.type == "cpu" and not any(name and shutil.which(name) for name in names):
        return "there is no C++ compiler"
    return None


@contextmanager
def algorithms(deterministic: bool) -> Iterator[None]:
    """Inside the `with`, only algorithms that repeat bit by bit (if asked)."""
    if not deterministic:
        yield
        return
    # cuBLAS reads this when it starts; it is the setting that torch's documentation of determinism asks for.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before, tuned = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.backends.cudnn.benchmark = tuned
