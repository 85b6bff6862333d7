"""What the words of the page mean, for a person who reads such a page for the first time."""

from __future__ import annotations

from fpn.studies.markup import Markup, join_markup, tag
from fpn.studies.report.elements import fold_away, note

# Word -> its meaning, in the order in which the page uses them.
_WORDS = {
    "detection, score": "a box that the model drew, with a class, and how sure it is of it, from 0 to 1.",
    "threshold": "the score from which on a detection counts. A higher one lets fewer wrong detections through, and "
    "misses more objects.",
    "precision, recall, F1": "precision: of the detections, how many are right. Recall: of the objects, how many were "
    "found. Where one rises, the other mostly falls; F1 is one number for both.",
    "IoU": "how well two boxes lie on each other: the area that they share, divided by the area that they cover "
    "together. 1 is the same box.",
    "AP": "average precision, from 0 to 1: precision and recall at all thresholds in one number. It asks for boxes "
    "that fit ever better, up to an IoU of 0.95; AP50 asks for an IoU of 0.5 alone, and is the easier one.",
    "95 % interval": "how far a figure may be off because other images of the same kind were not measured. With few "
    "images it is wide. Two models whose intervals overlap much may be equally good (fpn compare tells).",
    "false alarm": "a detection of something that is not there, or of another class, or whose box does not fit.",
    "calibrated": "fpn calibrate has chosen a threshold for each class. A calibration error (ECE) is something else: "
    "how far scores are from the share of detections that are right.",
    "level, p2 to p6": "the maps in which the network looks for objects: p2 is the finest and finds the smallest ones.",
    "anchor, proposal": "an anchor is a box of a fixed size from which the model begins; a proposal is a place that it "
    "takes for an object before it says of which class.",
    "suppressed (NMS)": "of boxes that overlap much only the surest stays. Objects close together can be lost so.",
    "epoch, step": "an epoch shows each training image once; a step changes the model once, after a few images.",
    "conventions, dialect": "details in which toolkits differ. They are listed so that a result can be repeated; "
    "nobody has to read them to use the model.",
}


def glossary() -> Markup:
    """All of it, folded away."""
    listed = tag("dl", (join_markup([tag("dt", word), tag("dd", meaning)]) for word, meaning in _WORDS.items()))
    more = note("More words: the page Words (docs/words.md) of fpn's documentation.")
    return fold_away("What the words on this page mean", tag("div", listed, more, class_="words-list"))
