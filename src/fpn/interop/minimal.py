"""The three-level teaching FPN: three convolutions, a 3x3 at the top, smoothed maps handed down.

It calls its coarsest map p1 and its finest p3; our levels are named by their stride, so that they are p3 and p1. Its
`latlayer1` is built but never used.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from fpn.detectors.builder import build_pyramid
from fpn.detectors.presets import adapt_dialect
from fpn.detectors.toolkits import MINIMAL
from fpn.features.backbones.teaching import ThreeLayerBackbone
from fpn.interop.assemble import fill_pyramid, read_widths
from fpn.interop.converted import Converted, State
from fpn.interop.key_rules import Rules, rename

RULES: Rules = (
    (r"bottomlayer(\d)\.(.+)", r"features.backbone.convolutions.c\1.\2"),
    (r"latlayer1\..+", None),
    (r"latlayer2\.(.+)", r"features.neck.laterals.c2.\1"),
    (r"latlayer3\.(.+)", r"features.neck.laterals.c1.\1"),
    (r"toplayer1\.(.+)", r"features.neck.laterals.c3.\1"),
    (r"toplayer2\.(.+)", r"features.neck.smooths.p2.\1"),
    (r"toplayer3\.(.+)", r"features.neck.smooths.p1.\1"),
)


def recognises(names: Collection[str]) -> bool:
    """Whether the names are this net's."""
    return {"bottomlayer1.weight", "toplayer1.weight"} <= set(names)


def convert(state: State, **conventions: Any) -> Converted:
    """Its weights in our pyramid, whose finest map is p1."""
    renamed, leftover = rename(state, RULES)
    dialect = adapt_dialect(read_widths(renamed, MINIMAL), **conventions)
    backbone = ThreeLayerBackbone([len(renamed[f"features.backbone.convolutions.c{k}.weight"]) for k in (1, 2, 3)])
    own = {name.removeprefix("features."): value for name, value in renamed.items()}
    return fill_pyramid(build_pyramid(backbone, dialect.neck), own, dialect, leftover)
