"""What a pyramid is at an image size: strides, shapes, channels, receptive fields, anchors.

Networks are built on the meta device, which has shapes and no values: a ResNet-101 takes no memory and no arithmetic.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from fpn.detectors import read_header
from fpn.detectors.builder import adapt_to_levels, build_features
from fpn.detectors.dialect import AnchorDialect, Dialect, TwoStageDialect
from fpn.detectors.model_file import build_from_header
from fpn.detectors.toolkits import MINIMAL, PYTORCH_FPN
from fpn.errors import ConfigError
from fpn.features.backbones.backbone import make_backbone
from fpn.features.backbones.teaching import ThreeLayerBackbone
from fpn.features.extractor import BottomUp, Extractor, FeatureExtractor
from fpn.features.necks.designs import FPN, Design, named_design
from fpn.shapes import Size
from fpn.structures import Level
from fpn.studies.explain.dialect_tables import compared_kinds, introduction, sources
from fpn.studies.explain.equation_one import equation_table
from fpn.studies.explain.geometry import View, by, is_pyramid_only, view
from fpn.studies.explain.receptive_field import receptive_fields
from fpn.studies.tables import TextTable
from fpn.wording import counted

DEFAULT_BACKBONE = "resnet50"
# What kuangliu's FPN101() really builds: two bottlenecks a stage.
_OWN_BACKBONES = {PYTORCH_FPN.name: "resnet26"}


@dataclass(frozen=True)
class LevelFacts:
    """One map at an image size.

    Attributes:
        level: name, channels and stride.
        size: of the map in cells.
        receptive_field: side in pixels of what a cell sees; None: the whole image; 0: not known.
        anchor_sizes: square roots of the areas of its anchors; none on a bottom-up map.
        anchors_a_cell: A.
    """

    level: Level
    size: Size
    receptive_field: int | None
    anchor_sizes: tuple[float, ...] = ()
    anchors_a_cell: int = 0

    @property
    def num_anchors(self) -> int:
        """H * W * A."""
        return self.size.height * self.size.width * self.anchors_a_cell


@dataclass(frozen=True)
class Explanation:
    """A pyramid at an image size.

    Attributes:
        subject: what is explained, in a few words.
        dialect: its conventions.
        kind: of detector that they are of.
        view: how the image enters.
        bottom_up: maps of the backbone, finest first.
        levels: maps of the pyramid, finest first.
    """

    subject: str
    dialect: Dialect
    kind: str
    view: View
    bottom_up: tuple[LevelFacts, ...]
    levels: tuple[LevelFacts, ...]

    @property
    def num_anchors(self) -> int:
        """Anchors of all levels."""
        return sum(facts.num_anchors for facts in self.levels)

    def table(self) -> TextTable:
        """A row a level; sizes are width x height."""
        rows = [_row(facts) for facts in (*self.bottom_up, *self.levels)]
        columns: tuple[str, ...] = ("level", ">stride", ">map", ">channels", ">sees", ">anchors", ">a cell", ">number")
        if self.num_anchors:
            rows.append(("all", "", "", "", "", "", "", _thousands(self.num_anchors)))
        else:
            rows, columns = [row[:5] for row in rows], columns[:5]
        title = f"{self.subject}: {_way_in(self.view)}"
        return TextTable(title=title, columns=columns, rows=tuple(rows), notes=tuple(self._notes()))

    def _notes(self) -> list[str]:
        notes = [
            "sizes: width x height. sees: side in network pixels of the square that a cell depends on (theoretical "
            "receptive field, exact; of the map's cells the largest)."
        ]
        if any(facts.receptive_field is None for facts in (*self.bottom_up, *self.levels)):
            notes.append("all: each cell depends on the whole image, as after a squeeze-and-excite gate.")
        if self.num_anchors and isinstance(self.dialect, AnchorDialect):
            ratios = " ".join(f"{ratio:g}" for ratio in self.dialect.anchors.ratios)
            notes.append(
                f"anchors: square roots of their areas in pixels, each with {self.dialect.anchors.ratio} {ratios}."
            )
        return notes + list(self._surprises())

    def _surprises(self) -> list[str]:
        if not isinstance(self.dialect, AnchorDialect) or not self.num_anchors:
            return []
        steps = self.dialect.anchors.strides
        if isinstance(steps, str):
            return []
        return [
            f"{facts.level.name}: cells are {facts.level.stride} pixels apart, but its anchors {step}."
            for facts, step in zip(self.levels, steps, strict=False)
            if facts.level.stride != step
        ]


def explain_dialect(
    dialect: Dialect,
    size: Size,
    *,
    kind: str = "faster_rcnn",
    backbone: str | None = None,
    neck: str = FPN,
    as_is: bool = False,
) -> Explanation:
    """The pyramid of a dialect over a backbone.

    Args:
        dialect: conventions.
        size: of the image.
        kind: of detector that the dialect is of.
        backbone: name of a timm model; None: ResNet-50, or what the dialect's original has.
        neck: key in `DESIGNS`.
        as_is: the size is what the network sees, neither scaled nor padded; a pyramid without a detector always does.

    Raises:
        ConfigError: no such backbone or neck, or an image that is too small for it.
    """
    design = named_design(neck)
    if dialect.name == MINIMAL.name and backbone is not None:
        raise ConfigError(f"dialect {dialect.name} has a backbone of its own. Leave --backbone {backbone} out.")
    backbone = backbone or _OWN_BACKBONES.get(dialect.name, DEFAULT_BACKBONE)
    with torch.device("meta"):
        features = build_features(_bottom_up(dialect, backbone, design), design, dialect.neck).eval()
    over = "three convolutions" if dialect.name == MINIMAL.name else backbone
    over = over if neck == FPN else f"{neck} over {over}"
    as_is = as_is or is_pyramid_only(dialect)
    spoken = adapt_to_levels(dialect, features.levels) if isinstance(dialect, TwoStageDialect) else dialect
    subject = f"{dialect.name} over {over}" if neck == FPN else f"{dialect.name}, {over}"
    return _explain(subject, features, spoken, kind, view(dialect, size, as_is=as_is))


def explain_model(path: str | os.PathLike[str], size: Size, *, as_is: bool = False) -> Explanation:
    """The pyramid of a model file; its weights stay on the disk.

    Raises:
        DataNotFoundError, ModelFileError: as `fpn.load`.
    """
    header = read_header(path)
    with torch.device("meta"):
        detector = build_from_header(header, where=str(path)).eval()
    dialect = detector.recipe.dialect
    kind = detector.recipe.kind
    subject = f"{path} ({kind}, {detector.recipe.backbone}, {counted(len(detector.classes), 'class')}, {dialect.name})"
    # Its dialect may have any field changed: under the old name it would be confused with the one it came from.
    own = dialect.changed(name="this model")
    features = cast(Extractor, detector.get_submodule("features"))
    return _explain(subject, features, own, kind, view(own, size, as_is=as_is))


def dialects_page() -> str:
    """The text of docs/dialects.md, without the last line's end."""
    tables = [sources(), equation_table(), *compared_kinds()]
    return "\n\n".join([introduction(), *(table.markdown() for table in tables)])


