"""Images in which a detector found as many objects as it may, so that some may be missing."""

from __future__ import annotations

from dataclasses import dataclass

from fpn.structures import Detections


@dataclass
class FullImages:
    """Counts them.

    Attributes:
        limit: the most detections of an image; None: there is no such limit.
        what: what is looked at: images, or their tiles.
        always: whether it gives that many of any image, best first, so that a full one says nothing.
        images: images that were looked at.
        count: how many of them have that many detections.
        first: the name of the first of these.
        floor: what scores less may be missing in one of these.
    """

    limit: int | None
    always: bool = False
    what: str = "images"
    images: int = 0
    count: int = 0
    first: str = ""
    floor: float = 0.0

    def look(self, found: Detections, name: str) -> None:
        """Look at what was found in one image."""
        self.images += 1
        if self.limit is not None and len(found) >= self.limit and not self.always:
            self.first = self.first or name
            self.count += 1
            self.floor = max(self.floor, float(found.scores.min()))

    def __str__(self) -> str:
        return (
            f"the limit of {self.limit} detections was reached in {self.count} of {self.images} {self.what}, such as "
            f"{self.first}: what scores below {self.floor:.2f} may be missing there"
        )
