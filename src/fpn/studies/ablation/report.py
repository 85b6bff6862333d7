"""An ablation's folder as tables, markdown, JSON and a chart; also into a page that has a place for them."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from fpn.errors import ConfigError, DataNotFoundError
from fpn.features.necks.designs import DESIGNS
from fpn.files import taken, write_text
from fpn.spreadsheets import write_csv
from fpn.studies.ablation.chart import chart
from fpn.studies.ablation.outcomes import OutcomeFolder
from fpn.studies.ablation.tables import Findings, text_tables, to_json, verdicts
from fpn.wording import counted

BEGIN, END = "<!-- ablation: begin -->", "<!-- ablation: end -->"
PAGE, FIGURES, CHART, TABLE = "ablation.md", "ablation.json", "ablation.svg", "ablation.csv"


def findings_of(folder: OutcomeFolder) -> Findings:
    """All that is complete in the folder, also rows and seeds of earlier calls."""
    return Findings(outcomes=list(folder.outcomes(tuple(DESIGNS))), costs=folder.read_costs())


def write_report(folder: OutcomeFolder, *, command: str, page: Path | None = None) -> list[Path]:
    """Write `ablation.md`, `ablation.json`, `ablation.csv` and `ablation.svg` into the folder.

    Args:
        folder: with at least one complete row.
        command: what was typed, to be shown.
        page: also put the tables between the markers of this markdown file, and the chart beside it.

    Returns:
        What was written.

    Raises:
        DataNotFoundError, ConfigError: no such page, or one without markers.
    """
    findings = findings_of(folder)
    image = chart(findings)
    about = {"command": command, "settings": folder.settings, "machine": machine()}
    body = markdown(findings, about)
    files = {
        folder.root / PAGE: f"# What the pyramid is worth\n\n{body.replace('CHART', CHART)}",
        folder.root / FIGURES: json.dumps({**about, **to_json(findings)}, indent=2) + "\n",
        folder.root / CHART: image,
    }
    if page is not None:
        beside = page.with_suffix(".svg")
        files |= {page: _filled(page, body.replace("CHART", beside.name)), beside: image}
    for path, text in files.items():
        write_text(path, text)
    return [*files, write_csv(folder.root / TABLE, _rows(findings))]


def _rows(findings: Findings) -> list[dict[str, object]]:
    """Each design with each seed."""
    return [{**{k: v for k, v in vars(each).items() if k != "figures"}, **each.figures} for each in findings.outcomes]


def check_page(page: Path) -> None:
    """See that a page has a place for the tables, and none of the user's files one's name, before hours of work.

    Raises:
        DataNotFoundError, ConfigError: no such page, or one without markers.
        OutputError: where the chart would go lies a file that the page does not show between the markers.
    """
    beside = page.with_suffix(".svg")
    shown = page.read_text(encoding="utf-8") if page.is_file() else ""
    if _filled(page, "") and beside.exists() and f"]({beside.name})" not in shown.partition(BEGIN)[2].partition(END)[0]:
        raise taken(beside, "file", by="fpn ablate --page", otherwise="move it")


def markdown(findings: Findings, about: Mapping[str, Any]) -> str:
    """Tables and what they say; the chart's name is CHART."""
    return "\n".join(_lines(findings, about)) + "\n"


def _lines(findings: Findings, about: Mapping[str, Any]) -> Iterator[str]:
    data, device = about["settings"]["data"], about["settings"]["device"]
    yield from ("```console", about["command"], "```", "")
    seeds = ", ".join(map(str, findings.seeds))
    yield f"Trained on {_data(data['training'])}, measured on {_data(data['held_out'])}, seeds {seeds}."
    yield from (f"Machine: {about['machine']}, {device['precision']}.", "")
    yield from (f"- {sentence}" for sentence in verdicts(findings))
    yield from ("", "![A dot for each seed, a bar at their mean](CHART)")
    for table in text_tables(findings, wide=True):
        yield from ("", table.markdown(depth=3))


def machine() -> str:
    """What the figures were measured on."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    return f"{_processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine() or os.name)


def _data(about: Mapping[str, Any]) -> str:
    return f"{counted(about['images'], 'image')} of {about['name']}"


def _filled(page: Path, body: str) -> str:
    if not page.is_file():
        raise DataNotFoundError(f"{page}: no such page to put the tables into")
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ConfigError(f"{page}: has no place for the tables. Put the lines {BEGIN} and {END} where they should go.")
    return f"{before}{begin}\n\n{body}\n{end}{after}"
