from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest

import fpn
from fpn.detectors import TwoStageDetector
from fpn.errors import ConfigError, DataError, ImageError, OutputError
from fpn.inference.optimize import optimize
from fpn.structures import Thresholds

from .greys import Find, Thing, finder, labelled

NAMES = ("nut", "bolt")
LEFT, RIGHT, LOW = (2.0, 2.0, 22.0, 22.0), (30.0, 2.0, 50.0, 22.0), (2.0, 34.0, 40.0, 54.0)
BOTH: list[Thing] = [("nut", LEFT), ("bolt", RIGHT)]
SEEN: list[Find] = [("nut", LEFT, 0.9), ("bolt", RIGHT, 0.8)]
CHAPTERS = [
    "verdict", "ap", "thresholds", "confusion", "calibration", "sizes", "budget", "worst", "labels", "training", "data",
    "model", "speed",
]  # fmt: skip


class Page(HTMLParser):
    """Elements and addresses of a page, and whether it is balanced."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.unscoped = 0
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self.addresses += [given[key] or "" for key in ("src", "href", "action", "data") if key in given]
        self.unscoped += tag == "th" and "scope" not in given
        assert tag != "img" or given.get("alt")
        assert "style" not in given
        assert not [key for key in given if key.startswith("on")]
        if tag == "h2":
            self.headings.append(given["id"] or "")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def write(root: Path, scenes: Sequence[Sequence[Thing]], finds: Sequence[Sequence[Find]], **options: object) -> Path:
    dataset = labelled(root / "set", scenes, NAMES)
    return fpn.report(finder(NAMES, dict(enumerate(finds, 1))), dataset, root / "out", workers=0, **options)


def figures(page: Path) -> dict:
    return json.loads(page.with_name("report.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images: all right, a bolt taken for a nut, one missed and one invented."""
    root = tmp_path_factory.mktemp("report")
    return write(root, [BOTH, BOTH, BOTH], [SEEN, [("nut", LEFT, 0.9), ("nut", RIGHT, 0.7)], [("nut", LOW, 0.6)]])


def test_all_chapters_are_there_in_order_and_every_table_has_its_caption(page: Path) -> None:
    read = Page(page)
    assert read.headings == CHAPTERS
    assert read.tags.count("caption") == read.tags.count("table") > 5
    assert read.unscoped == 0
    assert {"main", "nav", "svg", "img"} <= set(read.tags)


def test_the_page_asks_for_nothing_from_outside_and_runs_nothing(page: Path) -> None:
    read = Page(page)
    assert {address.partition(":")[0] if ":" in address else address[:1] for address in read.addresses} == {"data", "#"}
    assert "script" not in read.tags
    assert not re.search(r"https?:|url\(|@import|//", re.sub(r'"data:[^"]*"', "", read.text))
    assert "default-src &#x27;none&#x27;; img-src data:; style-src &#x27;sha256-" in read.text


def test_its_figures_are_those_of_evaluate(page: Path, tmp_path: Path) -> None:
    dataset = labelled(tmp_path / "set", [BOTH, BOTH, BOTH], NAMES)
    finds = {1: SEEN, 2: [("nut", LEFT, 0.9), ("nut", RIGHT, 0.7)], 3: [("nut", LOW, 0.6)]}
    measured = fpn.evaluate(optimize(finder(NAMES, finds), "auto"), dataset, workers=0)
    without_time = {key: value for key, value in measured.to_dict().items() if key != "seconds"}
    mine = figures(page)
    assert {key: value for key, value in mine["figures"].items() if key != "seconds"} == without_time
    kept = json.loads(page.with_name("figures.json").read_text())
    assert {key: value for key, value in kept.items() if key not in ("made_by", "version")} == mine["figures"]
    assert mine["intervals"]["ap"][0] == pytest.approx(measured.ap)
    assert len(json.loads(page.with_name("detections.json").read_text())) == len(measured.detections) == 5


