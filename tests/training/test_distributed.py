"""Several processes on one CPU, connected by gloo as torchrun connects them."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import children
import pytest
import torch
from safetensors.torch import load_file

from fpn.data.dataset import Dataset
from fpn.data.synthetic.scenes import SceneDataset
from fpn.detectors import FasterRCNN, faster_rcnn
from fpn.errors import FpnError, ImageError
from fpn.structures import Targets
from fpn.training import validation as measuring
from fpn.training.callbacks import Callback, RunView
from fpn.training.config import TrainConfig
from fpn.training.run import Run
from fpn.training.trainer import train

SETTINGS = {"epochs": 2, "batch_size": 4, "workers": 0, "device": "cpu", "precision": "float32", "log_every": 1}
# All images that processes measured, one line each.
MEASURED = "measured.txt"


class Scenes(SceneDataset):
    """Drawn scenes of several sizes; those with even numbers hold no object if `half_empty`."""

    def __init__(self, count: int, *, half_empty: bool = False) -> None:
        super().__init__(count, seed=3, height=64, width=(64, 96), objects=(1, 3), extent=(16.0, 48.0))
        self.half_empty = half_empty

    def targets(self, index: int, *, masks: bool = False) -> Targets:
        return Targets.empty() if self.half_empty and index % 2 == 0 else super().targets(index, masks=masks)


def small_detector(dataset: Dataset) -> FasterRCNN:
    torch.manual_seed(0)
    options = {"weights": None, "short_side": 64, "long_side": 128, "channels": 16, "head_width": 32}
    return faster_rcnn(classes=dataset.classes, backbone="test_efficientnet", **options)


def learn(folder: Path, dataset: Dataset, changes: Mapping[str, Any], validation: Dataset | None = None) -> int:
    """What each process does; the exit status."""
    note_images(folder.parent / MEASURED)
    try:
        config = TrainConfig(**{**SETTINGS, **changes})
        train(small_detector(dataset), dataset, config, validation=validation, output=folder)
    except FpnError as error:
        print(f"error: {error}", flush=True)
        return 1
    return 0


def learn_or_fail(folder: Path, dataset: Dataset, changes: Mapping[str, Any], failure: str) -> int:
    """The same, but process 1 fails before its third step, unless torchrun says that it began them again."""
    take_step = Run.take_step

    def fail_or_take(self: Run, group: list[Any]) -> None:
        doomed = self.processes.rank == 1 and "TORCHELASTIC_RESTART_COUNT" not in os.environ
        if doomed and self.position.step == 2:
            if failure == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise ImageError("cells_07.png: the image is damaged")
        take_step(self, group)

    Run.take_step = fail_or_take  # type: ignore[method-assign]
    return learn(folder, dataset, changes)


class Failing(Callback):
    """Notes who calls, and fails after the second step, the last of the first epoch."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def step(self, view: RunView) -> None:
        with self.path.open("a") as stream:
            stream.write(f"step {view.step} in process {os.environ['RANK']}\n")
        if view.step == 2:
            raise ValueError("enough")


def learn_watched(folder: Path, dataset: Dataset, path: Path) -> None:
    config = TrainConfig(**SETTINGS, checkpoint_minutes=1e-9)
    train(small_detector(dataset), dataset, config, output=folder, callbacks=[Failing(path)])


def note_images(path: Path) -> None:
    find = measuring.find_objects

    def find_and_note(*arguments: Any, **options: Any) -> Any:
        found = find(*arguments, **options)
        with path.open("a") as stream:
            stream.write("".join(f"{number}\n" for number in found.detections))
        return found

    measuring.find_objects = find_and_note


class Together:
    """Processes that train together, each with what torchrun would tell it."""

    def __init__(self, says: Path, count: int, work: Any, *arguments: object, **environment: object) -> None:
        self.says = [says.with_name(f"{says.name}-{rank}") for rank in range(count)]
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        common = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
        self.processes: list[BaseProcess] = []
        for rank in range(count):
            own = {**common, "RANK": rank, "LOCAL_RANK": rank, **environment}
            texts = {name: str(value) for name, value in own.items()}
            self.processes.append(children.start(work, *arguments, says=self.says[rank], environment=texts))

    def end(self, seconds: float = 120) -> list[int | None]:
        """Exit statuses."""
        for process in self.processes:
            process.join(seconds)
        statuses = [process.exitcode for process in self.processes]
        for process in self.processes:
            process.kill()
        return statuses

    def said(self, rank: int) -> str:
        return self.says[rank].read_text()


def lines(run: Path) -> list[dict[str, Any]]:
    every = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("images_per_second", "seconds")} for line in every]


