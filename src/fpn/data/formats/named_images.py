"""The images that annotation files name, one a file, of which the reader says what it had to look for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fpn.data.formats.files import Folder, is_image
from fpn.data.formats.locate import locate
from fpn.data.formats.table_builder import Options
from fpn.errors import DataError


def find_named_images(
    folder: Folder,
    names: Mapping[str, str],
    places: Sequence[Path],
    options: Options,
    *,
    called: Mapping[str, str],
    field: str,
    split: str,
) -> dict[str, str]:
    """Annotation file -> its image, relative to the folder, of those whose image is there.

    Args:
        folder: of the images, out of which no name may lead.
        names: annotation file -> the image's name as written in it.
        places: folders that names may be relative to, the likeliest first.
        options: that are told of names that lead out of the folder, or were written otherwise.
        called: annotation file -> what messages call it.
        field: where the name stands in a file.
        split: of which the files are.
    """
    if not names:
        return {}
    where = f"{called[next(iter(names))]}: {field}"
    found = locate(folder, dict.fromkeys(names.values()), lambda _: places, where, split=split, wanted=is_image)
    for path, name in names.items():
        if name in found.outside:
            message = str(found.outside[name]).replace(where, f"{called[path]}: {field}")
            options.fault("path-outside", DataError(message), called[path])
    if found.repaired:
        of = {name: f"{called[path]}: {field}" for path, name in names.items()}
        options.remark("name-repaired", found.told(where, of), found.summary(where, of))
    there = {path: found.paths[name] for path, name in names.items() if name in found.paths}
    return {path: folder.relative(image) for path, image in there.items() if folder.has(image)}
