"""What `losses` returns: named terms, and named counts that explain them."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class LossTerms:
    """Scalar loss terms and counts by name; `+` merges two, `total` is what to differentiate.

    Attributes:
        terms: name -> scalar tensor with a graph, such as "objectness".
        counts: name -> scalar tensor without one, such as "positive_anchors".
        samples: name of a term -> how many samples it is the mean of, for a term that is not the mean over images.
            Processes that train together weigh their means by it, so that they come to the mean of all samples.
    """

    terms: dict[str, Tensor]
    counts: dict[str, Tensor] = field(default_factory=dict)
    samples: dict[str, float] = field(default_factory=dict)

    def __add__(self, other: LossTerms) -> LossTerms:
        repeated = (self.terms.keys() & other.terms.keys()) | (self.counts.keys() & other.counts.keys())
        assert not repeated, f"two parts report {sorted(repeated)}"
        return LossTerms(
            {**self.terms, **other.terms}, {**self.counts, **other.counts}, {**self.samples, **other.samples}
        )

    @property
    def total(self) -> Tensor:
        """The sum of all terms."""
        return torch.stack(list(self.terms.values())).sum()

    def detach(self) -> dict[str, float]:
        """Terms, counts and "total" as plain numbers, with one wait for the device."""
        names = [*self.terms, *self.counts, "total"]
        values = [*self.terms.values(), *self.counts.values(), self.total]
        stacked = torch.stack([value.detach().float() for value in values])
        return dict(zip(names, stacked.tolist(), strict=True))
