from __future__ import annotations

import torch

from fpn.detectors.full_images import FullImages
from fpn.structures import Detections


def found(*scores: float) -> Detections:
    return Detections(torch.zeros(len(scores), 4), torch.tensor(scores), torch.zeros(len(scores), dtype=torch.int64))


def test_images_with_as_many_detections_as_there_may_be_are_counted() -> None:
    full = FullImages(2)
    for name, each in (("a", found(0.9)), ("b", found(0.8, 0.4)), ("c", found()), ("d", found(0.7, 0.1))):
        full.look(each, name)
    # Of image b all that scores below 0.4 is missing, if there was anything.
    assert str(full) == (
        "the limit of 2 detections was reached in 2 of 4 images, such as b: what scores below 0.40 may be missing there"
    )


def test_without_a_limit_none_is_full() -> None:
    full = FullImages(None)
    full.look(found(0.9, 0.8), "a")
    assert (full.images, full.count) == (1, 0)


def test_what_is_always_full_says_nothing() -> None:
    full = FullImages(2, always=True)
    full.look(found(0.9, 0.8), "a")
    assert (full.images, full.count) == (1, 0)
