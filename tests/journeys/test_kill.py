"""The stress journey in small: a run killed at random moments and inside of a checkpoint, and resumed each time."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import children
import pytest
import torch
from safetensors.torch import load_file

from fpn.data.synthetic.scenes import SceneDataset

pytestmark = pytest.mark.skipif(os.name == "nt", reason="SIGKILL")

# Each flush; a checkpoint has five. Long enough to be met in the middle of one.
FLUSH_SECONDS = 0.04
# Eight images, two a step: four steps an epoch, twelve in all. A checkpoint after almost every step.
SETTINGS = """
backbone: test_efficientnet
weights: none
short-side: 64
long-side: 128
head-width: 16
channels: 16
epochs: 3
batch-size: 2
workers: 0
precision: float32
learning-rate: 0.01
log-every: 1
checkpoint-minutes: 0.001
"""
TIMINGS = ("images_per_second", "seconds")


class Killable:
    """`fpn train` in a process of its own."""

    def __init__(self, says: Path, *words: object, flush_seconds: float = FLUSH_SECONDS) -> None:
        self.says = says
        self.child = children.start(children.run_fpn, ["train", *map(str, words)], flush_seconds, says=says)

    def finish(self) -> str:
        return children.finish(self.child, says=self.says)

    def kill_when(self, moment: Callable[[], object]) -> None:
        children.wait_for(moment, self.child, says=self.says)
        self.child.kill()
        self.child.join()
        assert self.child.exitcode == -signal.SIGKILL


def log(run: Path) -> list[dict[str, object]]:
    path = run / "metrics.jsonl"
    whole = path.read_text().rpartition("\n")[0] if path.exists() else ""
    return [json.loads(line) for line in whole.splitlines()]


def without_timings(run: Path) -> list[dict[str, object]]:
    return [{name: value for name, value in line.items() if name not in TIMINGS} for line in log(run)]


def writing(run: Path) -> list[Path]:
    """Files of a checkpoint that is not whole yet."""
    return list(run.glob("last/.writing-*/*"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    scenes = SceneDataset(8, seed=5, height=64, width=(64, 96), objects=(0, 3), extent=(16.0, 48.0))
    truth = scenes.coco()
    for row, entry in enumerate(truth["images"]):
        entry["file_name"] = f"{row}.png"
        (tmp_path / "set" / "images").mkdir(parents=True, exist_ok=True)
        scenes[row].image.save(tmp_path / "set" / "images" / f"{row}.png")
    (tmp_path / "set" / "annotations").mkdir()
    (tmp_path / "set" / "annotations" / "instances.json").write_text(json.dumps(truth))
    return tmp_path / "set"


def test_a_run_killed_at_any_moment_and_resumed_ends_bit_by_bit_like_one_that_was_not(
    tmp_path: Path, data: Path
) -> None:
    settings, straight, killed = tmp_path / "small.yaml", tmp_path / "straight", tmp_path / "killed"
    settings.write_text(SETTINGS)
    options = (data, "--config", settings, "--validation", data, "--output")
    says, lot = tmp_path / "said.txt", random.Random(0)
    Killable(says, *options, straight, flush_seconds=0.0).finish()

    Killable(says, *options, killed).kill_when(lambda: len(log(killed)) >= 2)
    Killable(says, "--resume", killed).kill_when(lambda: len(log(killed)) >= 6 and writing(killed))
    assert writing(killed), "it was to be killed inside of a checkpoint"
    later = lot.randint(8, 11)
    Killable(says, "--resume", killed).kill_when(lambda: len(log(killed)) >= later)
    assert len(log(killed)) < 15
    assert Killable(says, "--resume", killed, flush_seconds=0.0).finish().count("going on after step") == 3

    assert [line["step"] for line in log(killed)] == [1, 2, 3, 4, 4, 5, 6, 7, 8, 8, 9, 10, 11, 12, 12]
    assert without_timings(killed) == without_timings(straight)
    # Weights; then also averages, optimizer and the meter.
    for name in ("best.safetensors", "last/step-00000012/state.safetensors"):
        ours, theirs = load_file(straight / name), load_file(killed / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert not list(killed.glob(".*")), "files that were half-written are cleared"
