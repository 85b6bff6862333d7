"""Paths that have to be there: each is looked for when words are understood, before anything heavy is imported.

A signature says what its paths are, such as `data: Annotated[Path, paths.DATA]` and `images: Annotated[Path | None,
paths.folder("--images")]`. A test says which path says nothing and is no place to write to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import BaseModel

from fpn.errors import DataNotFoundError
from fpn.suggestions import nearest, nearest_path

_GLOB_SIGNS = frozenset("*?[")
# What runs write their settings into; their models are told about where they are read.
_RUN = "run.json"
_BEST = "best.safetensors"
# Endings that are of nothing else: an .xml may be a model or labels.
_MODELS = (".safetensors", ".onnx", ".pt2")
# Backbone weights that are no file.
_WEIGHTS = ("imagenet", "offline", "none")


class MisplacedError(DataNotFoundError):
    """A word of a command is there and something else than its place asks for."""


@dataclass(frozen=True)
class There:
    """Stops where a path is not there.

    Attributes:
        what: is looked for, such as "model file".
        fits: whether a path that is there is one.
        option: which names it; "": its place among the words does.
        path_of: the path that a word has; None: the word is none, such as a name of torchvision's.
        all_of_them: of several paths, whether each has to be there, or one of them.
        hint: what may have been meant.
        about: what to say of such a path to a person who named something else.
    """

    what: str
    fits: Callable[[Path], bool] = Path.exists
    option: str = ""
    path_of: Callable[[str], Path | None] = Path
    all_of_them: bool = True
    hint: Callable[[Path], str] = nearest_path
    about: str = ""

    def look(self, value: Any) -> None:
        """Stop where a path, or one of several, is not there; other values are passed over.

        Raises:
            DataNotFoundError: says what was looked for and what may have been meant.
        """
        words = value if isinstance(value, tuple | list) else (value,)
        texts = [str(word) for word in words if isinstance(word, str | Path)]
        try:
            paths = [path for text in texts if (path := self.path_of(text)) is not None]
        except OSError:  # such as of a name that is too long, which is told where it is opened
            return
        absent = [path for path in paths if not self._is_there(path)]
        if absent and (self.all_of_them or len(absent) == len(words)):
            misplaced = absent[0].exists() and not self.option and not _in_run(absent[0])
            kind = MisplacedError if misplaced else DataNotFoundError
            raise kind(f"{self.option} {self._complaint(absent[0])}".strip())

    def _is_there(self, path: Path) -> bool:
        try:
            return self.fits(path) or path.is_symlink()
        except OSError:
            return True

    def _complaint(self, path: Path) -> str:
        if path.exists():
            return f"{path}: is {_kind(path)}, and not a {self.what}.{_in_run(path) or self.about}"
        return f"{path}: no such {self.what}.{self.hint(path)}"


def _in_run(path: Path) -> str:
    models = sorted(path.glob("*.safetensors"))
    best = next((each for each in models if each.name == _BEST or len(models) == 1), None)
    return f" Did you mean '{best}'?" if best is not None else ""


def _kind(path: Path) -> str:
    """What is there, in words, told by its name alone."""
    if path.is_dir():
        return "a folder"
    ending = path.suffix.lower()
    if ending in _MODELS:
        return "a model file"
    return picture(path) or "a file"


def picture(path: Path) -> str:
    """ "an image" or "a film", told by the name; else nothing."""
    from fpn.films import FILM_SUFFIXES
    from fpn.image_io import IMAGE_SUFFIXES

    ending = path.suffix.lower()
    return "an image" if ending in IMAGE_SUFFIXES else "a film" if ending in FILM_SUFFIXES else ""


def refuse_absent(values: Mapping[str, Any], hints: Mapping[str, Any], file: Path | None = None) -> None:
    """Stop at a path that is not there.

    Args:
        values: what was given, by name, groups of options among them.
        hints: the annotations of these names; others are passed over.
        file: of settings, which has the values; None: they were typed.

    Raises:
        DataNotFoundError: see `There`.
    """
    for name, value in values.items():
        if isinstance(value, BaseModel):
            group = type(value)
            typed = {each: getattr(value, each) for each in group.model_fields if each in value.model_fields_set}
            refuse_absent(typed, hints_of(group), file)
        for there in getattr(hints.get(name), "__metadata__", ()):
            if not isinstance(there, There):
                continue
            try:
                there.look(value)
            except DataNotFoundError as error:
                raise error if file is None else DataNotFoundError(f"{file}: {str(error).removeprefix('--')}") from None


def hints_of(what: object) -> dict[str, Any]:
    """The annotations of a function or a group of options, with all that stands beside the type."""
    return get_type_hints(what, include_extras=True)


def _is_model(path: Path) -> bool:
    # That a run was stopped before it wrote one is told where models are read.
    folder = path.parent
    if path.is_file():
        return path.suffix.lower() in _MODELS or not picture(path)
    return (folder / _RUN).is_file() and not any(folder.glob("*.safetensors"))


def _served(word: str) -> Path:
    """NAME=FILE, or FILE."""
    _, equals, file = word.partition("=")
    return Path(file) if equals and not Path(word).exists() else Path(word)


def _of_images(word: str) -> Path | None:
    """A file or a folder; None: a glob."""
    return Path(word) if Path(word).exists() or not _GLOB_SIGNS & set(word) else None


def _unless(*names: str) -> Callable[[str], Path | None]:
    return lambda word: None if word in names else Path(word)


def _nearest_weights(path: Path) -> str:
    return nearest(str(path), _WEIGHTS) or f" Known by name: {', '.join(_WEIGHTS)}.{nearest_path(path)}"


def _size_or_model(word: str) -> Path | None:
    return Path(word) if word.endswith(".safetensors") or Path(word).exists() else None


def _may_be_labelled(path: Path) -> bool:
    return path.is_dir() or (path.is_file() and path.suffix.lower() not in _MODELS and not picture(path))


def _beginning(word: str) -> Path | None:
    """A file; None: a name of torchvision's or timm's."""
    from fpn.interop.weight_names import is_timm, is_torchvision

    return None if is_torchvision(word) or is_timm(word) else Path(word)


def _nearest_beginning(path: Path) -> str:
    from fpn.interop.weight_names import meant

    return f" Weights with a name are torchvision/NAME and timm/NAME.{meant(str(path))}"


_OF_MODELS = " A model is the .safetensors file that `fpn train` or `fpn demo` wrote"
_FIRST = f"{_OF_MODELS}, and comes first."
MODEL = There("model file", _is_model, about=_FIRST)
MODELS = There("model file", _is_model, path_of=_served, about=f"{_OF_MODELS}.")
MODEL_OR_RESULTS = There("model file or file of detections", _is_model, about=_FIRST)
MODEL_OR_SIZE = There("model file", _is_model, path_of=_size_or_model, about=f"{_OF_MODELS}.")
_SETS = " Name the folder with images and labels, a COCO .json or a YOLO data.yaml."
DATA = There("file or folder of labelled images", _may_be_labelled, about=_SETS)
DATA_OR_SCENES = There(DATA.what, _may_be_labelled, path_of=_unless("scenes"), about=_SETS)
# Of images named one by one, one that is gone does not stop the others.
IMAGES = There("image, film or folder", path_of=_of_images, all_of_them=False)
SOURCES = There("file or folder", path_of=_of_images)


def dataset(option: str) -> There:
    """A labelled set that an option names."""
    return There("file or folder", option=option)


def folder(option: str) -> There:
    """A folder that an option names."""
    return There("folder", Path.is_dir, option)


def file(option: str) -> There:
    """A file, or several, that an option names."""
    return There("file", Path.is_file, option)


def image_words(option: str) -> There:
    """Files, folders and globs that an option names."""
    return There("file or folder", option=option, path_of=_of_images)


def weights(option: str) -> There:
    """A file of a backbone's weights, or a word for such as are had from elsewhere."""
    return There("file of weights", Path.is_file, option, _unless(*_WEIGHTS), hint=_nearest_weights)


def beginning(option: str = "") -> There:
    """A file of weights, or torchvision/NAME, or timm/NAME."""
    return There("file of weights", Path.is_file, option, _beginning, hint=_nearest_beginning)
