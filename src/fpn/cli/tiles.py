"""Options of the verbs that can look at large images tile by tile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from fpn.errors import ConfigError
from fpn.sections import CheckedSettings

if TYPE_CHECKING:
    from fpn.detectors.tiling import Tiling


class TileOptions(CheckedSettings):
    """Large images in tiles."""

    tiles: int | None = Field(
        default=None,
        ge=32,
        le=16384,
        description="Cut each image into tiles of so many pixels a side, look at each, and put the results together: "
        "for images much larger than what the model learned from. A TIFF or JPEG 2000 too large to be held is read in "
        "parts (extra `large`). None: whole images.",
    )
    overlap: float = Field(
        default=0.2,
        ge=0,
        le=0.75,
        description="Part of a tile's side that it shares with the next one at least: as large as most objects are.",
    )
    also_whole: bool = Field(
        default=False, description="Also look at each image as a whole, for objects larger than a tile."
    )
    merge: Literal["nms", "vote"] = Field(
        default="nms",
        description="An object that several tiles show gets the surest box (nms), or the mean of them (vote).",
    )

    def tiling(self) -> Tiling | None:
        """As `predict_tiled` takes it; None: no tiles.

        Raises:
            ConfigError: an option of tiles without tiles.
        """
        if self.tiles is None:
            if self.model_fields_set & {"overlap", "also_whole", "merge"}:
                raise ConfigError("--overlap, --also-whole and --merge are of tiles: say their size by --tiles, too")
            return None
        from fpn.detectors.tiling import Tiling

        return Tiling(side=self.tiles, overlap=self.overlap, whole=self.also_whole, merge=self.merge)
