"""The designs that the paper compares (figure 1, tables 1 to 3): all of them pixels -> the same kind of Features.

Every level of every design is 256 (`channels`) wide, which heads that are shared by all levels need; so heads cannot
tell the designs apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from fpn.errors import ConfigError
from fpn.features.extractor import FeatureExtractor
from fpn.features.necks.fpn import FeaturePyramid
from fpn.features.necks.image_pyramid import ImagePyramid
from fpn.suggestions import nearest


def single_map(body: nn.Module, channels: int) -> FeatureExtractor:
    """Figure 1b: one map of one image, here through the same two convolutions as every level of a pyramid."""
    return FeaturePyramid(body=body, channels=channels, extra_levels="none")


def hierarchy(body: nn.Module, channels: int) -> FeatureExtractor:
    """Figure 1c: predictions from each bottom-up map; a 1x1 convolution brings them to one width, no more."""
    return FeaturePyramid(body=body, channels=channels, top_down="none", smoothed="none")


def feature_pyramid(body: nn.Module, channels: int) -> FeatureExtractor:
    """Figure 1d: the paper's Feature Pyramid Network."""
    return FeaturePyramid(body=body, channels=channels)


def lateral_without_top_down(body: nn.Module, channels: int) -> FeatureExtractor:
    """Tables 1d and 2d: 1x1 laterals and 3x3 convolutions on the bottom-up maps, and nothing comes down."""
    return FeaturePyramid(body=body, channels=channels, top_down="none")


def top_down_without_lateral(body: nn.Module, channels: int) -> FeatureExtractor:
    """Tables 1e and 2e: what comes down from c5 meets nothing, and has lost where things are."""
    return FeaturePyramid(body=body, channels=channels, lateral="top")


def finest_level(body: nn.Module, channels: int) -> FeatureExtractor:
    """Tables 1f and 2f: the whole pyramid is computed, and only P2 is used."""
    return FeaturePyramid(body=body, channels=channels, extra_levels="none", emitted="finest")


def image_pyramid(body: nn.Module, channels: int) -> FeatureExtractor:
    """Figure 1a."""
    return ImagePyramid(body=body, channels=channels)


@dataclass(frozen=True)
class Design:
    """A row of the paper's comparison.

    Attributes:
        name: key in `DESIGNS`.
        title: what the paper calls it.
        place: where in the paper.
        out: which levels its body must emit.
        build: body and channels -> features.
        lateral: whether it has the lateral connections, as the tables' columns say.
        top_down: whether it has the top-down path.
    """

    name: str
    title: str
    place: str
    out: tuple[int, ...]
    build: Callable[[nn.Module, int], FeatureExtractor]
    lateral: bool
    top_down: bool


_ALL = (2, 3, 4, 5)

DESIGNS: dict[str, Design] = {
    design.name: design
    for design in (
        Design("c4", "baseline on conv4", "figure 1b, tables 1a to 3a", (4,), single_map, False, False),
        Design("c5", "baseline on conv5", "figure 1b, tables 1b to 3b", (5,), single_map, False, False),
        Design("fpn", "FPN", "figure 1d, tables 1c to 3c", _ALL, feature_pyramid, True, True),
        Design("hierarchy", "pyramidal feature hierarchy", "figure 1c", _ALL, hierarchy, False, False),
        Design("lateral_only", "bottom-up pyramid", "tables 1d and 2d", _ALL, lateral_without_top_down, True, False),
        Design(
            "top_down_only",
            "top-down pyramid, w/o lateral",
            "tables 1e and 2e",
            _ALL,
            top_down_without_lateral,
            False,
            True,
        ),
        Design("p2_only", "only finest level", "tables 1f and 2f", _ALL, finest_level, True, True),
        Design("image_pyramid", "featurized image pyramid", "figure 1a", (3, 4), image_pyramid, False, False),
    )
}


def named_design(name: str) -> Design:
    """One of `DESIGNS`.

    Raises:
        ConfigError: unknown.
    """
    if name not in DESIGNS:
        raise ConfigError(f"neck {name!r}: choose one of {', '.join(DESIGNS)}.{nearest(name, DESIGNS)}")
    return DESIGNS[name]
