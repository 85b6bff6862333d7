"""The rule by which the originals' weights and inputs were made: numbers from names alone.

A weight is drawn from a generator seeded by its own name, so that any code that knows the names and shapes of a
model has the same weights as the original had when its figures were written, without a file of them.
"""

from __future__ import annotations

import hashlib
import math
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

Entry = tuple[str, tuple[int, ...]]  # a weight's name and shape
Factors = Sequence[tuple[str, float]]

SHIFTS = frozenset({"bias", "beta", "running_mean", "moving_mean"})
SCALES = frozenset({"weight", "gamma", "running_var", "moving_variance", "scale"})


def generator(salt: str, name: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(zlib.crc32((salt + name).encode("utf-8"))))


def normal(salt: str, name: str, shape: Sequence[int], std: float, mean: float = 0.0) -> np.ndarray:
    return (generator(salt, name).standard_normal(tuple(shape)) * std + mean).astype(np.float32)


def uniform(salt: str, name: str, shape: Sequence[int], low: float, high: float) -> np.ndarray:
    return (generator(salt, name).random(tuple(shape)) * (high - low) + low).astype(np.float32)


def weight(salt: str, name: str, shape: tuple[int, ...], factors: Factors = ()) -> np.ndarray:
    """The value of one parameter or buffer. Keras names end in ":0" and have the fan-in first."""
    keras = name.endswith(":0")
    leaf = re.split(r"[./]", name.removesuffix(":0"))[-1]
    if leaf == "num_batches_tracked":
        return np.zeros(shape, dtype=np.int64)
    random = generator(salt, name)
    if len(shape) >= 2:
        fan_in = math.prod(shape[:-1] if keras else shape[1:])
        value = random.standard_normal(shape) * math.sqrt(2 / fan_in)
    elif leaf == "edge_weights":  # of a BiFPN; some are negative
        value = random.random(shape) * 1.5 - 0.25
    elif leaf in SHIFTS:
        value = random.standard_normal(shape) * 0.1
    elif leaf in SCALES:
        value = random.random(shape) + 0.5
    else:
        raise ValueError(f"the rule knows no leaf {leaf!r} (in {name!r})")
    factor = next((number for pattern, number in factors if re.search(pattern, name)), 1.0)
    return np.asarray(value if factor == 1 else value * factor).astype(np.float32)


def weights(salt: str, entries: Iterable[Entry], factors: Factors = ()) -> dict[str, np.ndarray]:
    """The weights of a model, for its own use."""
    return {name: value.copy() for name, value in _kept_weights(salt, entries, factors).items()}


@lru_cache
def digest(salt: str, entries: tuple[Entry, ...], factors: tuple[tuple[str, float], ...] = ()) -> str:
    """Of these weights, as `sha256` has it; once for all cases of a model."""
    return sha256(_kept_weights(salt, entries, factors))


def _kept_weights(salt: str, entries: Iterable[Entry], factors: Factors) -> dict[str, np.ndarray]:
    found = {}
    for name, shape in entries:
        factor = next(((pattern, number) for pattern, number in factors if re.search(pattern, name)), None)
        found[name] = _kept(salt, name, shape, factor)
    return found


# Models of one toolkit have most of their weights in common, and to draw them takes longer than to detect. All that are
# in these tests' models would be 2.2 GB; these are half of it.
@lru_cache(maxsize=2500)
def _kept(salt: str, name: str, shape: tuple[int, ...], factor: tuple[str, float] | None) -> np.ndarray:
    return weight(salt, name, shape, () if factor is None else (factor,))


def sha256(values: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for value in values.values():
        digest.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8))
    return digest.hexdigest()


def from_spec(salt: str, spec: Mapping[str, Any]) -> np.ndarray:
    """An input as a case's meta.json describes it: a rule, a name, a shape and a spread."""
    assert spec["rule"] == "normal", spec
    return normal(salt, spec["name"], spec["shape"], spec["std"])
