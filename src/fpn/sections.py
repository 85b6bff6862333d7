"""Configuration as checked, frozen values: one section a part, declared beside the part that it configures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from fpn.errors import ConfigError
from fpn.suggestions import nearest

# Far beyond any detector; numbers above cost memory or time, or are typing errors.
LARGEST = 10_000_000
# No count of anything is meant beyond it, and numbers of 64 bits end.
LARGEST_COUNT = 2**53

_UNKNOWN, _MEANT = "unknown setting '", "Did you mean '"

# The choices in pydantic's own sentence about them.
_QUOTED = re.compile("'([^']*)'")

_T = TypeVar("_T")
_S = TypeVar("_S", bound="Section")
Positive = Annotated[_T, Field(gt=0, le=LARGEST)]
NotNegative = Annotated[_T, Field(ge=0, le=LARGEST)]
Number = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part's settings. Whatever exists is valid: every value is checked when the object is made.

    Types are strict: "0.5" is no number and True no count. Lists stand for tuples and mappings for sections, since that
    is what JSON and TOML have.

    Raises:
        ConfigError: an unknown name, a value of another type, out of range or not among the choices; the message has
            the whole name, the value, what may stand there, and the nearest choice.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        declared = type(self).model_fields
        for name in values:
            if name not in declared:
                raise ConfigError(f"unknown setting {name!r}.{nearest(name, declared) or _known(declared)}")
        try:
            super().__init__(**{name: _as_declared(name, declared[name], value) for name, value in values.items()})
        except ValidationError as error:
            raise ConfigError(_sentence(error, declared)) from None

    def changed(self: _S, **values: Any) -> _S:
        """A checked copy with other values.

        Args:
            values: by name; a setting of a section within is named by its path, such as `rpn_sampling_count=64`, and a
                mapping changes several of one section: `rpn={"nms": 0.6, "channels": 128}`.
        """
        nested: dict[str, dict[str, Any]] = {}
        own: dict[str, Any] = {}
        for name, value in values.items():
            head, rest = self._split(name)
            if rest:
                nested.setdefault(head, {})[rest] = value
            elif (
                head in type(self).model_fields
                and isinstance(getattr(self, head), Section)
                and isinstance(value, Mapping)
            ):
                nested.setdefault(head, {}).update(value)
            else:
                own[name] = value
        for head, inner in nested.items():
            with _within(head):
                own[head] = own.get(head, getattr(self, head)).changed(**inner)
        return type(self)(**{**{name: getattr(self, name) for name in type(self).model_fields}, **own})

    def _split(self, name: str) -> tuple[str, str]:
        """A section's name and the rest of the path; nothing is left of a field's own name."""
        path = flat_name(name)
        if path in type(self).model_fields:
            return path, ""
        for head in sections_of(type(self)):
            if path.startswith(f"{head}_"):
                return head, path.removeprefix(f"{head}_")
        close = nearest(path, [flat_name(option.path) for option in options_of(type(self))])
        raise ConfigError(f"unknown setting {name!r}.{close or _known(type(self).model_fields)}")

    def to_json(self) -> dict[str, Any]:
        """What JSON holds: tuples become lists, sections become objects."""
        return self.model_dump(mode="json")


def flat_name(path: str) -> str:
    """A setting's path as one keyword: "roi.sampler" is roi_sampler."""
    return path.replace(".", "_")


class CheckedSettings(BaseModel):
    """Named settings. Frozen; an unknown name is an error that says the nearest one.

    Raises:
        ConfigError: an unknown name, or a value out of range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        refuse_unknown(values, type(self).model_fields)
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError("; ".join(_complaint(detail) for detail in error.errors())) from None

    @model_validator(mode="after")
    def _fits_64_bits(self) -> CheckedSettings:
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, int) and abs(value) > LARGEST_COUNT:
                raise ValueError(f"{name} {value}: expected {LARGEST_COUNT} at most")
        return self


class Option:
    """One setting of a section.

    Attributes:
        path: its name, sections within joined by dots.
        meaning: what it decides, with its unit and source.
        choices: the names that it takes; none where it is a number or a text.
        default: what it is if nothing is said.
    """

    def __init__(self, path: str, field: FieldInfo) -> None:
        """Read from the field's declaration."""
        self.path, self.field = path, field
        self.meaning = " ".join((field.description or "").split())
        self.choices = tuple(each for each in choices_of(field.annotation) if isinstance(each, str))
        self.default = field.get_default(call_default_factory=True)


def sections_of(kind: type[Section]) -> dict[str, type[Section]]:
    """The sections within a section, by name."""
    found = {name: field.annotation for name, field in kind.model_fields.items()}
    return {name: inner for name, inner in found.items() if isinstance(inner, type) and issubclass(inner, Section)}


