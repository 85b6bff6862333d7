"""Why an image was chosen, in words."""

from __future__ import annotations

import numpy as np

from fpn.structures import Classes, Detections
from fpn.studies.suggesting.choosing import Choice
from fpn.wording import counted

# Scores between which a detection is called unsure.
UNSURE = (0.2, 0.6)
# Of the usual distance: one whose nearest labelled or chosen image is so far is said to be unlike the others.
_ODD = 0.85
# A class is named if this part of the gain is its own, and it has at most this part of what classes have on average.
_MUCH, _FEW = 0.3, 0.5


def count_unsure(found: Detections) -> int:
    """Detections of which nobody could say whether they are right."""
    return int(((found.scores >= UNSURE[0]) & (found.scores < UNSURE[1])).sum())


def reason_for(choice: Choice, found: Detections, classes: Classes) -> str:
    """Why this image, such as "7 detections between 0.2 and 0.6; perhaps ring, of which there are few"."""
    unsure, sure = count_unsure(found), int((found.scores >= UNSURE[1]).sum())
    parts = [f"{counted(unsure, 'detection')} between {UNSURE[0]:g} and {UNSURE[1]:g}"] if unsure else []
    if rare := _rare(choice, classes):
        parts.append(f"{'perhaps ' if unsure else ''}{' and '.join(rare)}, of which there are few")
    if np.isfinite(choice.nearest) and choice.nearest >= _ODD:
        parts.append("unlike the others")
    if not unsure and sure and not rare:
        parts.append(f"{counted(sure, 'object')} found, all of them sure")
    if not unsure and not sure:
        parts.append("nothing found for sure")
    return "; ".join(parts)


def _rare(choice: Choice, classes: Classes) -> list[str]:
    """Names of at most two rare classes that much of the gain comes from."""
    total, usual = choice.by_class.sum(), choice.known.mean()
    if total <= 0 or len(classes) < 2:
        return []
    much = np.flatnonzero((choice.by_class >= _MUCH * total) & (choice.known <= _FEW * usual))
    order = much[np.argsort(-choice.by_class[much], kind="stable")]
    return [classes.names[label] for label in order[:2].tolist()]
