"""What is wrong with the words of a command: an unknown option, a word that is missing or in another's place."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from difflib import get_close_matches
from pathlib import Path

from cyclopts import UNSET, CycloptsError, MissingArgumentError, UnknownOptionError, ValidationError
from rich.text import Text

from fpn.cli.foreign_options import meant_elsewhere
from fpn.cli.paths import MisplacedError, There, hints_of, picture
from fpn.errors import DataNotFoundError

_CLASSES = " Classes need not be named: they are those of the labelled data, or of the model file."
# Names that are as near as a slip of the finger; what is further apart is another word.
_SLIP = 0.7


def told(error: CycloptsError) -> str:
    """What is wrong, without pydantic's frame around it."""
    if isinstance(error, UnknownOptionError):
        option, _, _ = (error.token.keyword or error.token.value).partition("=")
        known = [name for argument in error.argument_collection for name in argument.names]
        if Path(option).exists() or picture(Path(option)):
            return f"Unknown option: {option}. If it is a file, write ./{option}"
        return f"Unknown option: {option}.{meant_option(option, known)}"
    if isinstance(error, ValidationError) and error.argument is not None and error.argument.tokens:
        named = error.argument.tokens[0].keyword or error.argument.name.lstrip("-").upper()
        value = error.argument.value if error.value is UNSET else error.value
        why = error.exception_message.removesuffix(".")
        return f"{named} {value}: {why[:1].lower()}{why[1:]}"
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        missing = error.keyword or next((token.keyword for token in error.argument.tokens if token.keyword), None)
        if missing is not None:
            return f"{missing} has no value."
        typed = get_close_matches(error.argument.name, error.unused_tokens or (), n=1, cutoff=_SLIP)
        return f"{error.argument.name} is missing.{f' Did you mean it by {typed[0]}?' if typed else ''}"
    cause = error.__cause__
    while cause is not None:
        if hasattr(cause, "errors") and callable(cause.errors):
            reasons = [detail.get("ctx", {}).get("error") or detail["msg"] for detail in cause.errors()]
            return "; ".join(str(reason) for reason in reasons)
        cause = cause.__cause__
    message = error.__rich__()
    return message.plain if isinstance(message, Text) else str(error)


def meant_option(option: str, known: Collection[str]) -> str:
    """ " Did you mean --x?" for an option that there is not, or nothing where none is near.

    Args:
        option: as it was typed, hyphens included.
        known: those of the verb, and its words that have no option, such as DATA.
    """
    word = option.lstrip("-").casefold().replace("_", "-")
    if word in ("class", "classes"):
        return _CLASSES
    if (meant := meant_elsewhere(word, known)) is not None:
        return meant
    names = {name.removeprefix("--"): name for name in known if name.startswith("--")}
    begun = [name for name in names if len(word) > 2 and (name.startswith(f"{word}-") or name.endswith(f"-{word}"))]
    near = get_close_matches(word, names, n=1, cutoff=_SLIP) or begun[:3]
    return f" Did you mean {' or '.join(f'--{name}' for name in near)}?" if near else ""


def misplaced(error: CycloptsError, words: Sequence[str]) -> str:
    """What is wrong with a word that stands in another one's place; "": nothing is.

    Of too few words, the first one may be what is missing, not the last one.

    Args:
        error: that a word is missing; others are passed over.
        words: of a verb, without it; they are looked at up to the first option.
    """
    if not isinstance(error, MissingArgumentError) or error.argument is None or error.argument.name.startswith("-"):
        return ""
    plain = next((place for place, word in enumerate(words) if word.startswith("-")), len(words))
    hints = hints_of(error.target) if error.target is not None else {}
    for word, hint in zip(words[:plain], hints.values(), strict=False):
        for there in getattr(hint, "__metadata__", ()):
            if isinstance(there, There):
                try:
                    there.look(word)
                except MisplacedError as found:
                    return str(found)
                except DataNotFoundError:
                    return ""
    return ""
