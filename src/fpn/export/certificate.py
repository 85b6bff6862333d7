"""The proof of an exported file: it is run beside the model that it was made of, and both are compared."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from fpn.data.synthetic.scenes import SceneDataset
from fpn.detectors.detector import Detector
from fpn.detectors.prediction import detecting, enter, leave
from fpn.image_io import read_image
from fpn.shapes import Size
from fpn.structures import Detections

# Two detections are the same when they are of one class and no further apart than this: in pixels, or parts of the
# image's longer side where that is more; and in score.
BOX_TOLERANCE, BOX_PART, SCORE_TOLERANCE = 0.01, 1e-5, 1e-4
# Of the same detections' masks no cell may differ by more than this; their keypoints have the boxes' tolerance.
MASK_TOLERANCE = 1e-4
# As many detections, and keypoints of those, must be the same: what lies at a threshold's edge may fall to either side,
# and of two equal peaks of a heatmap either one may be the highest.
LEAST_SHARE = 0.99
# Detections further apart than this are two different ones, not one that has moved, pixels.
_NEAR = 1.0


@dataclass(frozen=True)
class Certificate:
    """How near an exported file comes to its model.

    Attributes:
        runtime: what ran the file.
        batches: of each batch the number of images, and their height and width.
        images: whose they were.
        theirs, ours: detections of the file and of the model.
        same: how many of the model's the file has, too, within the tolerances.
        box: largest difference of a side among those that are near each other, pixels.
        score: of their scores.
        keypoint: of a keypoint's place among those that are near each other, pixels; 0 without keypoints.
        keypoint_share: of the same detections' keypoints that lie within the tolerance; None without keypoints.
        mask: largest difference of a mask's cells, 0..1; None without masks.
        tolerance: of `box`, pixels, for the largest image.
        seconds_file, seconds_model: time of all batches, once each had been run before.
    """

    runtime: str
    batches: tuple[tuple[int, int, int], ...]
    images: str
    theirs: int
    ours: int
    same: int
    box: float
    score: float
    keypoint: float
    keypoint_share: float | None
    mask: float | None
    tolerance: float
    seconds_file: float
    seconds_model: float

    @property
    def share(self) -> float:
        """Of the detections of both that are the same."""
        most = max(self.theirs, self.ours)
        return self.same / most if most else 1.0

    @property
    def empty(self) -> bool:
        """Whether neither found anything, so that little is proven."""
        return self.theirs == self.ours == 0

    @property
    def exact(self) -> bool:
        """Whether it is near enough."""
        return not self.failures

    @property
    def failures(self) -> tuple[str, ...]:
        """What is not near enough, each with what is allowed."""
        points, cells = self.keypoint_share, self.mask
        found = {
            f"{self.share:.2%} of detections are the same (at least {LEAST_SHARE:.0%})": self.share < LEAST_SHARE,
            f"boxes differ by {self.box:.2g} pixels (at most {self.tolerance:g})": self.box > self.tolerance,
            f"scores differ by {self.score:.2g} (at most {SCORE_TOLERANCE:g})": self.score > SCORE_TOLERANCE,
        }
        if points is not None:
            found[
                f"{points:.2%} of keypoints lie within {self.tolerance:g} pixels of the model's "
                f"(at least {LEAST_SHARE:.0%})"
            ] = points < LEAST_SHARE
        if cells is not None:
            found[f"masks' cells differ by {cells:.2g} (at most {MASK_TOLERANCE:g})"] = cells > MASK_TOLERANCE
        return tuple(each for each, failed in found.items() if failed)

    def __str__(self) -> str:
        count = sum(batch[0] for batch in self.batches)
        sizes = ", ".join(f"{number} of {width}x{height}" for number, height, width in self.batches)
        more = ""
        if self.keypoint_share is not None:
            more += f", {self.keypoint:.2g} pixels of a keypoint ({self.keypoint_share:.1%} are the same)"
        if self.mask is not None:
            more += f", {self.mask:.2g} of a mask's cell"
        most = max(self.theirs, self.ours)
        found = (
            "neither the file nor the model finds anything"
            if self.empty
            else f"{self.same} of {most} detections are the same; largest differences {self.box:.2g} pixels and "
            f"{self.score:.2g} of the score{more}"
        )
        return (
            f"{self.runtime} on {count} {self.images} ({sizes}): {found}; "
            f"{self.seconds_file / count:.3f} seconds an image, the model {self.seconds_model / count:.3f}"
        )

    def to_json(self) -> dict[str, Any]:
        """For the file, and beside it."""
        return {
            "runtime": self.runtime,
            "images": self.images,
            "batches": [{"images": n, "height": h, "width": w} for n, h, w in self.batches],
            "detections_of_file": self.theirs,
            "detections_of_model": self.ours,
            "same": self.same,
            "share_same": self.share,
            "largest_box_difference": self.box,
            "largest_score_difference": self.score,
            "largest_keypoint_difference": self.keypoint,
            "share_of_keypoints_same": self.keypoint_share,
            "largest_mask_difference": self.mask,
            "box_tolerance": self.tolerance,
            "score_tolerance": SCORE_TOLERANCE,
            "mask_tolerance": MASK_TOLERANCE,
            "exact": self.exact,
            "failures": list(self.failures),
            "seconds_an_image_of_file": self.seconds_file / sum(b[0] for b in self.batches),
            "seconds_an_image_of_model": self.seconds_model / sum(b[0] for b in self.batches),
        }


@dataclass(frozen=True)
class DetectionDifference:
    """How a file's detections of an image differ from the model's.

    Attributes:
        same: how many of the model's the file has, too.
        box, score: largest differences among those that are near each other, pixels and 0..1.
        keypoint: the same of keypoints of detections that are the same, pixels.
        mask: largest difference of these detections' mask cells, 0..1.
        keypoints, keypoints_same: how many keypoints these have, and how many of them lie within the tolerance.
    """

    same: int = 0
    box: float = 0.0
    score: float = 0.0
    keypoint: float = 0.0
    mask: float = 0.0
    keypoints: int = 0
    keypoints_same: int = 0


def certify(detector: Detector, exported: Detector, runtime: str, images: Sequence[Path] = ()) -> Certificate:
    """Run both on the same images, in batches of one size each.

    Args:
        detector: the model.
        exported: the file.
        runtime: what runs the file.
        images: files; none: scenes are drawn, one of them without any object.
    """
    batches = list(_read(images, detector) if images else _drawn(detector))
    found, times = [], []
    for one in (exported, detector):
        _run(one, batches[0])
        begun = time.perf_counter()
        found.append([each for batch in batches for each in _run(one, batch)])
        times.append(time.perf_counter() - begun)
    sides = [max(image.size) for batch in batches for image in batch]
    tolerances = [max(BOX_TOLERANCE, BOX_PART * side) for side in sides]
    parts = [
        difference_between(theirs, ours, tolerance) for theirs, ours, tolerance in zip(*found, tolerances, strict=True)
    ]
    return Certificate(
        runtime=runtime,
        batches=tuple((len(batch), batch[0].height, batch[0].width) for batch in batches),
        images="images" if images else "drawn images",
        theirs=sum(map(len, found[0])),
        ours=sum(map(len, found[1])),
        same=sum(each.same for each in parts),
        box=max(each.box for each in parts),
        score=max(each.score for each in parts),
        keypoint=max(each.keypoint for each in parts),
        keypoint_share=_share(parts) if "keypoints" in detector.tasks else None,
        mask=max(each.mask for each in parts) if "masks" in detector.tasks else None,
        tolerance=max(tolerances),
        seconds_file=times[0],
        seconds_model=times[1],
    )


def _run(detector: Detector, images: Sequence[Image.Image]) -> list[Detections]:
    """Of one batch, in original pixels, with masks as the head says them: pasting is the same for both."""
    prepared = [detector.preprocessor.prepare(image) for image in images]
    batch = enter(detector, prepared)
    with detecting(detector):
        found = detector.detect(batch)
    back = leave(detector, [replace(each, mask_probabilities=None) for each in found], prepared)
    return [replace(b, mask_probabilities=f.mask_probabilities) for b, f in zip(back, found, strict=True)]


def _drawn(detector: Detector) -> Iterator[list[Image.Image]]:
    """Batches of 1, 3 and 2, upright, lying and square, of even and odd sizes; one image is empty."""
    side = min(detector.preprocessor.config.short_side, 640)
    sizes = [Size(side, side * 4 // 3), Size(side + 37, side - 21), Size(side // 2 + 1, side // 2 + 1)]
    for seed, (count, size) in enumerate(zip((1, 3, 2), sizes, strict=True)):
        extent = (4.0, max(8.0, min(size) / 2))
        scenes = SceneDataset(count, seed=seed, height=size.height, width=size.width, extent=extent)
        images = [scenes.image(number) for number in range(count)]
        if count == 2:
            images[1] = Image.new("RGB", (size.width, size.height), (127, 127, 127))
        yield images


def _read(paths: Sequence[Path], detector: Detector) -> Iterator[list[Image.Image]]:
    """One batch an image, the first of them twice more, so that a batch of several is among them."""
    images = [read_image(path, pixel_range=detector.preprocessor.config.pixel_range) for path in paths]
    yield [images[0]] * 3
    yield from ([image] for image in images[1:])


def difference_between(theirs: Detections, ours: Detections, tolerance: float) -> DetectionDifference:
    """Each of the model's detections with the nearest one of its class in the file.

    Args:
        theirs: what the file found in an image.
        ours: what the model found.
        tolerance: pixels between sides, and between keypoints, of what counts as the same.
    """
    if not len(theirs) or not len(ours):
        return DetectionDifference()
    far: Tensor = (ours.boxes[:, None] - theirs.boxes[None]).abs().amax(dim=2)
    other: Tensor = (ours.scores[:, None] - theirs.scores[None]).abs()
    # Boxes that lie on each other are told apart by their scores.
    apart = (far / tolerance + other / SCORE_TOLERANCE).masked_fill(
        ours.labels[:, None] != theirs.labels[None], float("inf")
    )
    place, paired = _nearest(apart)
    rows = torch.arange(len(ours))
    box, score = far[rows, place], other[rows, place]
    near = paired & (box <= _NEAR) & apart[rows, place].isfinite()
    same = near & (box <= tolerance) & (score <= SCORE_TOLERANCE)
    points = _apart_points(ours, theirs, place)[same]
    return DetectionDifference(
        same=int(same.sum()),
        box=_largest(box[near]),
        score=_largest(score[near]),
        keypoint=_largest(points[points <= _NEAR]),
        mask=_largest(_apart_masks(ours, theirs, place)[same]),
        keypoints=points.numel(),
        keypoints_same=int((points <= tolerance).sum()),
    )


def _nearest(apart: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs of (N, M) that are `apart`, nearest first, nothing twice: (N,) the partner of each, and who has one.

    Empty boxes lie on each other without NMS dropping any, so that the nearest alone would be one for all of them.
    """
    left, place = apart.clone(), torch.zeros(len(apart), dtype=torch.int64)
    paired = torch.zeros(len(apart), dtype=torch.bool)
    for _ in range(min(apart.shape)):
        row, column = divmod(int(left.argmin()), left.shape[1])
        if left[row, column] == torch.inf:
            break
        place[row], paired[row] = column, True
        left[row], left[:, column] = torch.inf, torch.inf
    return place, paired


def _largest(values: Tensor) -> float:
    """0 of none; infinite where one is no number."""
    return float(values.nan_to_num(nan=torch.inf, posinf=torch.inf).max()) if values.numel() else 0.0


def _share(parts: Sequence[DetectionDifference]) -> float:
    count = sum(each.keypoints for each in parts)
    return sum(each.keypoints_same for each in parts) / count if count else 1.0


def _apart_points(ours: Detections, theirs: Detections, place: Tensor) -> Tensor:
    """(N, J) pixels between our keypoints and those at `place`; J is 0 without any."""
    if ours.keypoints is None:
        return ours.boxes[:, :0]
    if theirs.keypoints is None:
        return torch.full(ours.keypoints.shape[:2], torch.inf)
    return (ours.keypoints - theirs.keypoints[place])[..., :2].abs().amax(dim=2)


def _apart_masks(ours: Detections, theirs: Detections, place: Tensor) -> Tensor:
    """(N, S, S) between our masks' cells and those at `place`; S is 0 without masks."""
    if ours.mask_probabilities is None:
        return ours.boxes[:, :0]
    if theirs.mask_probabilities is None:
        return torch.ones_like(ours.mask_probabilities)
    return (ours.mask_probabilities - theirs.mask_probabilities[place]).abs()
