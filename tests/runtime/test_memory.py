from __future__ import annotations

import gc
import multiprocessing
import os
import platform
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fpn.runtime import memory

LARGE = (1024, 1024)  # of float32: 4 MiB

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="large pages are asked for on Linux alone")


@pytest.fixture(autouse=True)
def blocks(monkeypatch) -> memory.Blocks:
    """A stock of its own for each test, empty."""
    blocks = memory.Blocks()
    monkeypatch.setattr(memory, "_blocks", blocks)
    return blocks


def large(value: float) -> torch.Tensor:
    return memory.empty(LARGE, torch.float32).fill_(value)


def test_memory_is_used_again_when_its_tensor_is_gone(blocks):
    place = large(1).data_ptr()
    assert len(blocks.free) == 1
    again = large(2)
    assert again.data_ptr() == place
    assert blocks.free == []


@pytest.mark.parametrize(
    "view",
    [
        lambda t: t[5:],
        lambda t: t.view(-1).numpy(),
        lambda t: t.T.detach(),
        lambda t: np.asarray(t)[3:],
        lambda t: torch.from_numpy(t.numpy()),
        lambda t: torch.empty(0).set_(t.untyped_storage(), 0, (9,)),
        lambda t: torch.from_dlpack(t),
        lambda t: memoryview(t.numpy()[0]),
        lambda t: nn.Parameter(t),
    ],
    ids=["part", "numpy", "transposed", "array", "back from numpy", "storage", "dlpack", "memoryview", "parameter"],
)
def test_memory_that_a_view_reads_is_left_alone_until_the_view_is_gone(view, blocks):
    reader = view(large(1))
    assert blocks.free == []
    others = [large(2), large(3)]
    assert torch.as_tensor(reader).unique().tolist() == [1]
    del reader
    assert len(blocks.free) == 1
    assert [int(other.unique()) for other in others] == [2, 3]


def test_what_autograd_has_saved_is_left_alone_until_the_backward_pass():
    weight = torch.ones(LARGE, requires_grad=True)
    loss = (weight * large(3)).sum()  # the gradient of the weight is the saved 3
    others = [large(7), large(8)]
    loss.backward()
    assert weight.grad is not None
    assert weight.grad.unique().tolist() == [3]
    assert len(others) == 2


def test_memory_in_a_cycle_comes_back_when_the_cycle_is_collected(blocks):
    gc.collect()
    cycle = [large(1)]
    cycle.append(cycle)  # type: ignore[arg-type]
    del cycle
    assert blocks.free == []
    gc.collect()
    assert len(blocks.free) == 1


def test_a_tensor_outlives_the_stock(blocks):
    tensor = large(5)
    large(6)
    blocks.free.clear()  # the block of the 6 is unmapped
    assert tensor.unique().tolist() == [5]


def test_somewhat_smaller_tensors_fit_and_much_smaller_ones_get_their_own():
    place = memory.empty(LARGE, torch.float32).data_ptr()
    somewhat = memory.empty((1000, 1024), torch.float32)
    assert somewhat.shape == (1000, 1024)
    assert somewhat.data_ptr() == place
    del somewhat
    assert memory.empty((600, 1024), torch.float32).data_ptr() != place


def test_the_smallest_block_that_fits_is_taken(blocks):
    sizes = [(1200, 1024), (1024, 1024), (1100, 1024)]
    tensors = [memory.empty(size, torch.float32) for size in sizes]
    places = [tensor.data_ptr() for tensor in tensors]
    tensors.clear()
    assert len(blocks.free) == 3
    assert memory.empty((1024, 1000), torch.float32).data_ptr() == places[1]


def test_little_is_kept(monkeypatch, blocks):
    monkeypatch.setattr(memory, "_MOST_BYTES", 10 << 20)
    alive = [large(number) for number in range(4)]
    assert [int(tensor.unique()) for tensor in alive] == [0, 1, 2, 3]
    alive.clear()
    assert [len(block) for block in blocks.free] == [4 << 20, 4 << 20]


def test_few_are_kept(monkeypatch, blocks):
    monkeypatch.setattr(memory, "_MOST_BLOCKS", 3)
    alive = [large(number) for number in range(5)]
    last = [tensor.data_ptr() for tensor in alive[2:]]
    while alive:
        alive.pop(0)
    again = [large(0) for _ in range(3)]
    assert sorted(tensor.data_ptr() for tensor in again) == sorted(last)


def test_threads_do_not_get_the_same_memory():
    seen: list[bool] = []

    def work(number: int) -> None:
        for _ in range(50):
            tensor = memory.empty((512, 1024), torch.float32).fill_(number)
            seen.append(bool((tensor == number).all()))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 200
    assert all(seen)


def _child(value: float) -> tuple[float, float]:
    """What a forked process finds in its parent's free block, written over, and in a new one."""
    torch.set_num_threads(1)
    first, second = large(value), large(value + 1)
    return float(first.mean()), float(second.mean())


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_has_memory_of_its_own(blocks):
    held = large(1)
    large(2)  # free when the process forks
    place = held.data_ptr()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as processes:
        assert processes.submit(_child, 10.0).result(timeout=60) == (10.0, 11.0)
    assert held.unique().tolist() == [1]
    assert held.data_ptr() == place
    assert len(blocks.free) == 1
    assert large(3).unique().tolist() == [3]


def test_small_tensors_are_torchs_own(blocks):
    tensor = memory.empty((3, 5), torch.float64)
    assert tensor.shape == (3, 5)
    del tensor
    assert blocks.free == []


def test_a_contiguous_tensor_is_itself_and_another_is_copied():
    tensor = torch.arange(6.0).view(2, 3)
    assert memory.contiguous(tensor) is tensor
    assert memory.contiguous(tensor.T).tolist() == [[0, 3], [1, 4], [2, 5]]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="asks glibc")
def test_holes_in_memory_are_given_back() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    held = [(bytearray(b"x" * 100_000), bytearray(2000)) for _ in range(1000)]  # too small for places of their own
    between = [small for _, small in held]
    del held
    before = resident()
    memory.give_back_freed_memory()
    assert before - resident() > 50e6
    assert len(between) == 1000
