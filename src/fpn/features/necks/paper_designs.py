"""The designs that the paper compares (figure 1, tables 1 to 3), in one table: all emit the same kind of Features.

Every level of every design is as wide as the others, which heads that are shared by all levels need; so heads cannot
tell the designs apart. The table is data, and imports no torch, so that a command's help can name the designs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fpn.errors import ConfigError
from fpn.suggestions import nearest

if TYPE_CHECKING:
    from fpn.features.extractor import BottomUp, Extractor

# The design that is the paper's own, and that the others are compared with.
FPN = "fpn"


@dataclass(frozen=True, kw_only=True)
class Design:
    """A row of the paper's comparison.

    Attributes:
        name: key in `DESIGNS`.
        title: what the paper calls it.
        short: the same in a word or two, for a terminal.
        letter: of its row in the paper's tables, or the number of its figure.
        place: where in the paper it is.
        feature: what heads read, as the paper writes it.
        out: which levels its backbone must emit.
        lateral: whether it has lateral connections, as the tables' columns say.
        top_down: whether it has the top-down path.
        neck: settings of its neck, a `FeaturePyramid`, that are not the defaults; None: it is an `ImagePyramid`, which
            has no neck but an own way to run the backbone.
    """

    name: str
    title: str
    short: str
    letter: str
    place: str
    feature: str = "{Pk}"
    out: tuple[int, ...] = (2, 3, 4, 5)
    lateral: bool = False
    top_down: bool = False
    neck: Mapping[str, Any] | None = field(default_factory=dict)

    def build(self, backbone: BottomUp, channels: int) -> Extractor:
        """The design on a backbone that emits `out`, all of its levels `channels` wide."""
        from fpn.features.extractor import FeatureExtractor
        from fpn.features.necks.config import NeckConfig
        from fpn.features.necks.fpn import FeaturePyramid
        from fpn.features.necks.image_pyramid import ImagePyramid

        if self.neck is None:
            return ImagePyramid(backbone=backbone, channels=channels)
        config = NeckConfig(channels=channels, output_channels=channels, **self.neck)
        return FeatureExtractor(backbone=backbone, neck=FeaturePyramid(backbone.levels, config=config))


# In the order of the paper's tables, then figure 1.
_TABLE = (
    # One map of one image, here through the same two convolutions as every level of a pyramid.
    Design(
        name="c4",
        title="baseline on conv4",
        short="C4",
        letter="(a)",
        place="figure 1b, tables 1a to 3a",
        feature="C4",
        out=(4,),
        neck={"extra_levels": "none"},
    ),
    Design(
        name="c5",
        title="baseline on conv5",
        short="C5",
        letter="(b)",
        place="figure 1b, tables 1b to 3b",
        feature="C5",
        out=(5,),
        neck={"extra_levels": "none"},
    ),
    Design(
        name=FPN,
        title="FPN",
        short="FPN",
        letter="(c)",
        place="figure 1d, tables 1c to 3c",
        lateral=True,
        top_down=True,
    ),
    # 1x1 laterals and 3x3 convolutions on the bottom-up maps, and nothing comes down.
    Design(
        name="lateral_only",
        title="bottom-up pyramid",
        short="bottom-up",
        letter="(d)",
        place="tables 1d and 2d",
        lateral=True,
        neck={"top_down": "none"},
    ),
    # What comes down from c5 meets nothing, and has lost where things are.
    Design(
        name="top_down_only",
        title="top-down pyramid, w/o lateral",
        short="top-down",
        letter="(e)",
        place="tables 1e and 2e",
        top_down=True,
        neck={"lateral": "top"},
    ),
    # The whole pyramid is computed, and only P2 is used.
    Design(
        name="p2_only",
        title="only finest level",
        short="P2 only",
        letter="(f)",
        place="tables 1f and 2f",
        feature="P2",
        lateral=True,
        top_down=True,
        neck={"extra_levels": "none", "emitted": "finest"},
    ),
    # Predictions from each bottom-up map; a 1x1 convolution brings them to one width, no more.
    Design(
        name="hierarchy",
        title="pyramidal feature hierarchy",
        short="hierarchy",
        letter="1c",
        place="figure 1c",
        feature="{Ck}",
        neck={"top_down": "none", "smoothed": "none"},
    ),
    Design(
        name="image_pyramid",
        title="featurized image pyramid",
        short="images",
        letter="1a",
        place="figure 1a",
        feature="3 scales",
        out=(3, 4),
        neck=None,
    ),
)
DESIGNS: Mapping[str, Design] = {design.name: design for design in _TABLE}


def named_design(name: str) -> Design:
    """One of `DESIGNS`.

    Raises:
        ConfigError: unknown.
    """
    if name not in DESIGNS:
        raise ConfigError(f"neck {name!r}: choose one of {', '.join(DESIGNS)}.{nearest(name, DESIGNS)}")
    return DESIGNS[name]
