"""The short answer at the top: how good it is, what counts, what costs most, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fpn.wording import counted

# A stage or kind that gives back less is not worth a remedy of its own, points of AP.
_WORTH = 0.3
# Below so many images or objects, figures jump about.
_FEW_IMAGES, _FEW_OBJECTS = 20, 100
# AP50 below which a model is wrong so often that what contradicts it says nothing of the labels.
_MOSTLY_WRONG = 0.5


def verdict(figures: Mapping[str, Any]) -> dict[str, Any]:
    """ReportFigures for the first glance, sentences, and cautions: what is to be known before one believes them.

    Args:
        figures: as `gather` makes them.
    """
    sentences = [_accuracy(figures), _point(figures), _costs(figures), _weakest(figures), _labels(figures)]
    return {
        "sentences": [sentence for sentence in sentences if sentence],
        "cautions": _cautions(figures),
    }


def share(value: float | None) -> str:
    """As people say it: "93 %", or a dash."""
    return "-" if value is None else f"{100 * value:.0f} %"


def grade(value: float | None) -> str:
    """An average precision, or a dash."""
    return "-" if value is None else f"{value:.3f}"


def _accuracy(figures: Mapping[str, Any]) -> str:
    numbers, interval = figures["figures"], (figures["intervals"] or {}).get("ap")
    if numbers["ap"] is None:
        return "These images have no object that counts, so no AP can be measured on them."
    within = ""
    if figures["dataset"]["learned"]:
        within = " (expect less on other images: the model was trained on some or all of these)"
    elif interval and interval[1] is not None:
        within = f" (on other images of this kind most likely {interval[1]:.2f} to {interval[2]:.2f})"
    half = grade(numbers["ap50"])
    said = f"Average precision (AP) is {numbers['ap']:.3f}{within}; with boxes that need to fit by half only, {half}."
    beside = [f" Of {task} it is {grade(numbers[task]['ap'])}." for task in ("masks", "keypoints") if numbers.get(task)]
    return "".join([said, *beside])


def _point(figures: Mapping[str, Any]) -> str:
    point = figures["operating_point"]
    scores = sorted(point["thresholds"].values())
    span = f"{scores[0]:.2f}" if scores[0] == scores[-1] else f"{scores[0]:.2f} to {scores[-1]:.2f}, by class"
    if point["how"] == "calibrated":
        on = point["chosen_on"]
        where = f"{on['dataset']} ({counted(on['images'], 'image')})"
        return f"Threshold in use: {span}, as fpn calibrate chose it for {point['goal']} on {where}."
    said = f"Threshold in use: {span} for all classes, as the model was not calibrated."
    now, best = point["overall"]["f1"], (point["best_f1_overall"] or {}).get("f1")
    if now is not None and best is not None and best > now + 0.005:
        said += f" Thresholds by class would raise F1 from {now:.2f} to up to {best:.2f}: fpn calibrate MODEL DATA."
    return said


def _costs(figures: Mapping[str, Any]) -> str:
    budget = figures["budget"]
    if not budget["found"] or figures["figures"]["ap"] is None:
        return ""
    lines = [*budget["stages"], *(line for line in budget["kinds"] if line["name"] != "missed")]
    worst = max(lines, key=lambda line: line["points"], default=None)
    if worst is None or worst["points"] < _WORTH:
        return "No single fault costs much: none would give back as much as 0.3 points of AP."
    fault = (
        f"{worst['count']} of {budget['objects']} objects are lost: {worst['title']}"
        if worst in budget["stages"]
        else f"{worst['count']} detections are false: {worst['title']}"
    )
    return f"What costs most: {fault} ({worst['points']:.1f} points, hundredths of AP). What helps: {worst['remedy']}."


def _weakest(figures: Mapping[str, Any]) -> str:
    classes = [each for each in figures["figures"]["per_class"] if each["ap"] is not None]
    if len(classes) < 2:
        return ""
    worst = min(classes, key=lambda each: each["ap"])
    return f"Weakest class: {worst['name']}, AP {worst['ap']:.3f} on {counted(worst['objects'], 'object')}."


def _labels(figures: Mapping[str, Any]) -> str:
    count = len(figures["label_errors"])
    if not count:
        return ""
    if is_mostly_wrong(figures):
        return "Labels that look wrong to it say little: it is mostly wrong itself."
    looks = "label looks" if count == 1 else "labels look"
    return f"{count} {looks} wrong or missing: look at them before you train again."


def is_mostly_wrong(figures: Mapping[str, Any]) -> bool:
    """Whether the model, not the labels, is to be doubted where they contradict each other."""
    return (figures["figures"]["ap50"] or 0.0) < _MOSTLY_WRONG


def _cautions(figures: Mapping[str, Any]) -> list[str]:
    data, numbers, said = figures["dataset"], figures["figures"], []
    if data["learned"]:
        said.append(f"The model {data['learned']}")
    if data["images"] < _FEW_IMAGES or 0 < numbers["objects"] < _FEW_OBJECTS:
        few = f"{counted(data['images'], 'image')}, {counted(numbers['objects'], 'object')}"
        alone = " With one image there are no intervals, either: nothing tells how far these figures may be off."
        said.append(f"These are few: {few}. Another sample may tell another story.{alone * (data['images'] == 1)}")
    if data["unreadable"]:
        said.append(f"Left out, as it can't be read: {counted(len(data['unreadable']), 'image')}.")
    left_out = {name: count for name, count in numbers["left_out"].items() if count}
    if left_out:
        told = ", ".join(f"{name} ({count})" for name, count in left_out.items())
        said.append(f"Not measured, as the model does not know it: {told}.")
    limit = numbers["limit"]
    if limit is not None and limit["advice"]:
        advice = limit["advice"]
        said.append(f"{advice[0].upper()}{advice[1:]}. Allow more with --max-detections.")
    errors = [kind for kind in figures["check"].get("findings", []) if kind["severity"] == "error"]
    if errors:
        told = "; ".join(f"{kind['what']} ({kind['count']})" for kind in errors)
        said.append(f"The data have faults that fpn check names: {told}.")
    return said
