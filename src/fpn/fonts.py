"""A font that has the letters of a text: Pillow's own, else one that this machine or a package of Python brings.

Pillow's own font draws every letter beyond ASCII as the same box. What no font here has becomes the letter below its
accents, else a question mark; `is_drawable` tells the latter, and a `FontWarning` says so once.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

# Packages that bring fonts, and where in them these lie.
_PACKAGES = {"font_roboto": "files", "matplotlib": "mpl-data/fonts/ttf"}
_SUFFIXES = (".ttf", ".otf", ".ttc", ".otc")
# File names, without spaces and hyphens: plain upright fonts without serifs first, the ones with the most letters.
_PREFERRED = (
    "notosanscjk", "notosans", "dejavusans", "roboto", "arialunicode", "segoeui", "msyh", "pingfang", "hiragino",
    "yugothic", "meiryo", "malgun", "applesdgothic", "wqy", "droidsansfallback", "sourcehansans", "liberationsans",
    "arial", "helvetica", "freesans", "unifont",
)  # fmt: skip
_STYLED = ("bold", "italic", "oblique", "black", "thin", "light", "condensed", "mono", "serif", "medium")
# They have a sign for each letter, all alike.
_EMPTY = ("lastresort", "blank", "notdef")
# A code point that never is a letter: fonts draw it as they draw all that they lack.
_NO_LETTER = "\U0010ffff"
_PROBED = 16
_LACKING = "?"
# Where a person may put a font.
_OWN_FOLDER = {"win32": "C:/Windows/Fonts", "darwin": "~/Library/Fonts"}
_SHOWN = 12
# What stands in every label beside the class's name.
_SCORES = "0123456789."


class FontWarning(UserWarning):
    """No font here has some letters of a text that is drawn."""


def fit_font(text: str, size: int, company: Sequence[str] = ()) -> tuple[ImageFont.FreeTypeFont, str]:
    """A font for a text, and the text as that font can show it.

    Args:
        text: one line.
        size: in pixels.
        company: texts that are drawn beside it: if one font has the letters of all, that one is taken.
    """
    text = _composed(text)
    file = _file_for(_letters(*map(_composed, company), text)) or _file_for(_letters(text))
    if file is None:
        file = _fullest(_letters(text))
    return _opened(file, size), _readable(text, file)


def is_drawable(text: str) -> bool:
    """Whether a font here has all letters of a text, at least without their accents."""
    text = _composed(text)
    return text.isascii() or _LACKING not in _readable(text.replace(_LACKING, ""), _fullest(_letters(text)))


def missing_letters(texts: Sequence[str]) -> str | None:
    """What to tell a person about letters of these texts that no font here has; None: all can be drawn."""
    unlike = [text for text in map(_composed, texts) if _file_for(_letters(text)) is None]
    missing = {letter: None for text in unlike for letter in text if not _has(_fullest(_letters(text)), letter)}
    if not missing:
        return None
    shown = " ".join([*list(missing)[:_SHOWN], *["..."] * (len(missing) > _SHOWN)])
    return (
        f"no font on this machine has {shown}: accents are left out, and a class with other letters is called by its "
        "id, such as #3. Latin, Greek and Cyrillic letters come with: pip install 'fpn[fonts]'. For others install a "
        "font of the system, such as Noto Sans CJK (on Debian and Ubuntu: apt install fonts-noto-cjk), or put a .ttf "
        f"file into {_OWN_FOLDER.get(sys.platform, '~/.local/share/fonts')}."
    )


def warn_of_missing_letters(texts: Sequence[str]) -> None:
    """A `FontWarning` with `missing_letters`, once in a process for the same texts."""
    if not all(text.isascii() for text in texts):
        _warn_once(tuple(texts))


@lru_cache(maxsize=256)
def _warn_once(texts: tuple[str, ...]) -> None:
    message = missing_letters(texts)
    if message is not None:
        warnings.warn(FontWarning(message), stacklevel=4)


def _letters(*texts: str) -> frozenset[str]:
    """What a font must have; empty where Pillow's own is enough."""
    letters = frozenset("".join(texts))
    return frozenset() if "".join(letters).isascii() else letters | frozenset(_SCORES)


