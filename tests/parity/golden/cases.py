"""The figures that the originals' own code computed, as stored beside this file (numbers only)."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from parity.golden import rule

HERE = Path(__file__).parent
# Another folder of cases of the same structure can be tested with the same tests.
FIGURES = Path(os.environ.get("FPN_GOLDEN_FIGURES", HERE / "figures"))
NAMES = Path(os.environ.get("FPN_GOLDEN_NAMES", HERE / "names"))


@dataclass(frozen=True)
class Case:
    """One case: `meta` says how it was made, `arrays` hold what came out (sometimes a part of it)."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @cached_property
    def meta(self) -> dict[str, Any]:
        return json.loads((self.folder / "meta.json").read_text())

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        with np.load(self.folder / "arrays.npz", allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}

    @property
    def salt(self) -> str:
        return self.meta["salt"]

    @property
    def factors(self) -> list[tuple[str, float]]:
        return [tuple(entry) for entry in self.meta.get("factors", ())]

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def normal(self, name: str, shape: tuple[int, ...] | list[int], std: float) -> np.ndarray:
        return rule.normal(self.salt, name, shape, std)

    def input(self) -> np.ndarray:
        return rule.from_spec(self.salt, self.meta["input"])

    def stored_part(self, name: str, full: np.ndarray) -> np.ndarray:
        """The part of a full output that the case keeps, after a check of the whole's shape."""
        about = self.meta["arrays"][name]
        assert list(full.shape) == about["full_shape"], f"{self.name}/{name}: {full.shape}, not {about['full_shape']}"
        return full[parse_slice(about["stored_slice"])] if "stored_slice" in about else full


def parse_slice(text: str) -> tuple[Any, ...]:
    """Turn the text "[:, ::8]" into an index."""

    def part(piece: str) -> Any:
        if piece == "...":
            return Ellipsis
        return slice(*(int(number) if number else None for number in piece.split(":")))

    return tuple(part(piece.strip()) for piece in text.strip("[]").split(","))


def case(name: str) -> Case:
    return Case(FIGURES / name)


def cases(prefix: str) -> list[Case]:
    """All cases whose name starts so, for `pytest.mark.parametrize(..., ids=lambda case: case.name)`."""
    return [Case(folder) for folder in sorted(FIGURES.glob(f"{prefix}*")) if (folder / "meta.json").is_file()]


@lru_cache
def entries(names: str) -> tuple[rule.Entry, ...]:
    """Names and shapes of a model's weights. Keras lists carry the layer group before the name."""
    listed = json.loads((NAMES / names).read_text())["entries"]
    return tuple((e[1], tuple(e[2])) if isinstance(e[1], str) else (e[0], tuple(e[1])) for e in listed)


def same_weights(case: Case, names: str) -> dict[str, np.ndarray]:
    """The original's weights for this case, proven by the digest in its meta.json."""
    given = (case.salt, entries(names), tuple(case.factors))
    assert rule.digest(*given) == case.meta["weights_sha256"], f"{case.name}: the rule gives other weights"
    return rule.weights(*given)
