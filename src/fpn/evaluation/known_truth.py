"""What of a dataset's truth a detector can be measured on: objects of classes that it knows, matched by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fpn.data.dataset import Dataset
from fpn.detectors.prediction import Predictor
from fpn.errors import ConfigError, DataError
from fpn.structures import Classes, Skeleton
from fpn.suggestions import nearest, spelling
from fpn.wording import counted

_SHOWN = 8


class ClassWarning(UserWarning):
    """Objects of some classes are not measured."""


@dataclass(frozen=True)
class KnownTruth:
    """A dataset as a detector is measured on it.

    Attributes:
        coco: the truth as a COCO json, without what the detector does not know.
        category_ids: detector label -> the dataset's category id; labels that the dataset does not know are left out.
        left_out: class that the detector does not know -> its objects in the dataset.
    """

    coco: dict[str, Any]
    category_ids: dict[int, int]
    left_out: dict[str, int]


def told_apart(detector: Predictor, dataset: Dataset) -> Dataset:
    """The dataset as a detector knows its objects: all of one class, if it tells none apart."""
    return dataset.without_classes() if detector.class_free else dataset


def shared_ids(classes: Classes, dataset: Dataset) -> dict[int, int]:
    """Match a detector's classes with a dataset's, by name: detector label -> the dataset's category id.

    Raises:
        ConfigError: they have no class in common.
    """
    ids = dict(zip(dataset.classes.names, dataset.classes.ids, strict=True))
    shared = {label: ids[name] for label, name in enumerate(classes.names) if name in ids}
    if not shared:
        both = f"Its classes: {_listed(list(ids))}. The model's: {_listed(list(classes.names))}."
        if hints := _hints(ids, classes):
            raise ConfigError(
                f"{dataset.name}: none of its classes is called as one of the model's. {both}{hints} If they are the "
                "same, rename them in the annotations."
            )
        raise ConfigError(
            f"{dataset.name}: seems to be another dataset than this model is for, as they have no class in common. "
            f"{both} Name the dataset, or the model, that belongs to it; or, if the classes are the same under other "
            "names, rename them in the annotations."
        )
    return shared


def known_truth(classes: Classes, dataset: Dataset) -> KnownTruth:
    """What of a dataset's truth a detector is measured on.

    Raises:
        ConfigError: they have no class in common.
    """
    shared = shared_ids(classes, dataset)
    truth = dataset.coco()
    left_out = count_unknown(classes, dataset)
    if left_out:
        known = set(shared.values())
        truth["annotations"] = [each for each in truth["annotations"] if each["category_id"] in known]
        truth["categories"] = [each for each in truth["categories"] if each["id"] in known]
    return KnownTruth(truth, shared, left_out)


def refuse_other_keypoints(skeleton: Skeleton | None, dataset: Dataset) -> None:
    """Stop where both a detector and a dataset have keypoints, and these are not the same ones.

    Names may differ, as formats without names number them; the same names in another order may not.

    Raises:
        ConfigError: they are others.
    """
    given = dataset.skeleton
    if skeleton is None or given is None:
        return
    if len(given) != len(skeleton) or (sorted(given.names) == sorted(skeleton.names) and given.names != skeleton.names):
        raise ConfigError(
            f"{dataset.name}: its objects have {_points(given)}, the detector has {_points(skeleton)}. Build the "
            "detector with skeleton=dataset.skeleton, or label the keypoints that it has."
        )


def count_unoutlined(dataset: Dataset) -> int | None:
    """How many objects of a dataset have no outline; None: it has no outlines.

    Raises:
        DataError: an outline is broken, of another size than its image, or without a pixel in it: nothing would match.
    """
    try:
        counts = [dataset.unoutlined(index) for index in range(len(dataset))]
    except DataError as error:
        raise DataError(
            f"{error}. `fpn check` names all such objects, and its --fix writes a copy without such outlines."
        ) from error
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _points(skeleton: Skeleton) -> str:
    return f"{len(skeleton)} keypoints ({_listed(list(skeleton.names))})"


def count_unknown(classes: Classes, dataset: Dataset) -> dict[str, int]:
    """Class of the dataset that a detector does not know -> its objects, ignored ones not counted."""
    unknown = [name for name in dataset.classes.names if name not in classes.names]
    if not unknown:
        return {}
    counts: Counter[int] = Counter()
    for index in range(len(dataset)):
        targets = dataset.targets(index)
        counts.update(targets.labels[~targets.ignore].tolist())
    return {name: counts[dataset.classes.names.index(name)] for name in unknown}


def describe_unknown(left_out: Mapping[str, int], classes: Classes, where: str, model: str = "the model") -> str:
    """What a warning says: what is left out, and what may be meant instead."""
    said = _listed([f"{name!r} ({counted(count, 'object')})" for name, count in left_out.items()])
    return f"{where}: {model} does not know {said}; only the others are measured.{_hints(left_out, classes)}"


def _hints(names: Iterable[str], classes: Classes) -> str:
    found = {name: _meant(name, classes) for name in list(names)[:_SHOWN]}
    return "".join(f" {name!r}:{hint}" for name, hint in found.items() if hint)


def _meant(name: str, classes: Classes) -> str:
    alike = [each for each in classes.names if spelling(each) == spelling(name)]
    return f" Did you mean {alike[0]!r}?" if alike else nearest(name, classes.names)


def _listed(texts: list[str]) -> str:
    return ", ".join(texts[:_SHOWN]) + (f", ... {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else "")
