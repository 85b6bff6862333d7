"""Keypoints as annotation files write them, and the skeletons that the files declare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fpn.data.formats.files import shorten
from fpn.errors import ConfigError, DataError
from fpn.structures import Skeleton
from fpn.wording import counted


def skeleton_of_categories(categories: Sequence[dict[str, Any]], where: str) -> Skeleton | None:
    """What the categories of a COCO json declare, which is the same for all that declare anything; None: nothing.

    Raises:
        DataError: it is no list of names, or two categories differ.
    """
    declaring = [entry for entry in categories if entry.get("keypoints")]
    for entry in declaring:
        names = entry["keypoints"]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise DataError(f"{where}: 'keypoints' of category {entry['id']} is {shorten(names)}; it must list names")
        if names != declaring[0]["keypoints"]:
            raise DataError(
                f"{where}: categories {declaring[0]['id']} and {entry['id']} declare different keypoints, but a "
                "dataset has one skeleton. Take 'keypoints' out of one of the two, or split the dataset."
            )
    if not declaring:
        return None
    edges = declaring[0].get("skeleton") or []
    try:
        pairs = tuple((int(one) - 1, int(other) - 1) for one, other in edges)
        beyond = [number + 1 for pair in pairs for number in pair if not 0 <= number < len(declaring[0]["keypoints"])]
        if beyond:  # said as the file counts
            raise ValueError(f"a line to keypoint {beyond[0]}, and there are 1 to {len(declaring[0]['keypoints'])}")
        return Skeleton.named(tuple(declaring[0]["keypoints"]), pairs)
    except (ValueError, TypeError, ConfigError) as error:
        what = f"{where}: 'skeleton' of category {declaring[0]['id']}: {error}"
        raise DataError(f"{what}. It lists pairs of keypoints, counted from 1") from error


def unnamed_keypoints(records: Sequence[dict[str, Any]]) -> str:
    """What is said of a COCO json's objects that have keypoints where no category names any; "": none has."""
    having = [values for record in records if isinstance(values := record.get("keypoints"), list) and any(values)]
    if not having:
        return ""
    points = f"{len(having[0]) // 3} keypoints"
    return f"{counted(len(having), 'object')} with {points}, and no category lists their names ('keypoints'): left out"


def checked_keypoints(values: Any, skeleton: Skeleton) -> list[float]:
    """A COCO object's keypoints as 3 J numbers; zeros for an object without any.

    Raises:
        ValueError: they are not three numbers for each, or a visibility is not 0, 1 or 2.
    """
    if not values:
        return [0.0] * (3 * len(skeleton))
    if not isinstance(values, list) or len(values) != 3 * len(skeleton):
        count = len(values) if isinstance(values, list) else shorten(values)
        raise ValueError(f"keypoints has {count} numbers, {len(skeleton)} keypoints need {3 * len(skeleton)}")
    # Compared, not asked whether it is finite: a whole number of 400 digits would not fit the question.
    if not all(type(value) in (int, float) and abs(value) < 1e9 for value in values):
        raise ValueError("keypoints holds what is no number of a pixel")
    if not {0, 1, 2}.issuperset(values[2::3]):
        raise ValueError("keypoints has a visibility that is not 0 (not labelled), 1 (hidden) or 2 (visible)")
    return [float(value) for value in values]


def keypoint_fields(keypoints: np.ndarray) -> dict[str, Any]:
    """Keypoints (J, 3) as a COCO object has them, whole numbers as such."""
    values = [float(np.format_float_positional(value, trim="-")) for value in keypoints.ravel()]
    plain = [int(value) if value.is_integer() else value for value in values]
    return {"keypoints": plain, "num_keypoints": int((keypoints[:, 2] > 0).sum())}
