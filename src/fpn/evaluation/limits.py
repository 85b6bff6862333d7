"""What the most detections an image do to a measurement: how often they were reached, and what COCO's 100 leave out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fpn.detectors.full_images import FullImages
from fpn.detectors.operating_point import USUAL_SCORE
from fpn.evaluation.coco import LimitMetrics, limit_metrics

# COCO's own figures are of so many detections of a class in an image. What a larger limit, reached by unsure guesses
# where there are few objects, takes away changes them by next to nothing, and is not worth a warning.
_COCO = 100


@dataclass(frozen=True)
class LimitReport:
    """How a detector's limit of detections an image fits a dataset.

    Attributes:
        limit: the most detections an image.
        setting: the most detections of what the detector looks at, a tile or an image, which is what can be set.
        reached: images in which so many were found.
        crowded: images with more objects than that, ignored ones not counted.
        most: objects of the image that has most.
        floor: what scores less may be missing where the limit was reached; 0: it was reached nowhere.
        advice: what a person should know, without how to change it; empty where the limit took nothing away.
        figures: AP and AR with all detections up to the limit; None: it is 100 or less, and COCO's are these.
    """

    limit: int
    setting: int
    reached: int
    crowded: int
    most: int
    floor: float
    advice: str
    figures: LimitMetrics | None

    @property
    def larger(self) -> int:
        """A setting that is likely to be enough: three times as many, or twice the objects that an image has."""
        of_tiles = self.setting != self.limit  # of which none has all the objects
        return 3 * self.setting if of_tiles else max(3 * self.limit, 2 * self.most)


def report_limit(
    full: FullImages, truth: Mapping[str, Any], records: list[dict[str, Any]], *, of_image: int | None = None
) -> LimitReport | None:
    """How a limit fits a dataset; None where there is no limit.

    Args:
        full: has looked at what was found in each image, or in each tile.
        of_image: the most detections that an image can have, where those of its tiles were put together.
        truth: a COCO json.
        records: the detections of its classes, as COCO results.
    """
    if full.limit is None:
        return None
    limit = of_image or full.limit
    objects = Counter(each["image_id"] for each in truth["annotations"] if not each["iscrowd"])
    crowded, most = sum(count > limit for count in objects.values()), max(objects.values(), default=0)
    told = full.count and (limit < _COCO or full.floor >= USUAL_SCORE or 2 * most > limit)
    said = [str(full)] if told else []
    said += [describe_crowded(crowded, most, limit)] if crowded else []
    return LimitReport(
        limit=limit,
        setting=full.limit,
        reached=full.count,
        crowded=crowded,
        most=most,
        floor=full.floor,
        advice="; ".join(said),
        figures=limit_metrics(truth, records, limit=limit) if limit > _COCO else None,
    )


def describe_crowded(crowded: int, most: int, limit: int) -> str:
    """Of images with more objects than a limit, such as "3 images have more than 100 objects (up to 250)"."""
    images = "1 image has" if crowded == 1 else f"{crowded} images have"
    return f"{images} more than {limit} objects (up to {most})"
