"""Which objects the windows of segment proposals are for, level by level (paper, figure 4)."""

from __future__ import annotations

from fpn.detectors.dialect import SegmentDialect
from fpn.studies.explain.pyramid import Explanation
from fpn.studies.tables import TextTable


def windows_table(explained: Explanation) -> TextTable | None:
    """A row a size of windows on a level; None: this kind of detector has none."""
    if not isinstance(explained.dialect, SegmentDialect):
        return None
    config, rows = explained.dialect.segments, []
    for facts in explained.levels:
        for side in config.windows:
            scale = config.scale(side) * facts.level.stride
            number = facts.size.height * facts.size.width
            shown = scale * (1 + config.padding)
            rows.append((facts.level.name, f"{side}x{side}", f"{scale:.0f}", f"{shown:.0f}", str(number)))
    return TextTable(
        title=f"windows: the best {config.limit} give a mask of {config.mask_size}x{config.mask_size} cells each",
        columns=("level", ">cells", ">objects of", ">mask shows", ">windows"),
        rows=tuple(rows),
        notes=("objects of: their longer side, network pixels; an object goes to the nearest, in octaves.",),
    )