def options_of(kind: type[Section], prefix: str = "") -> Iterator[Option]:
    """All settings of a section and of the sections within, in order."""
    inner = sections_of(kind)
    for name, field in kind.model_fields.items():
        if name in inner:
            yield from options_of(inner[name], f"{prefix}{name}.")
        else:
            yield Option(f"{prefix}{name}", field)


def choices_of(annotation: Any) -> tuple[object, ...]:
    """The values that a `Literal` names, also inside of a union."""
    origin = get_origin(annotation)
    if origin is Literal:
        return get_args(annotation)
    if origin in (Union, UnionType, Annotated):
        return tuple(choice for part in get_args(annotation) for choice in choices_of(part))
    return ()


class _within:  # noqa: N801  reads as words
    """Errors inside name the section, too."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, ConfigError):
            raise ConfigError(_prefixed(self.name, str(error))) from None


def _prefixed(section: str, message: str) -> str:
    if message.startswith(_UNKNOWN):
        return message.replace(_UNKNOWN, f"{_UNKNOWN}{section}.", 1).replace(_MEANT, f"{_MEANT}{section}.", 1)
    return f"{section}.{message}"


def _as_declared(name: str, field: FieldInfo, value: Any) -> Any:
    """Lists as tuples; a mapping as the section that is declared there."""
    if isinstance(value, Mapping) and isinstance(field.annotation, type) and issubclass(field.annotation, Section):
        with _within(name):
            return field.annotation(**{str(key): inner for key, inner in value.items()})
    return _tuples(value)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(each) for each in value) if isinstance(value, list | tuple) else value


def _sentence(error: ValidationError, declared: Mapping[str, FieldInfo]) -> str:
    """The first complaint as: name value: what may stand there."""
    details = error.errors(include_url=False)
    first = details[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    if not name:
        return str(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "missing":
        return f"{name}: is missing"
    value = first["input"]
    choices = choices_of(declared[name].annotation)
    if choices:
        shown = ", ".join(map(str, choices))
        other = _or_number(details) if len({str(each["loc"][-1]) for each in details}) > 1 else ""
        return f"{name} {value!r}: choose one of {shown}{other}.{nearest(str(value), map(str, choices))}"
    return f"{name} {_expected(first)}"


# pydantic's name of a number's fault -> where its limit stands and what is said, in the words of `fpn.cli.bounds`.
_BOUNDS = {
    "greater_than_equal": ("ge", "{:.12g} or more"),
    "greater_than": ("gt", "more than {:.12g}"),
    "less_than_equal": ("le", "{:.12g} or less"),
    "less_than": ("lt", "less than {:.12g}"),
}


def _expected(detail: Any) -> str:
    """One of pydantic's complaints as: value: what was expected."""
    kind, value = str(detail["type"]), detail["input"]
    if kind in _BOUNDS:
        limit, words = _BOUNDS[kind]
        return f"{value!s:.300}: expected {words.format(detail['ctx'][limit])}"
    if kind == "finite_number":
        return f"{value!s:.300}: expected a finite number"
    message = str(detail["msg"]).removeprefix("Value error, ")
    return f"{value!r:.300}: {message[0].lower()}{message[1:]}"


def _or_number(details: list[Any]) -> str:
    if any("tuple" in str(each["loc"]) for each in details):
        return " or give numbers"
    bounds = [str(each["msg"]) for each in details if str(each["type"]).startswith(("less_than", "greater_than"))]
    if bounds:
        return f" or a number {bounds[0].removeprefix('Input should be ')}"
    return " or give a number" if any(str(each["type"]).startswith("float") for each in details) else ""


def _known(declared: Mapping[str, FieldInfo]) -> str:
    return f" Known: {', '.join(declared)}."


def refuse_unknown(values: Mapping[str, Any], known: Iterable[str]) -> None:
    """Stop at a name that is not known, and say the nearest one that is."""
    for name in values:
        if name not in known:
            hint = nearest(name, known) or f" Known: {', '.join(known)}."
            raise ConfigError(f"unknown setting {name!r}.{hint}")


def _complaint(detail: Any) -> str:
    """One of pydantic's complaints as: name value: what was expected."""
    meant = ""
    if detail["type"] == "literal_error":
        meant = "." + nearest(str(detail["input"]), _QUOTED.findall(str(detail["ctx"]["expected"])))
    if not detail["loc"]:
        return str(detail["msg"]).removeprefix("Value error, ") + meant
    return f"{'.'.join(map(str, detail['loc']))} {_expected(detail)}{meant}"
