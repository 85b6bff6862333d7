"""`fpn convert`: a dataset in another format."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from fpn.cli import paths
from fpn.cli.options import LimitOptions
from fpn.cli.terminal import progress_bar, say, say_renamed, say_warning


def run(
    data: Annotated[Path, paths.DATA],
    output: Annotated[Path, Parameter(name="OUT")],
    /,
    *,
    to: Literal["coco", "voc", "yolo"],
    split: str | None = None,
    images: Annotated[Path | None, paths.folder("--images")] = None,
    tiles: int | None = None,
    overlap: float | None = None,
    limits: Annotated[LimitOptions | None, Parameter(name="*", group="Limits")] = None,
) -> None:
    """Write a dataset in another format, and say what that format can't hold.

    Images are copied unchanged or cut into tiles, into one folder for each split; DATA stays as it is.

    Args:
        data: A folder or file in COCO, VOC, YOLO or LabelMe format.
        output: A new or empty folder.
        to: The format to write.
        split: Write this split only. None: all of them.
        images: Folder of the images, if they lie elsewhere than their annotations.
        tiles: Cut the images into tiles of so many pixels a side, each with what it shows of the objects, to train on
            large images: JPEG (quality 95) where they were, else PNG. None: images as they are.
        overlap: Part of a tile's side that it shares with the next one at least. None: 0.2.
    """
    from fpn.data.convert import convert as write
    from fpn.data.tile_cutting import TileSettings
    from fpn.errors import ConfigError

    if tiles is None and overlap is not None:
        raise ConfigError("--overlap is of tiles: say their size by --tiles, too")
    cut = None if tiles is None else TileSettings(tiles, 0.2 if overlap is None else overlap)
    accepted = (limits or LimitOptions()).limits()
    bar = partial(progress_bar, "writing")
    converted = write(data, to, output, split=split, images=images, limits=accepted, bar=bar, tiles=cut)
    splits = ", ".join(f"{name} {count}" for name, count in converted.splits.items())
    say(f"{converted.folder}: {to.upper()}, {'images' if cut is None else 'tiles'}: {splits}")
    for loss in converted.losses:
        say_warning(f"not kept: {loss}")
    say_renamed(converted.renamed)
    if not converted.losses:
        say("Nothing was lost.")
