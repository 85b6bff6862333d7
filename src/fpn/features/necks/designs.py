"""What may stand between a backbone and heads, in one table: the paper's pyramid, the rivals that it is compared with
(figure 1, tables 1 to 3), and the necks that came after it. All emit the same kind of Features.

Every level of every design is as wide as the others, which heads that are shared by all levels need; so heads cannot
tell the designs apart. The table is data, and imports no torch, so that a command's help can name the designs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from fpn.errors import ConfigError
from fpn.suggestions import nearest

if TYPE_CHECKING:
    from fpn.features.extractor import BottomUp, Extractor
    from fpn.features.necks.config import NeckConfig

# The design that is the paper's own, and that the others are compared with.
FPN = "fpn"


@dataclass(frozen=True, kw_only=True)
class Design:
    """A way to make levels.

    Attributes:
        name: key in `DESIGNS`.
        title: what the paper calls it.
        short: the same in a word or two, for a terminal.
        letter: of its row in the paper's tables, or the number of its figure; of what came later, the year.
        place: where in the paper it is, or in which other one.
        feature: what heads read, as the paper writes it.
        out: which levels its backbone must emit.
        lateral: whether it has lateral connections, as the tables' columns say.
        top_down: whether it has the top-down path.
        kind: which part makes the levels. An image pyramid is no neck: it has its own way to run the backbone.
        rival: whether it is one of those that the paper takes something away for. A rival's neck has the settings
            `neck` and nothing of the dialect but the width; all others have the dialect's settings.
        neck: settings of a rival's neck that are not the defaults.
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
    kind: Literal["pyramid", "image_pyramid", "pafpn", "bifpn", "simple_pyramid"] = "pyramid"
    rival: bool = True
    neck: Mapping[str, Any] = field(default_factory=dict)

    def reads(self, finest_level: int) -> tuple[int, ...]:
        """Which levels a bottom-up path has to emit for it: those of `out` from that number on."""
        return tuple(number for number in self.out if number >= finest_level)

    def build(self, backbone: BottomUp, config: NeckConfig) -> Extractor:
        """The design on a backbone that emits `out`.

        Args:
            backbone: bottom-up path.
            config: the dialect's; a rival takes its width alone.

        Raises:
            ConfigError: the settings do not fit the design, or each other.
        """
        from fpn.features.extractor import FeatureExtractor
        from fpn.features.necks.bifpn import BiFPN
        from fpn.features.necks.config import NeckConfig
        from fpn.features.necks.fpn import FeaturePyramid
        from fpn.features.necks.image_pyramid import ImagePyramid
        from fpn.features.necks.pafpn import PathAggregation
        from fpn.features.necks.simple_pyramid import SimplePyramid

        width = config.output_channels
        if self.kind == "image_pyramid":
            return ImagePyramid(backbone=backbone, channels=width)
        kinds = {"pyramid": FeaturePyramid, "pafpn": PathAggregation, "bifpn": BiFPN, "simple_pyramid": SimplePyramid}
        own = NeckConfig(channels=width, output_channels=width, **self.neck) if self.rival else config
        return FeatureExtractor(backbone=backbone, neck=kinds[self.kind](backbone.levels, config=own))


# In the order of the paper's tables, then figure 1, then the years.
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
        rival=False,
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
        kind="image_pyramid",
    ),
    # From here on, what came after the paper.
    Design(
        name="pafpn",
        title="PANet's bottom-up path",
        short="PAFPN",
        letter="2018",
        place="Liu et al. 2018, arXiv:1803.01534, section 3.1",
        lateral=True,
        top_down=True,
        kind="pafpn",
        rival=False,
    ),
    Design(
        name="bifpn",
        title="EfficientDet's BiFPN",
        short="BiFPN",
        letter="2020",
        place="Tan et al. 2020, arXiv:1911.09070, section 3",
        lateral=True,
        top_down=True,
        kind="bifpn",
        rival=False,
    ),
    # It reads one map, the last of a plain transformer.
    Design(
        name="simple_pyramid",
        title="ViTDet's simple pyramid",
        short="simple",
        letter="2022",
        place="Li et al. 2022, arXiv:2203.16527, section 3",
        out=(4,),
        kind="simple_pyramid",
        rival=False,
    ),
)
DESIGNS: Mapping[str, Design] = {design.name: design for design in _TABLE}
# The rows of the paper's own comparison.
PAPER_ROWS = tuple(name for name, design in DESIGNS.items() if design.rival or name == FPN)


def named_design(name: str) -> Design:
    """One of `DESIGNS`.

    Raises:
        ConfigError: unknown.
    """
    if name not in DESIGNS:
        raise ConfigError(f"neck {name!r}: choose one of {', '.join(DESIGNS)}.{nearest(name, DESIGNS)}")
    return DESIGNS[name]
