"""Names of Keras' arrays: its older files have them, those of Keras 3 have numbers within layers that have names.

Keras 3 (`save_weights("x.weights.h5")`) writes `layers/conv2d_3/vars/0`: which convolution that is, only an attribute
of the group `vars` tells. Read from files that Keras 3.15 wrote, and keras/src/saving/saving_lib.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, TypeAlias

from numpy.typing import NDArray

from fpn.interop.pickle_parts import RefusedFileError, printable

# Names of groups, the outermost first, and that of the array.
Place: TypeAlias = tuple[str, ...]

# What the numbers mean, by how many a layer has.
_LEAVES = {
    1: ("kernel",),
    2: ("kernel", "bias"),
    4: ("gamma", "beta", "moving_mean", "moving_variance"),
}
_OPTIMIZERS = ("optimizer", "optimizer_weights", "_optimizer")


def name_arrays(
    arrays: Mapping[Place, NDArray[Any]], titles: Mapping[Place, str]
) -> tuple[dict[str, NDArray[Any]], Mapping[str, int]]:
    """Arrays by name, such as "conv1/kernel", and how many of an optimizer were left out.

    Args:
        arrays: by path.
        titles: of the groups "vars", by path: the name of their layer.

    Raises:
        RefusedFileError: layers have no names, or two have the same.
    """
    kept = {place: value for place, value in arrays.items() if place[0] not in _OPTIMIZERS}
    left = len(arrays) - len(kept)
    skipped = {"arrays of an optimizer": left} if left else {}
    counts = Counter(place[:-1] for place in kept)
    named: dict[str, NDArray[Any]] = {}
    for place, value in kept.items():
        name = _name(place, titles, counts) if _numbered(place) else "/".join(place)
        if name in named:
            raise RefusedFileError(f"two layers of it are called {printable(name)}")
        named[name] = value
    return named, skipped


def _numbered(place: Place) -> bool:
    return len(place) > 1 and place[-2] == "vars" and place[-1].isascii() and place[-1].isdigit()


def _name(place: Place, titles: Mapping[Place, str], counts: Mapping[Place, int]) -> str:
    group, number = place[:-1], int(place[-1][:4])
    # What stands around a layer to repeat it, as TimeDistributed does, has the name that people gave.
    around = (*group[:-2], "vars")
    wrapped = len(group) > 2 and group[-2] == "layer" and around in titles
    title = titles.get(around if wrapped else group)
    if title is None:
        raise RefusedFileError(
            f"{printable('/'.join(group))}: Keras has written no names of layers into it. Load it into its model with "
            "a newer Keras 3 and save its weights again"
        )
    leaves = _LEAVES.get(counts[group], ())
    return f"{title}/{leaves[number] if number < len(leaves) else number}"
