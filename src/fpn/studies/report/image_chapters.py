"""The chapters with drawn images: where the model fails most, and labels that are likely wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fpn.errors import FpnError
from fpn.structures import Classes
from fpn.studies.markup import Markup, join_markup, tag
from fpn.studies.report.elements import Chapter, chapter, foreign, note, paragraph, table
from fpn.studies.report.gathering import Gathered
from fpn.studies.report.label_errors import KINDS_OF_ERRORS, LabelError
from fpn.studies.report.shown_images import ImageRoom, show_pair, show_part
from fpn.studies.report.verdict import is_mostly_wrong

_MEANINGS = {
    "unlabelled": "The model is as sure as of its usual right detections, and nothing is labelled there: a forgotten "
    "label, or a mistake that it makes with conviction.",
    "unfound": "No detection of any class and score is about the label: nothing may be there, its box may lie "
    "elsewhere, or the object is of a look that training never showed.",
    "swapped": "The model is sure of another class than the label's, and less so of the label's own.",
}

_STRONG = "A model that is mostly right contradicts these labels. It may be wrong: look."
_WEAK = "The model contradicts these labels, but it is mostly wrong itself (AP50 below 0.5): most of them are right."


def worst_chapter(gathered: Gathered, most: int, room: ImageRoom) -> Chapter:
    """Images with most faults, truth beside prediction."""
    faulty, classes = len(gathered.worst), _classes(gathered)
    shown = [_worst(gathered, number, classes, room) for number in range(min(most, faulty))]
    drawn = [each for each in shown if each is not None]
    if not faulty:
        return chapter("worst", "Worst images", paragraph("There are none: everything is found, and nothing in vain."))
    return chapter(
        "worst",
        "Worst images",
        note(
            f"{len(drawn)} of the {faulty} images with faults, most faults first: the labels, then what the "
            "model says at the thresholds in use. All are listed in report.json."
        ),
        drawn,
    )


def _worst(gathered: Gathered, number: int, classes: Classes, room: ImageRoom) -> Markup | None:
    outcome, entry = gathered.outcomes[gathered.worst[number]], gathered.figures["worst_images"][number]
    try:
        shown = show_pair(gathered.dataset, outcome, classes, room)
    except FpnError:  # it was readable a while ago
        return None
    if shown is None:
        return None
    missed, wrong = (_counted(entry[key]) for key in ("missed", "wrong"))
    told = f"{entry['found']} of {entry['objects']} objects found; missed: {missed}; found in vain: {wrong}"
    return _pair(shown, entry["image"], told)


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in counts.items()) or "none"


def _pair(shown: Mapping[str, str], image: str, told: str, look: str = "pair") -> Markup:
    labelled = tag("img", src=shown["truth"], alt=f"Labels of {image}")
    found = tag("img", src=shown["found"], alt=f"Detections in {image}: {told}")
    sides = (tag("div", tag("span", what), each) for what, each in (("labels", labelled), ("model", found)))
    return tag("figure", tag("div", sides), tag("figcaption", foreign(image), f": {told}."), class_=look)


def labels_chapter(gathered: Gathered, most: int, room: ImageRoom) -> Chapter:
    """Labels to look at, kind by kind."""
    title = "Labels to look at"
    if not gathered.errors:
        return chapter("labels", title, paragraph("No label looks wrong to this model."))
    counts = {kind: sum(error.kind == kind for error in gathered.errors) for kind in KINDS_OF_ERRORS}
    classes = _classes(gathered)
    return chapter(
        "labels",
        title,
        note(
            _WEAK if is_mostly_wrong(gathered.figures) else _STRONG,
            " All are listed in label_errors.csv beside this page, the likeliest of each kind first. Labels on the "
            "left, on the right what the model says.",
        ),
        table("Kinds", ("<kind", "labels"), [(KINDS_OF_ERRORS[kind], number) for kind, number in counts.items()]),
        (_kind(gathered, kind, most, classes, room) for kind, number in counts.items() if number),
    )


def _kind(gathered: Gathered, kind: str, most: int, classes: Classes, room: ImageRoom) -> Markup:
    mine = [error for error in gathered.errors if error.kind == kind]
    drawn = list(_drawn(gathered, mine[:most], classes, room))
    title = f"{KINDS_OF_ERRORS[kind].capitalize()}: {len(drawn)} of {len(mine)}"
    return join_markup([tag("h3", title), note(_MEANINGS[kind]), tag("div", drawn, class_="parts")])


def _drawn(gathered: Gathered, errors: Sequence[LabelError], classes: Classes, room: ImageRoom) -> Iterator[Markup]:
    by_index = {outcome.index: outcome for outcome in gathered.outcomes}
    for error in errors:
        try:
            shown = show_part(gathered.dataset, error, by_index[error.index], classes, room)
        except FpnError:
            continue
        if shown is not None:
            yield _pair(shown, error.image, _told(error), "pair part")


def _told(error: LabelError) -> str:
    place = ", ".join(f"{value:.0f}" for value in error.box)
    said = {
        "unlabelled": f"{error.found} with a score of {error.score or 0:.2f}, and no label",
        "unfound": f"labelled {error.labelled}, and nothing is found",
        "swapped": f"labelled {error.labelled}, but {error.found} with a score of {error.score or 0:.2f}",
    }[error.kind]
    return f"{said}, at {place}"


def _classes(gathered: Gathered) -> Classes:
    names = tuple(gathered.figures["confusion"]["classes"])
    ids: dict[str, Any] = dict(zip(gathered.dataset.classes.names, gathered.dataset.classes.ids, strict=True))
    return Classes(names, tuple(ids[name] for name in names))
