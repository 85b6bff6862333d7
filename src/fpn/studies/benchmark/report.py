"""The report of `fpn benchmark` as tables."""

from __future__ import annotations

from typing import cast

from fpn.studies.benchmark.running import BenchmarkReport
from fpn.studies.benchmark.stages import STAGES
from fpn.studies.tables import TextTable


def text_tables(report: BenchmarkReport) -> list[TextTable]:
    """Rows, stages and memory: those of them that were measured."""
    found = [_machine(report)]
    if report.rows:
        found.append(_rows(report))
    if report.stages:
        found.append(_stages(report))
    if report.memory:
        found.append(_memory(report))
    return found


def _machine(report: BenchmarkReport) -> TextTable:
    about = {name: value for name, value in report.machine.items() if value is not None}
    rates = ", ".join(f"{name} {rate:.3g}" for name, rate in report.rates.items())
    rows = [(name.replace("_", " "), str(value)) for name, value in about.items()]
    rows.append(("matrix product, GFLOP/s", rates))
    network = (str(report.settings[name]) for name in ("detector", "backbone", "device"))
    rows.append(("network", f"{', '.join(network)}, {_size(report)}"))
    return TextTable(title="Machine", columns=("what", "is"), rows=tuple(rows), notes=tuple(report.notes))


def _size(report: BenchmarkReport) -> str:
    height, width = cast("list[int]", report.settings["size"])
    return f"{width}x{height}"


def _rows(report: BenchmarkReport) -> TextTable:
    rows = tuple(
        (
            row.work,
            _time(row.seconds),
            _time(row.their_seconds),
            f"{row.ratio:.2f}",
            f"{row.busy_ratio:.2f}",
            row.agreement,
        )
        for row in report.rows
    )
    return TextTable(
        title="Side by side with torchvision",
        columns=("work", ">fpn", ">theirs", ">ratio", ">CPU", "outputs"),
        rows=rows,
        notes=(
            f"Medians of {report.settings['repeats']} turns. ratio: how many times as fast as torchvision; "
            "CPU: the same by processor time.",
            "twins: of torchvision's sure detections, the share that ours has too, of the same class with IoU > 0.9.",
        ),
    )


def _stages(report: BenchmarkReport) -> TextTable:
    sides = list(report.stages)
    ours = report.stages[sides[-1]]
    rate = max(report.rates.values()) if "bf16" in sides[-1] else report.rates["float32"]
    rows = []
    for stage in STAGES:
        if not any(report.stages[side][stage] for side in sides):
            continue  # a stage that this kind of detector does not have
        times = [_time(report.stages[side][stage]) for side in sides]
        work = report.gigaflops.get(stage)
        speed = work / max(ours[stage], 1e-9) if work else None
        share = () if speed is None or work is None else (f"{work:.3g}", f"{speed:.0f}", f"{100 * speed / rate:.0f} %")
        rows.append((stage, *reversed(times), *(share or ("", "", ""))))
    return TextTable(
        title=f"Stages: {sides[-1]}",
        columns=("stage", ">fpn", ">theirs", ">GFLOP", ">GFLOP/s", ">of matmul"),
        rows=tuple(rows),
        notes=(
            "GFLOP is what the plain network needs; where a convolution is computed with fewer multiplications "
            "(Winograd), GFLOP/s may exceed the matrix product's.",
        ),
    )


def _memory(report: BenchmarkReport) -> TextTable:
    rows = tuple(
        (work, f"{found['fpn']:.0f}", f"{found['torchvision']:.0f}", f"{found['fpn'] / found['torchvision']:.2f}")
        for work, found in report.memory.items()
        if {"fpn", "torchvision"} <= set(found)
    )
    return TextTable(title="Peak memory, MiB", columns=("work", ">fpn", ">theirs", ">ratio"), rows=rows)


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"