def assert_alike(ours: Path, theirs: Path) -> None:
    one, other = (load_file(run / "best.safetensors") for run in (ours, theirs))
    for name, weight in one.items():
        torch.testing.assert_close(other[name], weight, rtol=1e-4, atol=1e-5)
    # Not roi_accuracy: a RoI more or less that is classified rightly is no matter of tolerance.
    compared = ("loss", "objectness", "rpn_box", "classification", "box", "positive_anchors", "ap", "step")
    told, retold = ([[line.get(name, 0) for name in compared] for line in lines(run)] for run in (ours, theirs))
    assert retold == [pytest.approx(line, rel=1e-4, abs=1e-5) for line in told]


@pytest.mark.parametrize(
    ("dataset", "validation"),
    [(Scenes(10), Scenes(7)), (Scenes(8, half_empty=True), None), (Scenes(3), Scenes(1)), (Scenes(1), None)],
    ids=["images of several sizes", "images without an object", "an uneven batch", "fewer images than processes"],
)
def test_two_processes_with_half_of_the_batch_each_train_what_one_trains_alone(
    tmp_path: Path, dataset: Scenes, validation: Scenes | None
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    together = Together(tmp_path / "said", 2, learn, two, dataset, {}, validation)
    assert together.end() == [0, 0], together.said(0) + together.said(1)
    measured = (tmp_path / MEASURED).read_text().split() if validation else []
    train(small_detector(dataset), dataset, TrainConfig(**SETTINGS), validation=validation, output=one, progress=False)
    assert_alike(one, two)
    # After each of the two epochs each image of the validation set once, whoever did it.
    assert sorted(map(int, measured)) == sorted([*range(len(validation or ()))] * 2)


def test_a_process_that_fails_ends_the_other_with_its_message(tmp_path: Path) -> None:
    together = Together(tmp_path / "said", 2, learn_or_fail, tmp_path / "run", Scenes(8), {}, "raised")
    began = time.monotonic()
    assert together.end() == [1, 1]
    assert time.monotonic() - began < 60
    assert "error: cells_07.png: the image is damaged" in together.said(1)
    assert "error: process 1 of 2 failed: cells_07.png: the image is damaged" in together.said(0)


def test_the_first_process_alone_calls_and_an_error_in_its_callback_ends_all_with_its_name(tmp_path: Path) -> None:
    together = Together(tmp_path / "said", 2, learn_watched, tmp_path / "run", Scenes(8), tmp_path / "called.txt")
    assert together.end() == [1, 1]
    assert (tmp_path / "called.txt").read_text() == "step 1 in process 0\nstep 2 in process 0\n"
    assert f"in `step` of the callback {__name__}.Failing after step 2; all is saved up to step 2" in together.said(0)


def test_when_a_process_is_killed_the_other_ends_and_a_restart_by_torchrun_goes_on_bit_by_bit(tmp_path: Path) -> None:
    # Lines of three steps each, so that a restart goes on inside of one.
    changes = {"log_every": 3, "checkpoint_minutes": 1e-9}
    straight, killed, data = tmp_path / "straight", tmp_path / "killed", Scenes(8)
    assert Together(tmp_path / "first", 2, learn, straight, data, changes).end() == [0, 0]

    together = Together(tmp_path / "second", 2, learn_or_fail, killed, data, changes, "killed")
    assert together.end(60) == [1, -signal.SIGKILL]
    assert "process 0 of 2 lost the connection to another one, which ended without a word" in together.said(0)
    restarted = Together(
        tmp_path / "third", 2, learn_or_fail, killed, data, changes, "killed", TORCHELASTIC_RESTART_COUNT=1
    )
    assert restarted.end() == [0, 0], restarted.said(0) + restarted.said(1)
    assert "going on after step 2" in restarted.said(0)

    ours, theirs = (load_file(run / "best.safetensors") for run in (straight, killed))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert [line["step"] for line in lines(killed)] == [2, 3, 4, 4]
    assert lines(straight) == lines(killed)


def test_ctrl_c_in_one_process_stops_all_after_the_same_step(tmp_path: Path) -> None:
    run = tmp_path / "run"
    together = Together(tmp_path / "said", 2, learn, run, Scenes(8), {"epochs": 1000})
    children.wait_for((run / "metrics.jsonl").exists, together.processes[0], says=together.says[0])
    os.kill(together.processes[1].pid or 0, signal.SIGINT)
    together.end()
    stopped = next(line for line in together.said(0).splitlines() if line.startswith("stopped after step"))
    step = int(stopped.split()[3].rstrip(";"))
    assert stopped == f"stopped after step {step}; all is saved up to step {step}; go on with: fpn train --resume {run}"
    assert (run / "last" / f"step-{step:08d}" / "checksums.txt").exists()
    assert lines(run)[-1]["step"] == step
