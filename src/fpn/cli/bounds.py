"""Numbers that options take: told when words are understood, before anything is looked for, read or imported.

A signature says them, such as `batch_size: Annotated[int, bounds.FROM_1]`. Groups of options have them in their fields.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from cyclopts import Parameter

from fpn.sections import LARGEST_COUNT


@dataclass(frozen=True)
class Bound:
    """Stops at a number, or at one of several, that is out of range; other values are passed over.

    Attributes:
        least: the smallest that is allowed.
        most: the largest.
        above: whether `least` itself is too small.
    """

    least: int = -LARGEST_COUNT
    most: int | None = None
    above: bool = False

    def __call__(self, _: object, value: object) -> None:
        """As cyclopts calls what checks a value.

        Raises:
            ValueError: says what is expected.
        """
        for each in value if isinstance(value, tuple | list) else (value,):
            if isinstance(each, int | float) and not isinstance(each, bool):
                self._check(each)

    def _check(self, number: int | float) -> None:
        if not math.isfinite(number):
            raise ValueError("Expected a finite number.")
        small = number <= self.least if self.above else number < self.least
        if small or (self.most is not None and number > self.most):
            raise ValueError(f"Expected {self._range()}.")
        if isinstance(number, int) and number > LARGEST_COUNT:
            raise ValueError(f"Expected {LARGEST_COUNT} at most.")

    def _range(self) -> str:
        low = f"more than {self.least:g}" if self.above else f"{self.least:g} or more"
        if self.most is None:
            return low
        return f"{low}, up to {self.most:g}" if self.above else f"{self.least:g} to {self.most:g}"


FROM_0 = Parameter(validator=Bound(0))
FROM_1 = Parameter(validator=Bound(1))
ABOVE_0 = Parameter(validator=Bound(0, above=True))
SHARE = Parameter(validator=Bound(0, 1))
ROOM = Parameter(validator=Bound(0, 1024))
