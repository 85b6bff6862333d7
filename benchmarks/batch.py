"""`fpn batch` beside the plain pipeline in as many processes, and killed again and again beside a run left alone.

    python benchmarks/batch.py [--images 20000] [--workers 8] [--threads 1] [--kills 10] [--rounds 1] [--skip-kills]

Drawn scenes as JPEG, a few hundred of them under many names (hard links), lie in the page cache for both sides.
**Plain**: each of `--workers` processes runs `predict_images` over its share of the files and keeps nothing.
**Batch**: `fpn batch` over the same files, with the same model, batch size, precision, processes and threads; it also
lists the files, hands out shards, and writes all detections as Parquet. Two rates are given for each. *Overall* is
from the start of the first process to the end of the last, with imports, loading, listing and, for `fpn batch`, its
final count. *Going* is from the first to the last finished shard (of the plain side: as many images of one process),
without the first one, and so without the start. Rounds take turns in which side is first.

**Kills**: the same command into another folder, its whole process group killed by SIGKILL at random moments and begun
again each time: most moments are spread over the work of an undisturbed run, every fourth falls into the start. At
the end the shards are compared with the undisturbed run's; shards that were done at a kill have to stay as they were.
The model has random weights unless `--model` names one, and gives many detections an image. Exit status 1: something
differs. Results go to results/batch.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import torch
import turns

import fpn
from fpn.batch.worker import load_predictor
from fpn.data.synthetic.scenes import SceneDataset
from fpn.detectors.prediction import predict_images
from fpn.runtime.capacity import usable_cores

GOAL = 0.95
# Every fourth kill falls into the start of a process.
EARLY = 4
# Finished ones; a half-written one begins with a dot.
SHARDS = "detections-*.parquet"


def make_model(folder: Path, short_side: int) -> Path:
    torch.manual_seed(0)
    detector = fpn.faster_rcnn(
        backbone="tf_efficientnet_lite0",
        weights=None,
        classes=["disc", "ring"],
        short_side=short_side,
        channels=64,
        head_width=256,
        rpn_before_nms=(1000, 300),
        rpn_after_nms=(500, 100),
    )
    return fpn.save(detector, folder / "lite0.safetensors")


def make_images(folder: Path, count: int, distinct: int, size: str) -> Path:
    """`count` files of at most `distinct` drawn scenes, in an order drawn by lot."""
    width, height = (int(number) for number in size.split("x"))
    scenes, drawn, files = (
        SceneDataset(min(count, distinct), height=height, width=width),
        folder / "drawn",
        folder / "images",
    )
    drawn.mkdir(parents=True)
    files.mkdir()
    for number in range(len(scenes)):
        scenes.image(number).save(drawn / f"{number}.jpg", quality=90)
    lot = random.Random(0)
    for number in range(count):
        scene = number if number < len(scenes) else lot.randrange(len(scenes))
        os.link(drawn / f"{scene}.jpg", files / f"{number:07d}.jpg")
    return files


# --- the two sides ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """What one side took.

    Attributes:
        seconds: from the start of the first process to the end of the last.
        marks: when each shard was done, in seconds from the start, in order.
        sizes: how many images each of them has.
    """

    seconds: float
    marks: Sequence[float]
    sizes: Sequence[int]

    @property
    def overall(self) -> float:
        """Images a second."""
        return sum(self.sizes) / self.seconds

    @property
    def going(self) -> float:
        """Images a second from the first finished shard to the last one."""
        return sum(self.sizes[1:]) / (self.marks[-1] - self.marks[0])

    def start(self, workers: int) -> float:
        """Seconds before the first images: until the first shard is done, without the time that a shard takes."""
        return max(0.0, self.marks[0] - workers * self.sizes[0] / self.going)

    def told(self, workers: int) -> dict[str, float]:
        return {
            "seconds": self.seconds,
            "first shard": self.marks[0],
            "start": self.start(workers),
            "after the last shard": self.seconds - self.marks[-1],
            "images/s overall": self.overall,
            "images/s going": self.going,
        }


def plain_share(asked: argparse.Namespace) -> None:
    """One process of the plain side: the moment of each shard's end, and its images, as JSON lines."""
    torch.set_num_threads(asked.threads)
    number, workers = asked.share, asked.workers
    files = sorted((asked.scratch / "images").iterdir())
    mine = files[len(files) * number // workers : len(files) * (number + 1) // workers]
    predictor = load_predictor(asked.model, device=asked.device)
    since = 0
    for done, _ in enumerate(predict_images(predictor, mine, batch_size=asked.batch_size), 1):
        if done - since == asked.shard_size or done == len(mine):
            print(json.dumps([time.time(), done - since]), flush=True)
            since = done


def run_plain(asked: argparse.Namespace) -> Run:
    names = ("model", "scratch", "workers", "threads", "batch_size", "shard_size", "device")
    options = [word for name in names for word in (f"--{name.replace('_', '-')}", str(getattr(asked, name)))]
    began = time.time()
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, *options, "--share", str(number)], stdout=subprocess.PIPE, text=True
        )
        for number in range(asked.workers)
    ]
    said = [process.communicate()[0] for process in processes]
    seconds = time.time() - began
    if any(process.returncode for process in processes):
        raise SystemExit("a process of the plain side failed")
    ends = sorted(json.loads(line) for text in said for line in text.splitlines())
    return Run(seconds, [moment - began for moment, _ in ends], [images for _, images in ends])


