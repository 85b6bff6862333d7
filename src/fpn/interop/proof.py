"""How near an imported detector comes to the toolkit that its weights are from."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from fpn.detectors.detector import Detector
from fpn.detectors.modes import evaluating
from fpn.interop.stored_results import TheirResults, read_their_results
from fpn.structures import Detections

# Widths and heights of the images that are compared live.
_SIZES = ((320, 240), (200, 333), (416, 416))
# Fewer detections than this prove little: then those of lower scores are compared.
_ENOUGH, _LOWER_SCORES = 10, (0.01, 0.001, 0.0)
# A detection is the same when it is of the same class and at most so far away, in pixels.
_NEAR = 1.0
# So many of a toolkit's detections have to be the same, as NMS may take the other of two that score alike.
MOSTLY = 0.95


@dataclass(frozen=True)
class Proof:
    """Detections compared with those of a toolkit.

    Attributes:
        against: what they were compared with.
        sizes: of the images, (width, height).
        theirs, ours: how many detections of each.
        same: how many of theirs have one of ours of the same class within one pixel.
        box: largest difference of their sides, in pixels; score: of their scores.
        score_limit: from which on detections were compared; None: the detector's own.
    """

    against: str
    sizes: tuple[tuple[int, int], ...]
    theirs: int
    ours: int
    same: int
    box: float
    score: float
    score_limit: float | None = None

    def __str__(self) -> str:
        sizes = ", ".join(f"{width}x{height}" for width, height in self.sizes)
        limit = "" if self.score_limit is None else f", scores above {self.score_limit:g}"
        said = f"compared with {self.against} on {len(self.sizes)} images ({sizes}{limit}): "
        if not self.theirs:
            return f"{said}NOTHING IS PROVEN, for it finds nothing there; ours {self.ours or 'nor anything'}"
        ours = "" if self.ours == self.theirs else f", ours {self.ours}"
        return (
            f"{said}{self.same} of {self.theirs} detections are the same{ours}; largest differences {self.box:.2g} "
            f"pixels and {self.score:.2g} of the score"
        )

    def to_json(self) -> dict[str, Any]:
        """For the model file."""
        return {**asdict(self), "sizes": [list(size) for size in self.sizes]}


def compare_stored(detector: Detector, path: str | os.PathLike[str]) -> Proof:
    """Compare with an `.npz` of the toolkit's results.

    Args:
        detector: ours.
        path: for k = 0, 1, ...: `image_k` (H, W, 3) uint8, RGB; `boxes_k` (N, 4) x1 y1 x2 y2 in its pixels, `scores_k`
            (N,), `labels_k` (N,) from 0 on, background not counted.

    Raises:
        DataNotFoundError, ModelFileError: no such file, or it holds something else.
    """
    path = Path(path)
    return _compare(detector, read_their_results(path), path.name)


def compare_torchvision(detector: Detector, path: str | os.PathLike[str]) -> list[Proof]:
    """Compare with torchvision's own detector of a file's weights, live on three images; none where it has none."""
    from fpn.interop.torchvision_models import build_torchvision

    made = build_torchvision(detector, path)
    return [] if made is None else [compare_live(detector, *made)]


def compare_live(detector: Detector, theirs: nn.Module, first_label: int) -> Proof:
    """Compare with torchvision's own detector on three images, at lower scores where it finds little.

    Args:
        detector: ours.
        theirs: torchvision's with the same weights; it takes a list of images (3, H, W) from 0 to 1.
        first_label: the label that it gives to our class 0.
    """
    images = [_scene(width, height, seed) for seed, (width, height) in enumerate(_SIZES)]
    proof = _compare_live(detector, theirs, first_label, images)
    for limit in _LOWER_SCORES:
        if proof.theirs >= _ENOUGH:
            break
        with _scores_above(limit, detector, theirs):
            proof = replace(_compare_live(detector, theirs, first_label, images), score_limit=limit)
    return proof


def _compare_live(detector: Detector, theirs: nn.Module, first_label: int, images: list[NDArray[Any]]) -> Proof:
    with evaluating(theirs), torch.no_grad():
        return _compare(detector, ((image, _found_live(theirs, image, first_label)) for image in images), "torchvision")


def _found_live(theirs: nn.Module, image: NDArray[Any], first_label: int) -> TheirResults:
    (result,) = theirs([torch.from_numpy(image).permute(2, 0, 1) / 255])
    arrays = {name: value.numpy() for name, value in result.items() if name in ("boxes", "scores", "labels")}
    return {**arrays, "labels": arrays["labels"] - first_label}


@contextmanager
def _scores_above(limit: float, detector: Detector, theirs: nn.Module) -> Iterator[None]:
    """Inside, both find whatever scores more than this."""
    ours = [(each, name) for each in detector.modules() for name in ("config", "settings")]
    places: list[tuple[Any, str]] = [each for each in ours if hasattr(getattr(*each, None), "score_limit")]
    # The threshold of an RPN, where torchvision has one, is a setting of its own.
    finals = [each for each in theirs.modules() if hasattr(each, "score_thresh") and hasattr(each, "nms_thresh")]
    others: list[tuple[Any, str]] = [(each, "score_thresh") for each in finals if not hasattr(each, "pre_nms_top_n")]
    before = [getattr(*each) for each in (*places, *others)]
    try:
        for place in places:
            setattr(*place, getattr(*place).changed(score_limit=limit))
        for other in others:
            setattr(*other, limit)
        yield
    finally:
        for place, value in zip((*places, *others), before, strict=True):
            setattr(*place, value)


def _scene(width: int, height: int, seed: int) -> NDArray[np.uint8]:
    """Soft spots of all sizes, so that the network sees more than noise."""
    chance = np.random.default_rng(seed)
    image = np.zeros((height, width, 3))
    for side in (4, 16, 48):
        coarse = chance.random((max(2, height // side), max(2, width // side), 3)) * 255
        grown = Image.fromarray(coarse.astype(np.uint8)).resize((width, height), Image.Resampling.BILINEAR)
        image += np.asarray(grown) / 3
    return image.astype(np.uint8)


def _compare(detector: Detector, pairs: Iterable[tuple[NDArray[Any], TheirResults]], against: str) -> Proof:
    proof = Proof(against, sizes=(), theirs=0, ours=0, same=0, box=0.0, score=0.0)
    for image, theirs in pairs:
        (own,) = detector.predict([image])
        same, box, score = _nearest(own, theirs)
        proof = replace(
            proof,
            sizes=(*proof.sizes, (image.shape[1], image.shape[0])),
            theirs=proof.theirs + len(theirs["scores"]),
            ours=proof.ours + len(own),
            same=proof.same + same,
            box=max(proof.box, box),
            score=max(proof.score, score),
        )
    return proof


def _nearest(own: Detections, theirs: TheirResults) -> tuple[int, float, float]:
    """How many of theirs are among ours, and how far those are at most: pixels, score."""
    boxes, scores = torch.as_tensor(theirs["boxes"]).float(), torch.as_tensor(theirs["scores"]).float()
    labels = torch.as_tensor(theirs["labels"]).long()
    if not len(own) or not len(scores):
        return 0, 0.0, 0.0
    far: Tensor = (boxes[:, None] - own.boxes.cpu()[None]).abs().amax(dim=2)  # (theirs, ours)
    far = far.masked_fill(labels[:, None] != own.labels.cpu()[None], float("inf"))
    distance, place = far.min(dim=1)
    near = distance <= _NEAR
    if not near.any():
        return 0, 0.0, 0.0
    other = (scores - own.scores.cpu()[place]).abs()
    return int(near.sum()), float(distance[near].max()), float(other[near].max())
