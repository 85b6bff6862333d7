"""The process that runs the inputs, with one of two engines behind it."""

from __future__ import annotations

import argparse
import atexit
import faulthandler
import json
import os
import random
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FunctionType

from fuzz.guard import Bounds, arm, bounds_of, outcome, peak_mebibytes, processor_seconds
from fuzz.minimising import minimised
from fuzz.mutations import LONGEST, USUALLY_LONGEST, mutate
from fuzz.seeds import SEEDS
from fuzz.targets import TARGETS, Target

# So many inputs of one kind of finding are counted; the first is kept.
_COUNTED = 5
_JOURNAL_EVERY = 500
# Seconds by the clock for so many inputs, on a machine that others may keep busy.
_HANGING = 3600


@dataclass
class MetricsLog:
    """What was run and found so far, on disk often enough to survive a crash."""

    file: Path
    findings_folder: Path
    reader: str
    target: Target
    bounds: Bounds
    next: int
    marker: int
    before: int = 0
    inputs: int = 0
    read: int = 0
    refused: int = 0
    slowest: float = 0.0
    findings: dict[str, list[int]] = field(default_factory=dict)

    def run(self, number: int, data: bytes) -> None:
        """Run one input and take down what came of it."""
        started = processor_seconds()
        self.next = number
        os.pwrite(self.marker, b"%-20d" % number, 0)
        what = outcome(self.target, data, self.bounds)
        self.slowest = max(self.slowest, round(processor_seconds() - started, 3))
        self.inputs += 1
        self.next = number + 1
        if what is None:
            self.read += 1
        elif what == "":
            self.refused += 1
        else:
            self._found(what, number, data)
        if self.inputs % _JOURNAL_EVERY == 0:
            self.save()

    def _found(self, what: str, number: int, data: bytes) -> None:
        numbers = self.findings.setdefault(what, [])
        if len(numbers) < _COUNTED:
            numbers.append(number)
        if len(numbers) == 1:
            print(f"{self.reader} {number}: {what}", flush=True)
            self.findings_folder.mkdir(parents=True, exist_ok=True)
            kept = minimised(data, lambda part: outcome(self.target, part, self.bounds) == what)
            (self.findings_folder / f"{self.reader}-{number}.bin").write_bytes(kept)
        self.save()

    def save(self) -> None:
        """Write everything down."""
        keys = ("next", "before", "inputs", "read", "refused", "slowest", "findings")
        record = {key: getattr(self, key) for key in keys}
        self.file.write_text(json.dumps({**record, "peak": peak_mebibytes()}))


def work(options: argparse.Namespace) -> None:
    """Run the inputs of one reader."""
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    (reader,) = options.readers
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        seeds = SEEDS[reader]()
        target, bounds = TARGETS[reader](Path(folder)), bounds_of(reader)
        journal = MetricsLog(
            options.worker, options.findings, reader, target, bounds, options.first, _marker(options.worker)
        )
        for seed in seeds:
            outcome(target, seed, bounds)
        journal.save()
        journal.before = peak_mebibytes()
        {"mutate": _mutate, "atheris": _atheris}[options.engine](options, reader, seeds, journal)
        journal.save()


def _marker(journal: Path) -> int:
    """A file that holds the number of the input that is being run, for when it kills the process."""
    return os.open(journal.with_suffix(".now"), os.O_CREAT | os.O_WRONLY)


def _mutate(options: argparse.Namespace, reader: str, seeds: list[bytes], journal: MetricsLog) -> None:
    arm(journal.bounds)
    for number in range(options.first, options.first + options.count):
        data = mutate(reader, seeds, random.Random(f"{options.seed}/{reader}/{number}"))
        if number % _JOURNAL_EVERY == 0:
            # C code that hangs never lets the alarm through: then the process ends, and the input is known.
            faulthandler.dump_traceback_later(_HANGING, exit=True)
        journal.run(number, data)
    faulthandler.cancel_dump_traceback_later()


def _atheris(options: argparse.Namespace, reader: str, seeds: list[bytes], journal: MetricsLog) -> None:
    """Guided by which branches an input reaches; half of the new inputs are changed by structure, as above."""
    import atheris

    _watch(atheris.instrument_func)
    place = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    for number, seed in enumerate(seeds):
        (place / f"seed-{number}").write_bytes(seed)

    def run(data: bytes) -> None:
        journal.run(journal.next, data)

    def change(data: bytes, longest: int, seed: int) -> bytes:
        dice = random.Random(seed)
        if dice.random() < 0.5:
            return bytes(atheris.Mutate(data, longest))
        return mutate(reader, [data], dice)[:longest]

    longest = LONGEST.get(reader, USUALLY_LONGEST)
    libfuzzer = [f"-runs={options.count}", f"-seed={options.seed + 1}", f"-max_len={longest}", "-rss_limit_mb=4096"]
    libfuzzer += [f"-timeout={10 * int(journal.bounds.seconds)}", "-verbosity=0", str(place)]
    atheris.Setup([sys.argv[0], *libfuzzer], run, custom_mutator=change)
    arm(journal.bounds)
    # libFuzzer ends the process itself, without a word to Python's `finally`.
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    atexit.register(journal.save)
    atheris.Fuzz()


def _watch(instrument: Callable[[FunctionType], object]) -> None:
    """Report branches of everything that `fpn` reads files with, and of the parsers in Python behind it."""
    names = [name for name in sys.modules if name.startswith(("fpn.data.", "fpn.interop.", "yaml.", "json."))]
    for name in [*names, "fpn.image_io", "fpn.detectors.model_file", "fpn.detectors.recipe"]:
        for holder in vars(sys.modules[name]).copy().values():
            owned = vars(holder).values() if isinstance(holder, type) else [holder]
            for each in owned:
                if isinstance(each, FunctionType) and each.__module__ == name:
                    instrument(each)
