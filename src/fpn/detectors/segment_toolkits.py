"""Whose conventions segment proposals follow: the paper's alone, as no toolkit has them."""

from __future__ import annotations

from fpn.detectors.dialect import SegmentDialect
from fpn.features.necks.config import NeckConfig

SEGMENT_DIALECTS: dict[str, SegmentDialect] = {
    dialect.name: dialect
    for dialect in (
        SegmentDialect(
            # Not said there, and chosen here: each loss is a mean over its windows; an object that is smaller or larger
            # than all scales goes to the nearest; a mask begins at a probability of 0.5.
            name="paper",
            source="Lin et al. 2017, arXiv:1612.03144, section 6 and appendix A",
            neck=NeckConfig(channels=128, output_channels=128),
        ),
    )
}
