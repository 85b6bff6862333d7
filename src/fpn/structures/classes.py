"""Class names together with the ids that the user's own files gave them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from fpn.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Classes(Sequence[str]):
    """The K classes of a dataset or detector: a sequence of names, label k is `classes[k]`.

    Attributes:
        names: K names, unique, in label order.
        ids: K original category ids (COCO ids may have gaps and any order); they come back on every output.
    """

    names: tuple[str, ...]
    ids: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.ids):
            raise ConfigError(f"{len(self.names)} class names but {len(self.ids)} category ids")
        for what, values in (("class name", self.names), ("category id", self.ids)):
            repeated = {str(value) for value, count in Counter(values).items() if count > 1}
            if repeated:
                raise ConfigError(f"{what} {', '.join(sorted(repeated)):.300} is given more than once")

    @classmethod
    def of(cls, classes: Classes | Iterable[str]) -> Classes:
        """`classes` itself, or names with the ids 1..K.

        Raises:
            ConfigError: no list of names, or one that no dataset could hold: empty, not to be printed, given twice.
        """
        if isinstance(classes, Classes):
            return classes
        if isinstance(classes, str) or not isinstance(classes, Iterable):
            raise ConfigError(f"classes={classes!r:.100}: expected a list of names, such as ['cell', 'platelet']")
        names = tuple(classes)
        for label, name in enumerate(names):
            if not isinstance(name, str):
                raise ConfigError(f"classes[{label}]={name!r:.100}: expected a name, in quotes")
            if not name.strip() or any(ord(letter) < 32 or "\ud800" <= letter <= "\udfff" for letter in name):
                raise ConfigError(f"classes[{label}]={name!a:.100}: expected a name of letters that can be printed")
        return cls(names, tuple(range(1, len(names) + 1)))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, label):  # type: ignore[no-untyped-def]  # int -> str, slice -> tuple of str
        return self.names[label]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)


# What all objects are to a detector that tells no classes apart.
OBJECT = Classes(("object",), (1,))
