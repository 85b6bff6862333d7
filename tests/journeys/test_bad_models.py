from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from shell import Shell
from written_sets import write_coco


class Bomb:
    """Unpickling it leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.trace,))


def cut(model: Path, bad: Path) -> None:
    bad.write_bytes(model.read_bytes()[: model.stat().st_size // 2])


def plain_pickle(_: Path, bad: Path) -> None:
    bad.write_bytes(pickle.dumps(Bomb(bad.parent / "trace")))


def torch_pickle(_: Path, bad: Path) -> None:
    torch.save({"weights": Bomb(bad.parent / "trace")}, bad)


def text(_: Path, bad: Path) -> None:
    bad.write_text("weights")


def empty(_: Path, bad: Path) -> None:
    bad.touch()


def of_another_program(_: Path, bad: Path) -> None:
    save_file({"weight": torch.ones(2)}, bad)


def an_archive(_: Path, bad: Path) -> None:
    with zipfile.ZipFile(bad, "w") as archive:
        archive.writestr("readme", "not a model")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (cut, "damaged"),
        (plain_pickle, "is a pickle"),
        (torch_pickle, "is a pickle"),
        (text, "damaged or not a .safetensors file"),
        (empty, "damaged or not a .safetensors file"),
        (of_another_program, "no fpn recipe"),
        (an_archive, "is not opened"),
    ],
)
def test_a_bad_model_is_named_and_never_executed(
    fpn: Shell, model: Path, tmp_path: Path, spoil: Callable[[Path, Path], None], reason: str
) -> None:
    bad, data = tmp_path / "bad.safetensors", write_coco(tmp_path / "set")
    spoil(model, bad)
    for words in (["predict", bad, data / "images"], ["evaluate", bad, data]):
        message = fpn.fails(*words, "--output", tmp_path / "out")
        assert message.startswith(f"error: {bad}: ")
        assert reason in message
    assert not (tmp_path / "trace").exists()
    assert not (tmp_path / "out").exists()


def test_a_missing_model_and_a_folder_are_named(fpn: Shell, tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    assert "no such model file" in fpn.fails("predict", tmp_path / "absent.safetensors", tmp_path / "a.png")
    assert "is a folder" in fpn.fails("predict", tmp_path, tmp_path / "a.png")
