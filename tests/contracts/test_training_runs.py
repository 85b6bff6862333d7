"""What every kind of detector must do while it trains: go on after a kill, and learn alike in several processes.

Each run is `fpn train` in a process of its own. FPN_ALL_KILLS=1 also kills each kind from outside, at moments drawn by
lot, in minutes; FPN_ALL_KINDS=1 lets every kind train in two processes.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import children
import pytest
import torch
from safetensors.torch import load_file

from fpn.data.synthetic.scenes import SceneDataset
from fpn.training.run import Run

pytestmark = pytest.mark.skipif(os.name == "nt", reason="SIGKILL")

# The longest that a run of seconds is waited for on a busy machine.
PATIENCE = 600.0

COMMON = {
    "backbone": "test_efficientnet",
    "weights": "none",
    "channels": 8,
    "short-side": 64,
    "long-side": 96,
    "steps": 3,
    "batch-size": 2,
    "learning-rate": 0.01,
    "log-every": 1,
    "checkpoint-minutes": 1e-6,
    "workers": 0,
    "device": "cpu",
    "precision": "float32",
    "recipe": "none",
}
BOXES = {"head-width": 8, "roi-samples": 32}
MASKS = {**BOXES, "mask-width": 8}
GROUPS = {"dialect": "torchvision_v2", "box": {"norm": "group", "convolution_channels": 8, "loss": "giou"}}
# A kind's name is what stands before the comma.
KINDS: Mapping[str, Mapping[str, Any]] = {
    "faster_rcnn": BOXES,
    "faster_rcnn, pafpn": {**BOXES, **GROUPS, "neck": "pafpn", "set": ["neck.norm=group"]},
    "faster_rcnn, bifpn": {**BOXES, "neck": "bifpn", "set": ["neck.repeats=1"]},
    "faster_rcnn, simple_pyramid": {**BOXES, "neck": "simple_pyramid", "backbone": "test_vit"},
    "cascade_rcnn": BOXES,
    "cascade_mask_rcnn": {**MASKS, "cascade": {"mask_heads": "each_stage"}},
    "mask_rcnn": MASKS,
    "keypoint_rcnn": {**BOXES, "keypoint-width": 8},
    "retinanet": {"dense": {"normalizer": "ema"}},
    "fcos": {},
    "atss": {},
    "segment_proposals": {"segments": {"width": 16, "mask_size": 7, "before_nms": 60}},
}
# Those that count what they learn from each in another way; FPN_ALL_KINDS=1 has all whose norms gather no statistics,
# which processes do apart from each other, as the README says.
FEW = ("mask_rcnn", "keypoint_rcnn", "retinanet", "segment_proposals")
ALIKE = [kind for kind in KINDS if kind in FEW or ("FPN_ALL_KINDS" in os.environ and "bifpn" not in kind)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four scenes with boxes, masks and keypoints as a COCO dataset."""
    root = tmp_path_factory.mktemp("scenes")
    scenes = SceneDataset(4, seed=3, height=64, width=(64, 80), objects=(1, 3), extent=(16.0, 40.0), keypoints=True)
    truth = scenes.coco()
    for folder in ("images", "annotations"):
        (root / folder).mkdir()
    for row, entry in enumerate(truth["images"]):
        entry["file_name"] = f"{row}.png"
        scenes.image(row).save(root / "images" / f"{row}.png")
    (root / "annotations" / "instances.json").write_text(json.dumps(truth))
    return root


def words(kind: str, data: Path, run: Path, **more: object) -> list[str]:
    """What is said after `fpn` to train a kind into the folder `run`."""
    file = run.with_name(f"{run.name}.yaml")
    file.write_text(json.dumps({**COMMON, **KINDS[kind], **more, "detector": kind.partition(",")[0]}))
    return ["train", str(data), "--config", str(file), "--output", str(run)]


def run_until(said: list[str], step: int) -> int:
    """`fpn`, until SIGKILL meets it before a step."""
    take_step = Run.take_step

    def take_or_die(run: Run, group: Any) -> None:
        if run.position.step == step:
            os.kill(os.getpid(), signal.SIGKILL)
        take_step(run, group)

    Run.take_step = take_or_die  # type: ignore[method-assign]
    return children.run_fpn(said)


def run_each(said: Sequence[list[str]]) -> int:
    """`fpn` several times, one after the other."""
    return max(children.run_fpn(each) for each in said)


