"""Precision, recall and F1 along the score, class by class, and whether scores are what they say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fpn.evaluation.matches import ClassMatches, Matches

# IoU 0.5 among COCO's overlaps.
_OVERLAP = 0
# Points of a curve that are kept, and bins of scores.
_POINTS, _BINS = 100, 10


def class_curves(matches: Matches) -> list[dict[str, Any]]:
    """Of each class, its highest score first: score, precision, recall and F1 of the detections from there on.

    At IoU 0.5. Of long curves some hundred points are kept, spread evenly along the detections, the last among them.
    """
    found = []
    for name, tables in zip(matches.classes.names, matches.tables, strict=True):
        table = tables[0]
        found.append({"class": name, "objects": int(table.objects.sum()), **_curve(table)})
    return found


def _curve(table: ClassMatches) -> dict[str, list[float]]:
    objects = int(table.objects.sum())
    true, false = np.cumsum(table.true[_OVERLAP]), np.cumsum(table.false[_OVERLAP])
    # Equal scores reach a threshold together.
    ends = (
        np.flatnonzero(np.append(table.scores[1:] < table.scores[:-1], True)) if len(table.scores) else np.zeros(0, int)
    )
    ends = ends[(true + false)[ends] > 0]
    if len(ends) > _POINTS:
        ends = ends[np.unique(np.linspace(0, len(ends) - 1, _POINTS).round().astype(int))]
    right, said = true[ends], (true + false)[ends]
    return {
        "score": _rounded(table.scores[ends]),
        "precision": _rounded(right / said),
        "recall": _rounded(right / max(objects, 1)),
        "f1": _rounded(2 * right / (said + objects)),
    }


def reliability(matches: Matches) -> dict[str, Any]:
    """How often detections are right, by their score, and the expected calibration error (ECE).

    ECE is the mean distance of score and share of right ones over ten equal bins, weighted by how many are in each
    (Guo et al. 2017, arXiv:1706.04599, equation 3). Right is a detection that found an object, at IoU 0.5.
    """
    tables = [tables[0] for tables in matches.tables]
    scores, right = _said(tables)
    each = [_said([table]) for table in tables]
    return {
        "detections": len(scores),
        "ece": _error(scores, right),
        "mean_score": float(scores.mean()) if len(scores) else None,
        "share_right": float(right.mean()) if len(scores) else None,
        "bins": _bins(scores, right),
        "per_class": [
            {"class": name, "detections": len(mine), "ece": _error(mine, hits)}
            for name, (mine, hits) in zip(matches.classes.names, each, strict=True)
        ],
    }


def _said(tables: Sequence[ClassMatches]) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the detections that are right or wrong, and which are right."""
    scores, right = [np.zeros(0)], [np.zeros(0, dtype=bool)]
    for table in tables:
        true, false = table.true[_OVERLAP], table.false[_OVERLAP]
        scores.append(table.scores[true | false])
        right.append(true[true | false])
    return np.concatenate(scores), np.concatenate(right)


def _places(scores: np.ndarray) -> np.ndarray:
    places: np.ndarray = np.minimum((scores * _BINS).astype(int), _BINS - 1)
    return places


def _bins(scores: np.ndarray, right: np.ndarray) -> list[dict[str, Any]]:
    places = _places(scores)
    return [
        {
            "from": place / _BINS,
            "to": (place + 1) / _BINS,
            "detections": int((places == place).sum()),
            "score": float(scores[places == place].mean()) if (places == place).any() else None,
            "right": float(right[places == place].mean()) if (places == place).any() else None,
        }
        for place in range(_BINS)
    ]


def _error(scores: np.ndarray, right: np.ndarray) -> float | None:
    if not len(scores):
        return None
    gaps = [
        each["detections"] * abs(each["score"] - each["right"]) for each in _bins(scores, right) if each["detections"]
    ]
    return float(sum(gaps) / len(scores))


def _rounded(values: np.ndarray) -> list[float]:
    found: list[float] = np.round(values, 5).tolist()
    return found