def start_batch(asked: argparse.Namespace, output: Path, says: Path) -> subprocess.Popen[bytes]:
    """In a process group of its own."""
    names = ("workers", "threads", "batch_size", "shard_size", "device")
    options = [word for name in names for word in (f"--{name.replace('_', '-')}", str(getattr(asked, name)))]
    command = [
        sys.executable,
        "-m",
        "fpn",
        "batch",
        asked.model,
        asked.scratch / "images",
        "--output",
        output,
        *options,
    ]
    with says.open("wb") as stream:
        return subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True)


def finish(process: subprocess.Popen[bytes], says: Path) -> None:
    if process.wait() != 0:
        raise SystemExit(f"fpn batch failed with status {process.returncode}:\n{says.read_text()}")


def run_batch(asked: argparse.Namespace, output: Path) -> Run:
    says = output.with_suffix(".txt")
    began = time.time()
    finish(start_batch(asked, output, says), says)
    seconds = time.time() - began
    shards = sorted(output.glob(SHARDS), key=lambda path: path.stat().st_ctime)
    ends = [path.stat().st_ctime - began for path in shards]
    return Run(seconds, ends, [parquet.read_metadata(path).num_rows for path in shards])


def compare_speed(asked: argparse.Namespace) -> tuple[list[dict[str, Any]], Run]:
    """Each round's figures, and the last undisturbed run of `fpn batch`, which is in `alone-NUMBER`."""
    rounds, batch = [], None
    for number in range(asked.rounds):
        output = asked.scratch / f"alone-{number}"
        if number % 2:
            batch, plain = run_batch(asked, output), run_plain(asked)
        else:
            plain, batch = run_plain(asked), run_batch(asked, output)
        ratios = {"overall": batch.overall / plain.overall, "going": batch.going / plain.going}
        rounds.append({"plain": plain.told(asked.workers), "batch": batch.told(asked.workers), "ratio": ratios})
        print(f"round {number}: {json.dumps(rounds[-1])}", flush=True)
    assert batch is not None, "there is a round at least"
    return rounds, batch


# --- kills ------------------------------------------------------------------------------------------------------------


