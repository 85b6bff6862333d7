"""What a request for detections may say behind its question mark."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from fpn.detectors.tiling import Tiling
from fpn.errors import ConfigError

_OF_TILES = ("overlap", "also_whole", "merge")


class PredictQuery(BaseModel):
    """How images are looked at, and how the answer looks."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    format: Literal["json", "coco"] = Field("json", description="Boxes as x1, y1, x2, y2 an image, or COCO's lists.")
    score: Annotated[float, Field(ge=0, le=1)] | Literal["calibrated"] | None = Field(
        None, description="Give detections from this score on, or from each class's own threshold (calibrated)."
    )
    model: str | None = Field(None, max_length=200, description="By which model; the first one, if nothing is said.")
    tiles: int | None = Field(None, ge=32, le=16384, description="Cut each image into tiles of so many pixels a side.")
    overlap: float = Field(0.2, ge=0, le=0.75, description="Part of its side that a tile shares with the next one.")
    also_whole: bool = Field(False, description="Also look at each image as a whole.")
    merge: Literal["nms", "vote"] = Field("nms", description="What becomes of an object that several tiles show.")

    def tiling(self) -> Tiling | None:
        """How images are cut; None: they are not.

        Raises:
            ConfigError: something is said about tiles, but not their size.
        """
        if self.tiles is None:
            if self.model_fields_set & set(_OF_TILES):
                raise ConfigError("overlap, also_whole and merge are of tiles: say their size, such as tiles=1024, too")
            return None
        return Tiling(side=self.tiles, overlap=self.overlap, whole=self.also_whole, merge=self.merge)


KNOWN_QUERIES = tuple(PredictQuery.model_fields)
