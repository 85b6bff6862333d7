"""Which detection of a frame is which of the frames before: ByteTrack, of the library `trackers`.

Source: Zhang et al. 2022, arXiv:2110.06864. What is tracked are boxes, whatever their class: a detector that calls one
thing a car here and a truck there still follows it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from fpn.errors import MissingExtraError
from fpn.structures import Detections

# What ByteTrack sees as sure (a track begins and goes on) and as unsure (one may go on), in place of scores: so that
# what is sure is what the person's score, or each class's threshold, says.
_SURE, _UNSURE = 1.0, 0.3
# Below this score nothing goes on either.
_LOWEST = 0.1


class BoxTracker:
    """Gives detections ids, frame after frame. The same frames give the same ids, counted from 1."""

    def __init__(self, rate: float) -> None:
        """Args:
            rate: frames a second, on average; a track that is lost is kept for a second.

        Raises:
            MissingExtraError: trackers is not installed.
        """
        try:
            from supervision import Detections as Boxes
            from trackers import ByteTrackTracker
        except ImportError:
            raise MissingExtraError("objects are tracked by trackers. pip install 'fpn[track]' brings it.") from None
        self._boxes: Any = Boxes
        self._tracker: Any = ByteTrackTracker(frame_rate=rate)

    def follow(self, found: Detections, sure: Bool[Tensor, " N"], seconds: float) -> tuple[int | None, ...]:
        """The id of each detection, in their order; None: not one yet, as an id comes with the second frame, or never.

        Args:
            found: of the next frame, in its pixels.
            sure: which of them may begin a track.
            seconds: when the frame is shown.
        """
        kept = torch.nonzero(sure | (found.scores >= _LOWEST)).flatten()
        some = found[kept].to("cpu")
        boxes = self._boxes(
            xyxy=some.boxes.numpy().astype(np.float64),
            confidence=np.where(sure[kept].cpu().numpy(), _SURE, _UNSURE),
            class_id=some.labels.numpy(),
            data={"number": kept.cpu().numpy()},
        )
        ids: list[int | None] = [None] * len(found)
        told = self._tracker.update(boxes, timestamp=seconds)
        for number, given in zip(told.data.get("number", ()), told.tracker_id, strict=False):
            if given >= 0:
                ids[int(number)] = int(given) + 1
        return tuple(ids)