@lru_cache(maxsize=1024)
def _file_for(letters: frozenset[str]) -> str | None:
    """The first font that has them all; "" is Pillow's own."""
    if not letters:
        return ""
    # The rarest first: most fonts fail at once.
    ordered = sorted(letters, reverse=True)
    return next((file for file in _font_files() if all(_has(file, letter) for letter in ordered)), None)


@lru_cache(maxsize=1024)
def _fullest(letters: frozenset[str]) -> str:
    """The font that has most of them, the first of equals."""
    return max(("", *_font_files()), key=lambda file: sum(_has(file, letter) for letter in letters))


def _readable(text: str, file: str) -> str:
    return "".join(letter if _has(file, letter) else _below_accents(letter, file) for letter in text)


def _below_accents(letter: str, file: str) -> str:
    if unicodedata.category(letter)[0] == "M":
        return ""
    base = unicodedata.normalize("NFKD", letter)[0]
    return base if base != letter and _has(file, base) else _LACKING


def _composed(text: str) -> str:
    """A letter and its accent as one letter, as most fonts have them."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


@lru_cache(maxsize=1 << 16)
def _has(file: str, letter: str) -> bool:
    """Whether a font has a letter, or need not: spaces and marks without a shape of their own."""
    if letter.isascii():
        return file == "" or _shape(file, letter) not in (None, _shape(file, _NO_LETTER)) or letter.isspace()
    if unicodedata.category(letter)[0] in "ZC":
        return True
    return bool(file) and _shape(file, letter) not in (None, _shape(file, _NO_LETTER))


@lru_cache(maxsize=1 << 12)
def _shape(file: str, letter: str) -> tuple[bytes, tuple[int, int]] | None:
    """What a font draws for a letter; None: nothing, or it can't be used."""
    try:
        # Without the layout of words, which may take a letter from elsewhere.
        mask = _probe(file).getmask(letter, mode="1")
    except (OSError, ValueError):
        return None
    return (bytes(mask), mask.size) if mask.getbbox() else None


@lru_cache(maxsize=64)
def _probe(file: str) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, _PROBED, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=64)
def _opened(file: str, size: int) -> ImageFont.FreeTypeFont:
    if file:
        return ImageFont.truetype(file, size)
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return font


@lru_cache(maxsize=1)
def _font_files() -> tuple[str, ...]:
    """All fonts here, the likeliest to be readable first."""
    found = {str(path): None for folder in _folders() for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES}
    usable = [file for file in found if not any(word in _plain(file) for word in _EMPTY)]
    return tuple(sorted(usable, key=_rank))


def _plain(file: str) -> str:
    return Path(file).stem.lower().replace("-", "").replace("_", "").replace(" ", "")


def _rank(file: str) -> tuple[bool, int, str]:
    name = _plain(file)
    place = next((number for number, start in enumerate(_PREFERRED) if name.startswith(start)), len(_PREFERRED))
    return any(style in name for style in _STYLED), place, file


def _folders() -> Iterator[Path]:
    """Where systems, persons and packages keep fonts; those that are not there are passed over."""
    home, environment = Path.home(), os.environ
    shared = environment.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    named: list[Path] = []
    if sys.platform == "win32":
        named += [Path(environment.get("WINDIR", "C:/Windows")) / "Fonts"]
        named += [Path(environment.get("LOCALAPPDATA", home)) / "Microsoft/Windows/Fonts"]
    elif sys.platform == "darwin":
        named += [home / "Library/Fonts", Path("/Library/Fonts"), Path("/System/Library/Fonts")]
    else:
        named += [Path(environment.get("XDG_DATA_HOME") or home / ".local/share") / "fonts", home / ".fonts"]
        named += [Path(folder) / "fonts" for folder in shared.split(":") if folder]
    for package, inside in _PACKAGES.items():
        place = importlib.util.find_spec(package)
        named += [Path(folder) / inside for folder in (place and place.submodule_search_locations) or ()]
    yield from (folder for folder in named if folder.is_dir())