def _bottom_up(dialect: Dialect, backbone: str, design: Design) -> BottomUp:
    if dialect.name == MINIMAL.name:
        return ThreeLayerBackbone()
    return make_backbone(backbone, out=design.reads(dialect.neck.finest_level), config=dialect.backbone)


def _explain(subject: str, features: Extractor, dialect: Dialect, kind: str, seen: View) -> Explanation:
    def maps_of(pixels: Tensor) -> Mapping[str, Tensor]:
        return _all_maps(features, pixels)

    shapes = _shapes(maps_of, seen.padded)
    fields = receptive_fields(maps_of)
    facts = {
        level.name: LevelFacts(level, shapes[level.name], fields.get(level.name, 0)) for level in _declared(features)
    }
    own = tuple(facts[level.name] for level in features.levels)
    bottom_up = tuple(each for each in facts.values() if each not in own)
    if isinstance(dialect, AnchorDialect) and not is_pyramid_only(dialect):
        own = tuple(_with_anchors(each, sizes, dialect) for each, sizes in zip(own, dialect.anchors.sizes, strict=True))
    return Explanation(subject, dialect, kind, seen, bottom_up, own)


def _declared(features: Extractor) -> list[Level]:
    bottom_up = features.backbone.levels if isinstance(features, FeatureExtractor) else ()
    return [*bottom_up, *features.levels]


def _all_maps(features: Extractor, pixels: Tensor) -> Mapping[str, Tensor]:
    """What a neck reads and what it emits; of an extractor without a neck what it emits."""
    if not isinstance(features, FeatureExtractor):
        made: Mapping[str, Tensor] = features(pixels)
        return made
    bottom_up = features.backbone(pixels)
    return {**bottom_up, **features.read(bottom_up, (pixels.shape[-2], pixels.shape[-1]))}


def _shapes(maps_of: object, padded: Size) -> dict[str, Size]:
    assert callable(maps_of)
    try:
        with torch.inference_mode():
            maps = maps_of(torch.empty(1, 3, *padded, device="meta"))
    except RuntimeError as error:
        raise ConfigError(f"size {by(padded)} is too small for this network: {error}. Try a larger one.") from error
    return {name: Size(*each.shape[-2:]) for name, each in maps.items()}


def _with_anchors(facts: LevelFacts, sizes: tuple[float, ...], dialect: AnchorDialect) -> LevelFacts:
    a_cell = len(sizes) * len(dialect.anchors.ratios)
    return LevelFacts(facts.level, facts.size, facts.receptive_field, sizes, a_cell)


def _row(facts: LevelFacts) -> tuple[str, ...]:
    level = facts.level
    seen = "all" if facts.receptive_field is None else str(facts.receptive_field or "?")
    shape = (level.name, str(level.stride), by(facts.size), str(level.channels), seen)
    if not facts.anchors_a_cell:
        return (*shape, "", "", "")
    sizes = " ".join(f"{size:g}" for size in facts.anchor_sizes)
    return (*shape, sizes, str(facts.anchors_a_cell), _thousands(facts.num_anchors))


def _way_in(seen: View) -> str:
    steps = [f"an image of {by(seen.original)}"]
    if seen.network != seen.original:
        steps.append(f"scaled to {by(seen.network)}")
    if seen.padded != seen.network:
        steps.append(f"padded to {by(seen.padded)}")
    return ", ".join(steps)


def _thousands(number: int) -> str:
    return f"{number:,}".replace(",", " ")
