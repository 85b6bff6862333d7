"""What a detector says of each image, as it is kept so that a stopped run goes on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fpn.evaluation.unfinished import KeptImage, keep_detections, kept_detections
from fpn.shapes import Size
from fpn.structures import Detections


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a detector says of one image, or why it could not be read.

    Attributes:
        found: boxes in pixels of the upright original; none if it could not be read.
        size: of the upright original; (0, 0) if it could not be read.
        descriptor: (D,) what the image and its objects look like to the network.
        problem: why it could not be read; empty if it could.
    """

    found: Detections
    size: Size
    descriptor: Float[Tensor, " d"]
    problem: str = ""

    @classmethod
    def unreadable(cls, problem: str) -> Evidence:
        """Of an image that could not be read."""
        nothing = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
        return cls(nothing, Size(0, 0), torch.zeros(0), problem)

    def to_finding(self) -> KeptImage:
        """As it is kept; every number comes back as it was."""
        tensors = {**keep_detections(self.found).tensors, "descriptor": self.descriptor}
        return KeptImage(tensors, {"size": list(self.size), "problem": self.problem})

    @classmethod
    def of_finding(cls, finding: KeptImage) -> Evidence:
        """What `to_finding` gave."""
        found = kept_detections(KeptImage(finding.tensors))
        return cls(found, Size(*finding.notes["size"]), finding.tensors["descriptor"], finding.notes["problem"])
