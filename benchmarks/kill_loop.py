"""A training run that is killed (SIGKILL) again and again, and resumed each time, beside one that is left alone.

Both train the same small Faster R-CNN on the same scenes with `fpn train`. Most kills come at random moments, from the
start of the process on; every fourth is aimed at a checkpoint that is being written. At the end weights, averages,
optimizer state and `metrics.jsonl` (but for its timings) are compared bit by bit. Usage:

    python benchmarks/kill_loop.py [--kills 20] [--seed 0] [--workers 1] [--output benchmarks/results/kill_loop.json]

Each process is forked from one that has imported torch, which would take longer than all that is looked at here.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
import turns
from safetensors.torch import load_file

from fpn.data.synthetic.scenes import SceneDataset

TIMINGS = ("images_per_second", "seconds")
# Which kills are aimed at a checkpoint: the fourth, the eighth, ...
AIMED = 4


def write_scenes(folder: Path) -> Path:
    """Forty drawn scenes as a COCO dataset."""
    scenes = SceneDataset(40, seed=5, height=96, width=(96, 128), objects=(0, 4), extent=(16.0, 80.0))
    truth = scenes.coco()
    (folder / "images").mkdir(parents=True)
    (folder / "annotations").mkdir()
    for row, entry in enumerate(truth["images"]):
        entry["file_name"] = f"{row}.png"
        scenes[row].image.save(folder / "images" / entry["file_name"])
    (folder / "annotations" / "instances.json").write_text(json.dumps(truth))
    return folder


def settings(arguments: argparse.Namespace) -> list[str]:
    options = {
        "backbone": "test_efficientnet",
        "weights": "none",
        "short-side": 96,
        "long-side": 128,
        "channels": 32,
        "head-width": 128,
        "epochs": arguments.epochs,
        "batch-size": 4,
        "workers": arguments.workers,
        "precision": "float32",
        "learning-rate": 0.003,
        "log-every": 3,
        "checkpoint-minutes": 0.01,
        "seed": arguments.seed,
    }
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


def fpn_train(words: list[str], says: Path) -> None:
    from fpn.cli import main as fpn

    with says.open("w") as stream:
        for file in (1, 2):
            os.dup2(stream.fileno(), file)
        sys.exit(fpn(["train", *words]))


def start(says: Path, *words: object) -> BaseProcess:
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["fpn.cli.train", "fpn.data.formats.open", "fpn.detectors", "fpn.training.trainer"])
    process = server.Process(target=fpn_train, args=([str(word) for word in words], says))
    process.start()
    return process


def is_writing(run: Path) -> bool:
    return any(run.glob("last/.writing-*/*"))


def kill(process: BaseProcess, run: Path, says: Path, *, after: float, aimed: bool) -> dict[str, object]:
    """SIGKILL after so many seconds, then, if aimed, as soon as a checkpoint is being written."""
    began = time.monotonic()
    while process.is_alive():
        if time.monotonic() - began >= after and (not aimed or is_writing(run)):
            process.kill()
            process.join()
            hit = is_writing(run)
            return {"seconds": round(time.monotonic() - began, 2), "step": newest_step(run), "while_writing": hit}
        time.sleep(0.001)
    raise SystemExit(f"the run ended by itself with status {process.exitcode}:\n{says.read_text()}")


def newest_step(run: Path) -> int | None:
    """The step of the newest checkpoint."""
    return max((int(path.name.removeprefix("step-")) for path in run.glob("last/step-*")), default=None)


def lines(run: Path) -> list[dict[str, object]]:
    every = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMINGS} for line in every]


def compare(straight: Path, killed: Path) -> dict[str, object]:
    """What is equal, bit by bit."""
    newest = f"last/step-{newest_step(straight):08d}/state.safetensors"
    ours, theirs = load_file(straight / newest), load_file(killed / newest)
    models = [load_file(run / "best.safetensors") for run in (straight, killed)]
    equal = {name: name in theirs and torch.equal(ours[name], theirs[name]) for name in ours}
    parts = Counter(name.split("/")[0] for name in ours)
    told = lines(straight)
    return {
        "tensors": dict(parts),
        "state_is_equal": ours.keys() == theirs.keys() and all(equal.values()),
        "best_is_equal": all(torch.equal(models[0][name], models[1][name]) for name in models[0]),
        "lines": len(told),
        "metrics_are_equal": told == lines(killed),
    }


def finish(process: BaseProcess, says: Path) -> None:
    process.join()
    if process.exitcode != 0:
        raise SystemExit(f"the run failed with status {process.exitcode}:\n{says.read_text()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments and of the training")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--output", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    with tempfile.TemporaryDirectory() as scratch:
        result = run_all(arguments, Path(scratch))
    print(json.dumps(result, indent=1))
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(0 if all(result[name] for name in result if name.endswith("_equal")) else 1)


def run_all(arguments: argparse.Namespace, folder: Path) -> dict[str, object]:
    data, straight, killed, says = write_scenes(folder / "set"), folder / "straight", folder / "killed", folder / "said"
    options = [data, *settings(arguments), "--validation", data, "--output"]
    finish(start(says, data, *settings(arguments), "--steps", 1, "--output", folder / "warm"), says)
    began = time.monotonic()
    undisturbed = start(says, *options, straight)
    while newest_step(straight) is None and undisturbed.is_alive():
        time.sleep(0.001)
    starting = time.monotonic() - began
    finish(undisturbed, says)
    alone = time.monotonic() - began
    print(f"the undisturbed run took {alone:.1f} s, of which {starting:.1f} s until its first checkpoint", flush=True)
    lot, kills = random.Random(arguments.seed), []
    # Each process gets on by half of a kill's share of the run, so that the run lasts for all of them.
    share = (alone - starting) / arguments.kills
    for number in range(1, arguments.kills + 1):
        process = go_on(says, options, killed)
        after = lot.uniform(0.0, starting + share)
        kills.append(kill(process, killed, says, after=after, aimed=number % AIMED == 0))
        print(f"kill {number}: {kills[-1]}", flush=True)
    finish(go_on(says, options, killed), says)
    return {
        **turns.about(),
        "options": {name: value for name, value in vars(arguments).items() if name != "output"},
        "seconds_undisturbed": round(alone, 1),
        "kills": kills,
        "kills_while_a_checkpoint_was_written": sum(bool(each["while_writing"]) for each in kills),
        **compare(straight, killed),
    }


def go_on(says: Path, options: list[object], run: Path) -> BaseProcess:
    """Killed before it had begun anything, a run is begun again."""
    if (run / "run.json").exists():
        return start(says, "--resume", run)
    return start(says, *options, run)


if __name__ == "__main__":
    main()
