"""`python -m fuzz READER [--count N] [--seed S] [--engine mutate|atheris] [--jobs J]`, in `benchmarks/`.

Input number i of a seed is always the same. A run that dies (a crash of C code) is begun again after the input that
killed it, which is a finding. Exit status 1 if there is any.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

from fuzz.targets import TARGETS

RESULTS = Path(__file__).resolve().parent.parent / "results" / "fuzz"


def main() -> int:
    """Fuzz the readers that are asked for, one after the other."""
    options = _parser().parse_args()
    if options.worker:
        from fuzz.workers import work

        work(options)
        return 0
    found = [_fuzz(reader, options) for reader in options.readers or TARGETS]
    return 1 if any(found) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("readers", nargs="*", help=f"of {', '.join(TARGETS)}; none: all")
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", choices=("mutate", "atheris"), default="mutate")
    parser.add_argument("--jobs", type=int, default=1, help="processes that share the inputs of a reader")
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--findings", type=Path, default=Path("findings"), help="folder for what was found")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    return parser


def _fuzz(reader: str, options: argparse.Namespace) -> int:
    from fpn.studies.benchmark.machine import describe_machine

    started, end = time.perf_counter(), options.first + options.count
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        bounds = [options.first + options.count * k // options.jobs for k in range(options.jobs)] + [end]
        with ThreadPoolExecutor(options.jobs) as jobs:
            slices = [jobs.submit(_slice, reader, options, Path(folder), *pair) for pair in pairwise(bounds)]
            records = [record for each in slices for record in each.result()]
    record = _together(reader, options, records, time.perf_counter() - started)
    print(json.dumps(record, indent=1), flush=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    record = {**describe_machine(), **record}
    (RESULTS / f"{reader}-{options.engine}.json").write_text(json.dumps(record, indent=1) + "\n")
    return len(record["findings"])


def _slice(reader: str, options: argparse.Namespace, folder: Path, first: int, end: int) -> list[dict]:
    """Run the inputs `first` to `end` in a process of their own; begin another one after an input that kills it."""
    records: list[dict] = []
    while first < end:
        journal = folder / f"journal-{first}.json"
        words = [sys.executable, "-m", "fuzz", reader, "--engine", options.engine, "--seed", str(options.seed)]
        words += ["--first", str(first), "--count", str(end - first)]
        words += ["--findings", str(options.findings.resolve()), "--worker", str(journal)]
        status = subprocess.run(words, check=False, cwd=Path(__file__).resolve().parent.parent).returncode
        records.append(json.loads(journal.read_text()))
        first = records[-1]["next"]
        if status:
            first = int(journal.with_suffix(".now").read_text() or first)
            records[-1]["findings"][f"died with status {status}"] = [first]
            first += 1
    return records


def _together(reader: str, options: argparse.Namespace, records: list[dict], seconds: float) -> dict:
    from fuzz.guard import bounds_of

    findings: dict[str, list[int]] = {}
    for record in records:
        for what, numbers in record["findings"].items():
            findings.setdefault(what, []).extend(numbers)
    return {
        "reader": reader,
        "engine": options.engine,
        "seed": options.seed,
        "first": options.first,
        "jobs": options.jobs,
        "inputs": sum(record["inputs"] for record in records),
        "read": sum(record["read"] for record in records),
        "refused": sum(record["refused"] for record in records),
        "seconds": round(seconds, 1),
        "inputs_per_second": round(sum(record["inputs"] for record in records) / seconds),
        "slowest_seconds": max(record["slowest"] for record in records),
        "peak_mebibytes": max(record["peak"] for record in records),
        "peak_mebibytes_before": max(record["before"] for record in records),
        "bound_seconds": bounds_of(reader).seconds,
        "bound_mebibytes": bounds_of(reader).mebibytes,
        "findings": findings,
    }


if __name__ == "__main__":
    sys.exit(main())
