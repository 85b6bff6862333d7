"""How much an image may teach: what a detector is unsure of, by class, and how much of each class is labelled already.

Detections that overlap, of whatever class, are guesses about one thing. The best score of each class is how likely the
thing is one of these; the highest of all says how sure the detector is. A thing is worth, to each class, its score
times what is missing to being sure, so that noise counts little, a sure object counts little, and what may be one class
or another counts for both.

An image's worth is the mean of its things, weighted by their scores, times the fourth root of how many there are: the
sum would take crowded images, or those with much noise, before all others; the mean would not care for the number.

What a class gains is the logarithm of how many more objects it has, since learning curves flatten: one more is much to
5 labelled ones and little to 1000. So guesses of rare classes count most, and what was chosen already makes more of its
kind worth less.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from fpn.ops.boxes import pairwise_iou
from fpn.structures import Detections
from fpn.studies.suggesting.evidence import Evidence

# Detections that overlap so far are guesses about one thing: less than NMS takes, as boxes of two classes differ.
_SAME_THING = 0.4
# The power of the number of things in an image's worth: 0 is their mean, 1 their sum. Of two pools of 200 scenes, of
# which 24 and 25 hold a rare class, 20 choices each took 20, 19 and 10 of these 49 with 0, 0.25 and 1; 5 is by lot.
_CROWD = 0.25
# Objects that each class is taken to have before any is labelled: else the first of a class would be worth everything.
_PRIOR = 1.0


def unsureness(scores: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """How much each detection alone may teach: 0 for noise and for what is sure, most (0.25) at a score of 0.5."""
    return scores * (1 - scores)


def things(found: Detections, classes: int) -> Iterator[np.ndarray]:
    """(K,) best score of each class among detections that overlap, the surest thing first.

    Args:
        found: best first.
        classes: K.
    """
    overlap = pairwise_iou(found.boxes, found.boxes).numpy()
    labels, scores = found.labels.numpy(), found.scores.double().numpy()
    free = np.ones(len(found), dtype=bool)
    for best in range(len(found)):
        if free[best]:
            mine = free & (overlap[best] >= _SAME_THING)
            mine[best] = True  # a box without area does not even overlap itself
            free &= ~mine
            chances = np.zeros(classes)
            np.maximum.at(chances, labels[mine], scores[mine])
            yield chances


def class_worths(seen: Sequence[Evidence], classes: int) -> np.ndarray:
    """(N, K) float64, the worth of each image to each class, in objects."""
    return np.array([_worths(list(things(each.found, classes)), classes) for each in seen]).reshape(-1, classes)


def _worths(chances: Sequence[np.ndarray], classes: int) -> np.ndarray:
    weight = float(sum(each.sum() for each in chances))
    if weight <= 0:
        return np.zeros(classes)
    total = np.sum([each * (1 - each.max()) for each in chances], axis=0)
    return np.asarray(total / weight * weight**_CROWD)


def expected_objects(seen: Sequence[Evidence], classes: int) -> np.ndarray:
    """(N, K) float64, how many objects of each class there are if scores are probabilities."""
    sums = np.zeros((len(seen), classes))
    for row, evidence in zip(sums, seen, strict=True):
        np.add.at(row, evidence.found.labels.numpy(), evidence.found.scores.double().numpy())
    return sums


def gains(worths: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(N, K) what each image would give each class.

    Args:
        worths: (N, K), see `class_worths`.
        known: (K,) objects of each class that are labelled, or chosen to be.
    """
    return np.asarray(np.log1p(worths / (_PRIOR + known)))
