"""Which image a VOC file is about: the one of its name, in the folder that answers its own."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from fpn.data.formats.files import Folder, is_image, plain_name


class ImageIndex:
    """The images of some folders by their names without suffix; each folder is walked once, when it is needed.

    Args:
        folder: of the dataset.
        places: folders of images, the likeliest first. Of `folder` itself only what lies directly in it counts.
    """

    def __init__(self, folder: Folder, places: Sequence[Path]) -> None:
        self.folder, self.places = folder, places
        self._by_path: dict[Path, dict[str, list[str]]] = {}
        self._by_name: dict[Path, dict[str, list[str]]] = {}

    def images_of(self, annotation: str, said: str) -> list[str]:
        """The images that an annotation may be about, relative to the folder: one, none, or several.

        Args:
            annotation: its path in the folder of annotations.
            said: the <filename> in it, which decides between images of one name; alone it is often stale.
        """
        found = self._of_name(annotation)
        if len(found) < 2:
            return found
        name = plain_name(said.replace("\\", "/").rsplit("/", 1)[-1])
        decided = [path for path in found if plain_name(os.path.basename(path)) == name]  # noqa: PTH119
        return decided if len(decided) == 1 else found

    def has_several(self, annotation: str) -> bool:
        """Whether several images have an annotation's name."""
        return len(self._of_name(annotation)) > 1

    def filled(self) -> list[Path]:
        """The folders that hold images."""
        return [place for place in self.places if self._paths(place)]

    def _of_name(self, annotation: str) -> list[str]:
        stem = plain_name(os.path.splitext(annotation)[0])  # noqa: PTH122
        last = stem.rsplit("/", 1)[-1]
        for place in self.places:
            paths = self._paths(place)
            found = paths.get(stem) or paths.get(last) or self._by_name[place].get(last)
            if found:
                return found
        return []

    def _paths(self, place: Path) -> dict[str, list[str]]:
        if place not in self._by_path:
            by_path: dict[str, list[str]] = defaultdict(list)
            by_name: dict[str, list[str]] = defaultdict(list)
            for path in self.folder.walk(str(place), 0 if place == self.folder.root else 24):
                name = os.path.basename(path)  # noqa: PTH119  # many
                if is_image(name):
                    inside = os.path.splitext(os.path.relpath(path, place))[0].replace(os.sep, "/")  # noqa: PTH122
                    by_path[plain_name(inside)].append(self.folder.relative(path))
                    by_name[plain_name(os.path.splitext(name)[0])].append(self.folder.relative(path))  # noqa: PTH122
            self._by_path[place], self._by_name[place] = dict(by_path), dict(by_name)
        return self._by_path[place]
