"""The later members of the family: their cases lie beside the project, and tests that need them are left out without.

`FPN_GOLDEN_FAMILY` names another folder of such cases; `FPN_GOLDEN_FAMILY_NAMES` that of their lists of names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from parity.golden import rule
from parity.golden.cases import Case

_SHARED = Path(__file__).parents[3].joinpath("../shared/golden").resolve()
FAMILY = Path(os.environ.get("FPN_GOLDEN_FAMILY", _SHARED / "public"))
FAMILY_NAMES = Path(os.environ.get("FPN_GOLDEN_FAMILY_NAMES", _SHARED / "names"))


def family_case(name: str) -> Case:
    """A case by name; the test is skipped where its folder is not at hand."""
    folder = FAMILY / name
    if not (folder / "meta.json").is_file():
        pytest.skip(f"no golden case {name} in {FAMILY}")
    return Case(folder)


def listed(names: str) -> list[rule.Entry]:
    """Names and shapes of a model's weights, from the list that a case's meta names."""
    entries = json.loads((FAMILY_NAMES / names.removeprefix("names/")).read_text())["entries"]
    return [(name, tuple(shape)) for name, shape, *_ in entries]


def made(case: Case, entries: Sequence[Any], factors: Sequence[Any], digest: str) -> dict[str, np.ndarray]:
    """Weights by the rule, proven by their digest."""
    given = (case.salt, tuple((name, tuple(shape)) for name, shape, *_ in entries), tuple(map(tuple, factors)))
    assert rule.digest(*given) == digest, f"{case.name}: the rule gives other weights"
    return rule.weights(*given)


def weights_of(case: Case) -> dict[str, np.ndarray]:
    """The original's weights for a case of one model."""
    return made(case, listed(case.meta["names"]), case.meta["factors"], case.meta["weights_sha256"])


def inputs(case: Case) -> list[Tensor]:
    """The maps that a case's meta describes, in its order."""
    spec = case.meta["input"]
    pairs = zip(spec["names"], spec["shapes"], strict=True)
    return [torch.from_numpy(rule.normal(case.salt, name, shape, spec["std"])) for name, shape in pairs]
