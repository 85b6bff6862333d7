"""How much an image may teach: what a detector is unsure of, by class, and how much of each class is labelled already.

A detection with score s is an object with probability s, and the less it can be told the more its label says: it is
worth s * (0.2 + 0.8 * H(s)), H being the binary entropy in bits. What a class gains is the logarithm of how many such
objects it has, since learning curves flatten: ten more cells are much to 10 and little to 1000. So objects of rare
classes count most, many objects of one class in one image do not count as many times, and what was chosen already makes
more of its kind worth less.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fpn.studies.suggesting.evidence import Evidence

# What an object that the detector is sure of is worth, in parts of one that it is unsure of.
_SURE = 0.2
# No class counts more than twice or less than half for being hard.
_HARDEST = 2.0
# Objects that each class is taken to have before any is labelled: else the first of a class would be worth everything.
_PRIOR = 1.0


def entropy(scores: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Bits that it takes to say whether each is an object: 0 at scores 0 and 1, 1 at 0.5."""
    nats: Tensor = torch.special.entr(scores) + torch.special.entr(1 - scores)
    return nats / float(np.log(2))


def worth(scores: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """How much the label of each detection may teach, in objects: 0 to about 0.6."""
    return scores * (_SURE + (1 - _SURE) * entropy(scores))


def class_worths(seen: Sequence[Evidence], classes: int) -> np.ndarray:
    """(N, K) float64, the worth of each image's detections by class."""
    return _by_class(seen, classes, worth)


def expected_objects(seen: Sequence[Evidence], classes: int) -> np.ndarray:
    """(N, K) float64, how many objects of each class there are if scores are probabilities."""
    return _by_class(seen, classes, lambda scores: scores)


def _by_class(seen: Sequence[Evidence], classes: int, of_scores: Callable[[Tensor], Tensor]) -> np.ndarray:
    sums = np.zeros((len(seen), classes))
    for row, evidence in enumerate(seen):
        np.add.at(sums[row], evidence.found.labels.numpy(), of_scores(evidence.found.scores.double()).numpy())
    return sums


def difficulties(seen: Sequence[Evidence], classes: int) -> np.ndarray:
    """(K,) 0.5 to 2: how unsure the detector is of each class's objects, compared with all classes."""
    objects = expected_objects(seen, classes).sum(axis=0)
    unsure = _by_class(seen, classes, lambda scores: scores * entropy(scores)).sum(axis=0)
    there = objects > 0
    share = np.divide(unsure, objects, out=np.zeros(classes), where=there)
    middle = share[there].mean() if there.any() else 0.0
    relative = share / middle if middle > 0 else np.ones(classes)
    return np.where(there, np.clip(relative, 1 / _HARDEST, _HARDEST), 1.0)


def gains(worths: np.ndarray, known: np.ndarray, hard: np.ndarray) -> np.ndarray:
    """(N, K) what each image would give each class.

    Args:
        worths: (N, K), see `class_worths`.
        known: (K,) objects of each class that are labelled, or chosen to be.
        hard: (K,), see `difficulties`.
    """
    return np.asarray(hard * np.log1p(worths / (_PRIOR + known)))
