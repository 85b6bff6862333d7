from __future__ import annotations

import threading

import pytest
import torch

from fpn.runtime import memory

LARGE = (1024, 1024)


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch) -> None:
    monkeypatch.setattr(memory, "_blocks", [])


def test_memory_is_used_again_when_its_tensor_is_gone() -> None:
    place = memory.empty(LARGE, torch.float32).data_ptr()
    assert memory.empty(LARGE, torch.float32).data_ptr() == place


@pytest.mark.parametrize(
    "view", [lambda t: t[5:], lambda t: t.view(-1).numpy(), lambda t: t.T.detach()], ids=["part", "numpy", "transposed"]
)
def test_memory_that_a_view_reads_is_left_alone(view) -> None:
    reader = view(memory.empty(LARGE, torch.float32).fill_(1))
    memory.empty(LARGE, torch.float32).fill_(2)
    assert (reader == 1).all()


def test_somewhat_smaller_tensors_fit_and_much_smaller_ones_get_their_own() -> None:
    place = memory.empty(LARGE, torch.float32).data_ptr()
    somewhat = memory.empty((1000, 1024), torch.float32)
    assert somewhat.shape == (1000, 1024)
    assert somewhat.data_ptr() == place
    del somewhat
    assert memory.empty((600, 1024), torch.float32).data_ptr() != place


def test_little_is_kept(monkeypatch) -> None:
    monkeypatch.setattr(memory, "_MOST_BYTES", 10 << 20)
    alive = [memory.empty(LARGE, torch.float32).fill_(number) for number in range(4)]  # 4 MiB each
    assert len(memory._blocks) == 2
    assert [int(tensor.unique()) for tensor in alive] == [0, 1, 2, 3]


def test_threads_do_not_get_the_same_memory() -> None:
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


def test_small_tensors_are_torchs_own() -> None:
    assert memory.empty((3, 5), torch.float64).shape == (3, 5)
    assert memory._blocks == []