def log(run: Path) -> list[dict[str, Any]]:
    """The lines of a run, those that are whole, without timings."""
    path = run / "metrics.jsonl"
    whole = path.read_text().rpartition("\n")[0] if path.exists() else ""
    lines = [json.loads(line) for line in whole.splitlines()]
    return [{k: v for k, v in line.items() if k not in ("images_per_second", "seconds")} for line in lines]


def assert_same(straight: Path, killed: Path) -> None:
    """To the bit: weights, averages, optimizer, and what was logged."""
    assert log(killed) == log(straight)
    state = sorted(straight.glob("last/step-*/state.safetensors"))[-1].relative_to(straight)
    for name in (Path("best.safetensors"), state):
        ours, theirs = load_file(straight / name), load_file(killed / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_and_resumed_run_ends_bit_by_bit_like_an_undisturbed_one(
    kind: str, data: Path, tmp_path: Path
) -> None:
    straight, killed, says = tmp_path / "straight", tmp_path / "killed", tmp_path / "said.txt"
    undisturbed = children.start(children.run_fpn, words(kind, data, straight), says=tmp_path / "straight.txt")
    child = children.start(run_until, words(kind, data, killed), 1, says=says)
    child.join(PATIENCE)
    assert child.exitcode == -signal.SIGKILL, says.read_text()
    assert [line["step"] for line in log(killed)] == [1]
    resumed = children.start(children.run_fpn, ["train", "--resume", str(killed)], says=says)
    assert "going on after step 1" in children.finish(resumed, says=says, seconds=PATIENCE)
    children.finish(undisturbed, says=tmp_path / "straight.txt", seconds=PATIENCE)
    assert [line["step"] for line in log(straight)] == [1, 2, 2, 3, 3]
    assert_same(straight, killed)


@pytest.mark.skipif("FPN_ALL_KILLS" not in os.environ, reason="FPN_ALL_KILLS=1 takes minutes")
@pytest.mark.parametrize("kind", KINDS)
def test_moments_of_kills_do_not_matter(kind: str, data: Path, tmp_path: Path) -> None:
    straight, killed, says = tmp_path / "straight", tmp_path / "killed", tmp_path / "said.txt"
    longer, lot = {"steps": 8}, random.Random(kind)
    children.finish(children.start(children.run_fpn, words(kind, data, straight, **longer), says=says), says=says)
    said = words(kind, data, killed, **longer)
    for least in (1, 4, 8):
        child = children.start(children.run_fpn, said, says=says)
        children.wait_for(lambda least=least: len(log(killed)) >= least, child, says=says)
        time.sleep(0.1 * lot.random())
        child.kill()
        child.join()
        said = ["train", "--resume", str(killed)]
    children.finish(children.start(children.run_fpn, said, says=says), says=says, seconds=PATIENCE)
    assert_same(straight, killed)


def test_two_processes_with_half_of_the_batch_each_train_what_one_trains_alone(data: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    runs = {side: [tmp_path / f"{side}{number}" for number in range(len(ALIKE))] for side in ("one", "two")}
    # Rounding is divided by itself in the first steps of adamw.
    orders = {
        side: [words(k, data, run, optimizer="sgd") for k, run in zip(ALIKE, runs[side], strict=True)] for side in runs
    }
    alone = children.start(run_each, orders["one"], says=tmp_path / "alone.txt")
    says = [tmp_path / f"said-{rank}.txt" for rank in (0, 1)]
    together = [
        children.start(
            run_each,
            orders["two"],
            says=says[rank],
            environment={name: str(value) for name, value in {**common, "RANK": rank, "LOCAL_RANK": rank}.items()},
        )
        for rank in (0, 1)
    ]
    for child, path in zip([*together, alone], [*says, tmp_path / "alone.txt"], strict=True):
        children.finish(child, says=path, seconds=PATIENCE)
    for kind, one, two in zip(ALIKE, runs["one"], runs["two"], strict=True):
        ours, theirs = (load_file(run / "best.safetensors") for run in (one, two))
        apart = {name: float((theirs[name].double() - ours[name].double()).abs().max()) for name in ours}
        assert max(apart.values()) < 1e-5, (kind, max(apart, key=lambda name: apart[name]))
        # Not accuracies: a sample more or less that is told rightly is no matter of tolerance.
        for line, other in zip(log(one), log(two), strict=True):
            assert line.keys() == other.keys()
            numbers = {n: v for n, v in line.items() if isinstance(v, int | float) and "accuracy" not in n}
            assert {name: other[name] for name in numbers} == pytest.approx(numbers, rel=1e-3, abs=1e-4), kind