def lives(alone: Run, asked: argparse.Namespace) -> list[float]:
    """How many seconds each process lives: together they work as long as the undisturbed run does, at most."""
    lot, start = random.Random(asked.seed), alone.start(asked.workers)
    moments = [0.0, *sorted(lot.uniform(0.0, alone.marks[-1] - start) for _ in range(asked.kills))]
    spans = [after - before for before, after in pairwise(moments)]
    return [lot.uniform(0.0, start) if n % EARLY == 0 else start + span for n, span in enumerate(spans, 1)]


def stamps(output: Path) -> dict[str, tuple[int, int]]:
    """What a shard that is made anew would not keep: its inode and its time."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in output.glob(SHARDS)}


def kill_and_resume(asked: argparse.Namespace, alone: Run, folder: Path) -> dict[str, Any]:
    """Kill it so often, let it end, and compare."""
    output, says = asked.scratch / "killed", asked.scratch / "killed.txt"
    kills, done = [], dict[str, tuple[int, int]]()
    remade = set[str]()
    began = time.time()
    for life in lives(alone, asked):
        process = start_batch(asked, output, says)
        try:
            process.wait(life)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        else:
            finish(process, says)
            break
        time.sleep(0.2)  # the group's other processes end as well
        now = stamps(output)
        remade |= {name for name, stamp in done.items() if now.get(name) != stamp}
        done = now
        kills.append({"seconds": life, "shards": len(now), "half-written": len(list(output.glob(".*.parquet")))})
        print(f"kill {len(kills)}: {kills[-1]}", flush=True)
    finish(start_batch(asked, output, says), says)
    now = stamps(output)
    remade |= {name for name, stamp in done.items() if now.get(name) != stamp}
    spent = time.time() - began
    return {"kills": kills, "seconds": spent, **compare_shards(asked, folder, output), "remade shards": sorted(remade)}


def compare_shards(asked: argparse.Namespace, alone: Path, killed: Path) -> dict[str, Any]:
    """What both hold, and what differs."""
    ours, theirs = ({path.name: path for path in folder.glob(SHARDS)} for folder in (alone, killed))
    both = sorted(ours.keys() & theirs.keys())
    tables = {name: (parquet.read_table(ours[name]), parquet.read_table(theirs[name])) for name in both}
    found = [name for name in both for name in tables[name][1]["name"].to_pylist()]
    expected = sorted(str(path) for path in (asked.scratch / "images").iterdir())
    return {
        "shards": len(ours),
        "shards of one alone": sorted(ours.keys() ^ theirs.keys()),
        "other rows": [name for name in both if not tables[name][0].equals(tables[name][1])],
        "other bytes": [name for name in both if ours[name].read_bytes() != theirs[name].read_bytes()],
        "rows": len(found),
        "lost images": len(set(expected) - set(found)),
        "images twice": len(found) - len(set(found)),
        "names are the files, in order": found == expected,
        "detections": sum(len(scores) for _, table in tables.values() for scores in table["scores"].to_pylist()),
        "left half-written": len(list(killed.glob(".*"))),
        "_batch.json is equal": (alone / "_batch.json").read_text() == (killed / "_batch.json").read_text(),
    }


def is_equal(killed: Mapping[str, Any], kills: int) -> bool:
    """Whether all kills took place, and left no trace in the shards."""
    empty = ("shards of one alone", "other rows", "other bytes", "lost images", "images twice", "remade shards")
    told = killed["names are the files, in order"] and killed["_batch.json is equal"]
    return told and len(killed["kills"]) == kills and not any(killed[name] for name in empty)


def main(words: Sequence[str] | None = None) -> int:
    asked = read_options(words)
    if asked.share is not None:
        plain_share(asked)
        return 0
    with tempfile.TemporaryDirectory(prefix="fpn-batch-", dir=asked.scratch) as name:
        asked.scratch = Path(name)
        result = measure(asked)
    turns.keep(asked.keep, result)
    print(table(result))
    return 0 if asked.skip_kills or result["equal"] else 1


def read_options(words: Sequence[str] | None) -> argparse.Namespace:
    reads = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reads.add_argument("--images", type=int, default=20_000)
    reads.add_argument("--distinct", type=int, default=300, help="scenes that are drawn")
    reads.add_argument("--size", default="320x240")
    reads.add_argument("--kills", type=int, default=10)
    reads.add_argument("--workers", type=int, help="default: as many as there are cores for their threads")
    reads.add_argument("--threads", type=int, default=1, help="of each worker")
    reads.add_argument("--rounds", type=int, default=1)
    reads.add_argument("--shard-size", type=int, default=250)
    reads.add_argument("--batch-size", type=int, default=4)
    reads.add_argument("--model", type=Path, help="default: EfficientNet-Lite0 with random weights")
    reads.add_argument("--short-side", type=int, default=240, help="that the default model brings images to")
    reads.add_argument("--device", default="cpu")
    reads.add_argument("--scratch", type=Path, help="folder for a temporary one with images and results")
    reads.add_argument("--seed", type=int, default=0, help="of the kills' moments")
    reads.add_argument("--skip-kills", action="store_true")
    reads.add_argument("--keep", default="batch", help="name of the file in results/")
    reads.add_argument("--share", type=int, help=argparse.SUPPRESS)
    asked = reads.parse_args(words)
    asked.workers = asked.workers or max(1, usable_cores() // asked.threads)
    if asked.images < 2 * asked.workers * asked.shard_size:
        reads.error(
            f"{asked.images} images: at least two shards of {asked.shard_size} for each of {asked.workers} workers"
        )
    return asked


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    began = time.time()
    make_images(asked.scratch, asked.images, asked.distinct, asked.size)
    asked.model = make_model(asked.scratch, asked.short_side) if asked.model is None else asked.model.absolute()
    print(f"{asked.images} files in {time.time() - began:.1f} s", flush=True)
    rounds, batch = compare_speed(asked)
    options = (
        "images",
        "size",
        "workers",
        "threads",
        "rounds",
        "shard_size",
        "batch_size",
        "short_side",
        "device",
        "seed",
    )
    result: dict[str, Any] = {
        "options": {name: getattr(asked, name) for name in options},
        "cores": usable_cores(),
        "rounds": rounds,
        "ratio": {way: statistics.median(each["ratio"][way] for each in rounds) for way in ("going", "overall")},
    }
    if asked.skip_kills:
        return result
    killed = kill_and_resume(asked, batch, asked.scratch / f"alone-{asked.rounds - 1}")
    return {**result, "killed": killed, "equal": is_equal(killed, asked.kills)}


def table(result: Mapping[str, Any]) -> str:
    """In Markdown."""
    columns = ("images/s going", "images/s overall", "start", "first shard", "seconds")
    lines = [f"| | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
    for number, each in enumerate(result["rounds"]):
        for side in ("plain", "batch"):
            lines.append(f"| {side}, {number} | {' | '.join(f'{each[side][key]:.1f}' for key in columns)} |")
    ratio = result["ratio"]
    lines.append(f"batch / plain: {ratio['going']:.3f} going (goal {GOAL}), {ratio['overall']:.3f} overall")
    if "killed" in result:
        lines.append(told_kills(result["killed"], equal=result["equal"]))
    return "\n".join(lines)


def told_kills(killed: Mapping[str, Any], *, equal: bool) -> str:
    counts = ", ".join(f"{killed[name]} {name}" for name in ("shards", "rows", "detections"))
    said = f"{len(killed['kills'])} kills, {counts}"
    differs = {name: value for name, value in killed.items() if isinstance(value, list) and value and name != "kills"}
    outcome = "equal to the byte, nothing lost, nothing twice" if equal else f"NOT EQUAL: {differs}"
    return f"{said} in {killed['seconds']:.0f} s: {outcome}; {killed['left half-written']} half-written files left"


if __name__ == "__main__":
    sys.exit(main())
