"""What a detector found in a dataset's images, before it is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fpn.data.dataset import Dataset
from fpn.errors import DataError
from fpn.evaluation.unfinished import KeptImage, keep_detections, kept_detections
from fpn.structures import Detections, Proposals

# Before the names of proposals' tensors among what is kept of an image.
_PROPOSED = "proposals."


@dataclass(frozen=True)
class Found:
    """What a detector found in some of a dataset's images, by their numbers, in original pixels.

    `unreadable`: why an image could not be read, so that nothing is known of it.
    """

    detections: dict[int, Detections] = field(default_factory=dict)
    proposals: dict[int, Proposals] = field(default_factory=dict)
    unreadable: dict[int, str] = field(default_factory=dict)

    def take(self, known: Mapping[int, KeptImage], *, proposals: bool) -> None:
        """Findings of an earlier look; those without proposals are of no use where these are wanted."""
        for number, finding in known.items():
            boxes, scores = (finding.tensors.get(f"{_PROPOSED}{name}") for name in ("boxes", "scores"))
            if boxes is not None and scores is not None:
                self.proposals[number] = Proposals(boxes, scores)
            elif proposals:
                continue
            self.detections[number] = kept_detections(finding)
        if not proposals:
            self.proposals.clear()

    def finding(self, number: int) -> KeptImage:
        """What is kept of one image."""
        packed, proposed = keep_detections(self.detections[number]), self.proposals.get(number)
        if proposed is None:
            return packed
        also = {f"{_PROPOSED}boxes": proposed.boxes, f"{_PROPOSED}scores": proposed.scores}
        return KeptImage({**packed.tensors, **also}, packed.notes)

    def without_unreadable(self, dataset: Dataset) -> tuple[Dataset, Found]:
        """The dataset and what was found, both without the images that could not be read.

        Raises:
            DataError: no image could.
        """
        if not self.unreadable:
            return dataset, self
        rows = [number for number in range(len(dataset)) if number not in self.unreadable]
        if not rows:
            why = next(iter(self.unreadable.values()))
            raise DataError(f"{dataset.name}: none of its {len(dataset)} images can be read, such as {why}")
        detections = {place: self.detections[row] for place, row in enumerate(rows)}
        proposals = {place: self.proposals[row] for place, row in enumerate(rows)} if self.proposals else {}
        return dataset.subset(rows), Found(detections, proposals)