def test_what_it_says_at_the_threshold_in_use(page: Path) -> None:
    told = figures(page)
    point = told["operating_point"]
    assert (point["how"], point["thresholds"]) == ("usual", {"nut": 0.5, "bolt": 0.5})
    # Of six objects three are found, by three of five detections.
    assert (point["overall"]["recall"], point["overall"]["precision"]) == (0.5, 0.6)
    assert told["confusion"]["table"] == [[2, 0, 1], [1, 1, 1], [1, 0, 0]]
    assert [each["image"] for each in told["worst_images"]] == ["images/3.png", "images/2.png"]
    assert told["worst_images"][0] | {"found": 0} == {
        "image": "images/3.png", "objects": 2, "found": 0, "missed": {"nut": 1, "bolt": 1}, "wrong": {"nut": 1},
    }  # fmt: skip
    assert told["budget"]["why"].startswith("a seer can't be diagnosed")


def test_a_model_with_thresholds_is_judged_at_them(tmp_path: Path) -> None:
    detector = finder(NAMES, {1: SEEN})
    detector.thresholds = Thresholds((0.5, 0.85), "f1", "val", 40, (True, True))
    told = figures(fpn.report(detector, labelled(tmp_path / "set", [BOTH], NAMES), tmp_path / "out", workers=0))
    assert told["operating_point"]["how"] == "calibrated"
    assert told["operating_point"]["overall"]["recall"] == 0.5  # the bolt's score is 0.8
    assert "for f1 on val (40 images)" in " ".join(told["verdict"]["sentences"])


