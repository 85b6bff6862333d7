"""Every row of the table: what training sees, what a check says, and what a repair leaves."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from fpn.data import open_dataset
from fpn.data.checks.inspection import CheckReport, check
from fpn.data.checks.repair import repair
from fpn.data.issues import KINDS
from fpn.errors import DataError, FpnError

from .build import Objects
from .table import CASES, Case

# Two images are few: classes are missing from a split, and nothing can be said of anchors.
_ASIDE_FROM = {"class-unused", "class-untrained", "split-alike", "images-alike"}


def seen(root: Path, split: str | None) -> Objects:
    dataset = open_dataset(root, split=split)
    found: Objects = {}
    for number in range(len(dataset)):
        targets = dataset[number].targets  # with its image, as training reads it
        boxes = [tuple(round(value, 3) for value in box) for box in targets.boxes.tolist()]
        names = [dataset.classes[label] for label in targets.labels.tolist()]
        found[Path(dataset.path(number)).stem] = list(zip(names, boxes, strict=True))  # type: ignore[arg-type]
    return found


def looked_at(root: Path) -> CheckReport | str:
    """The report, or why there is none: then the command ends with that message and the exit status 1."""
    try:
        return check(root, workers=1)
    except FpnError as error:
        return str(error)


def judged(report: CheckReport) -> dict[str, list[str]]:
    """Kind -> messages, of those findings that are more than information."""
    found: dict[str, list[str]] = {}
    for finding in report.findings:
        if KINDS[finding.kind].severity != "information" and finding.kind not in _ASIDE_FROM:
            found.setdefault(finding.kind, []).append(finding.message)
    if "annotations-unreadable" in found:
        # Then its images belong to nothing.
        found.pop("file-aside", None)
    return found


@pytest.mark.filterwarnings("ignore::fpn.image_io.ImageWarning")  # of an image that is cut short
@pytest.mark.parametrize("case", CASES, ids=[f"{case.kind}: {case.name}" for case in CASES])
def test_a_case_is_read_right_or_refused_by_name_and_never_silent(case: Case, tmp_path: Path) -> None:
    root = tmp_path / "set"
    root.mkdir()
    for step in case.steps:
        step(root)
    if case.reads is None:
        with pytest.raises(DataError if case.says[0].startswith("|") else FpnError):
            seen(root, case.split)
    else:
        assert seen(root, case.split) == case.reads
    report = looked_at(root)
    expected = [tuple(map(str.strip, said.split("|", 1))) for said in case.says]
    if isinstance(report, str):
        assert [kind for kind, _ in expected] == [""]
        assert expected[0][1] in report
        return
    told = judged(report)
    assert sorted(told) == sorted({kind for kind, _ in expected}), told
    for kind, words in expected:
        assert any(words in message for message in told[kind]), told[kind]
    errors = [kind for kind in told if KINDS[kind].severity == "error"]
    assert report.passed == (not errors)
    assert case.reads is not None or errors
    if case.fixed is not None:
        changes = repair(report, tmp_path / "out")
        assert seen(tmp_path / "out", case.split) == case.fixed
        assert changes
        lost = sum(map(len, case.fixed.values())) < 2
        assert any("left out" in line for line in changes) or not lost
        assert not {kind for kind in judged(check(tmp_path / "out", workers=1)) if KINDS[kind].severity == "error"}


def test_the_table_has_sixty_cases_and_more_of_each_kind_that_is_about_files() -> None:
    counts = Counter(case.kind for case in CASES)
    assert len(CASES) >= 60
    assert set(counts) >= {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 15, 16}
    assert len({case.name for case in CASES}) == len(CASES)