def test_label_errors_are_in_the_page_and_the_table(tmp_path: Path) -> None:
    page = write(tmp_path, [BOTH, BOTH, [("nut", LEFT)]], [SEEN] * 3)
    assert [(each["kind"], each["found"]) for each in figures(page)["label_errors"]] == [("unlabelled", "bolt")]
    with page.with_name("label_errors.csv").open(encoding="utf-8-sig", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert (row["image"], row["x1"], row["y2"]) == ("images/3.png", "30.0", "22.0")
    assert "bolt with a score of 0.80, and no label, at 30, 2, 50, 22" in Page(page).text


def test_hostile_names_of_classes_and_files_are_text(tmp_path: Path) -> None:
    names = ('<script>alert("1")</script>', "</title><img src=x onerror=alert(1)>", "bolt' onload='x", "\u202eevil")
    scenes = [[(name, LEFT)] for name in names] * 2
    finds = [[(names[(number + 1) % 4], LEFT, 0.9)] for number in range(8)]
    dataset = labelled(tmp_path / "set", scenes, names, names='{}"><b onclick=x>&.png')
    detector = finder(names, dict(enumerate(finds, 1)))
    page = fpn.report(detector, dataset, tmp_path / "out", name="<i>m</i>.safetensors", workers=0)
    read = Page(page)  # finds nothing that was not ours, or fails
    assert set(read.tags).isdisjoint({"script", "b", "i"})
    assert read.tags.count("title") == 1 + read.tags.count("svg")
    assert "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;" in read.text


@pytest.mark.parametrize(
    ("scenes", "finds"),
    [
        ([BOTH, BOTH], [[], []]),  # a model that finds nothing
        ([[], []], [SEEN, []]),  # data without objects
        ([[], []], [[], []]),
        ([BOTH], [SEEN]),  # one image
    ],
)
def test_with_little_to_say_it_is_a_whole_report(
    tmp_path: Path, scenes: list[list[Thing]], finds: list[list[Find]]
) -> None:
    page = write(tmp_path, scenes, finds)
    assert Page(page).headings == CHAPTERS
    assert figures(page)["intervals"] is None or len(scenes) > 1


@pytest.mark.parametrize("count", [1, 80])
def test_one_class_and_eighty(tmp_path: Path, count: int) -> None:
    names = [f"class {number}" for number in range(count)]
    scenes = [[(name, LEFT)] for name in names[:5]]
    finds = {number: [(scene[0][0], LEFT, 0.9)] for number, scene in enumerate(scenes, 1)}
    dataset = labelled(tmp_path / "set", scenes, names)
    page = fpn.report(finder(names, finds), dataset, tmp_path / "out", workers=0)
    assert Page(page).headings == CHAPTERS
    assert len(figures(page)["curves"]) == count
    assert ("Confusion matrix (objects)" in Page(page).text) == (count == 1)


def test_classes_that_the_model_does_not_know_are_named(tmp_path: Path) -> None:
    dataset = labelled(tmp_path / "set", [[("nut", LEFT), ("cog", RIGHT)]] * 2, ("cog", "nut"))
    with pytest.warns(match="does not know 'cog'"):
        page = fpn.report(finder(NAMES, {1: SEEN, 2: SEEN}), dataset, tmp_path / "out", workers=0)
    assert "Not measured, as the model does not know it: cog (2)." in figures(page)["verdict"]["cautions"]


def test_no_class_in_common_is_an_error_before_anything_is_written(tmp_path: Path) -> None:
    dataset = labelled(tmp_path / "set", [[("cog", LEFT)]], ("cog",))
    with pytest.raises(ConfigError, match="another dataset than this model is for"):
        fpn.report(finder(NAMES, {1: SEEN}), dataset, tmp_path / "out", workers=0)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_images_that_cannot_be_read_stop_it_or_are_named(tmp_path: Path) -> None:
    dataset = labelled(tmp_path / "set", [BOTH, BOTH, BOTH], NAMES)
    (tmp_path / "set/images/2.png").write_bytes(b"no image")
    detector = finder(NAMES, {1: SEEN, 3: SEEN})
    with pytest.raises(ImageError, match=r"2\.png"):
        fpn.report(detector, dataset, tmp_path / "out", workers=0)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    told = figures(fpn.report(detector, dataset, tmp_path / "out", workers=0, skip_unreadable=True))
    assert (list(told["dataset"]["unreadable"]), told["dataset"]["images"]) == (["images/2.png"], 2)
    for number in (1, 3):
        (tmp_path / f"set/images/{number}.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="none of its 3 images can be read"):
        fpn.report(detector, dataset, tmp_path / "other", workers=0, skip_unreadable=True)


def test_a_folder_with_something_in_it_and_numbers_out_of_range_are_refused(tmp_path: Path) -> None:
    dataset = labelled(tmp_path / "set", [BOTH], NAMES)
    with pytest.raises(OutputError, match="is already there"):
        fpn.report(finder(NAMES, {1: SEEN}), dataset, tmp_path / "set")
    with pytest.raises(ConfigError, match="worst -1"):
        fpn.report(finder(NAMES, {1: SEEN}), dataset, tmp_path / "out", worst=-1)


def test_images_stop_where_their_room_ends(tmp_path: Path) -> None:
    scenes, finds = [BOTH] * 6, [[]] * 6
    page = write(tmp_path, scenes, finds, room=0.015)
    assert 0 < Page(page).text.count("data:image/jpeg") < 12


def test_what_a_stopped_run_measured_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = labelled(tmp_path / "set", [BOTH, BOTH], NAMES)
    detector = finder(NAMES, {1: SEEN, 2: SEEN})

    def stop() -> None:
        raise KeyboardInterrupt

    left: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        fpn.report(detector, dataset, tmp_path / "out", workers=0, check=stop, tell=left.append)
    draft = tmp_path / ".out.fpn-report"
    assert left == [f"what was measured is kept in {draft}: the same command goes on from there"]
    monkeypatch.setattr("fpn.studies.report.gathering.evaluate", stop)
    told: list[str] = []
    page = fpn.report(detector, dataset, tmp_path / "out", workers=0, tell=told.append)
    assert figures(page)["figures"]["ap"] == pytest.approx(1.0)
    assert told == [f"going on with what an earlier run left in {draft}"]


def test_the_budget_is_what_diagnose_says(small: TwoStageDetector, tmp_path: Path) -> None:
    names = small.classes.names
    dataset = labelled(tmp_path / "set", [[(names[0], LEFT), (names[1], LOW)]] * 2, names)
    page = fpn.report(small, dataset, tmp_path / "out", workers=0, batch_size=2)
    budget = figures(page)["budget"]
    full = json.loads(page.with_name("diagnosis.json").read_text())
    assert budget["stages"] == full["stages"]
    assert (budget["objects"], budget["threshold"]) == (4, 0.5)
    assert f"{budget['lost']} of 4 objects are lost" in Page(page).text
