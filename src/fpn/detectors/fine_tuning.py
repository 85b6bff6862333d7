"""Beginning with an earlier model on other classes: what belongs to a class follows its name, the rest stays whole."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from fpn.detectors.builder import build_detector
from fpn.detectors.detector import IMPORTED, Detector
from fpn.detectors.model_file import load
from fpn.detectors.presets import adapt_dialect, widths
from fpn.detectors.recipe import Recipe
from fpn.errors import ConfigError
from fpn.heads.class_rows import ClassRows, carry_rows
from fpn.sections import options_of
from fpn.structures import Classes
from fpn.suggestions import spelling

_SHOWN = 12
# Settings that do not change how a detector works, or that are told apart from the others.
_NOT_COMPARED = ("classes", "category_ids")


@dataclass(frozen=True)
class Carried:
    """What a detector took over from an earlier model; `str` of it is a few lines for people.

    Attributes:
        model: the file, or what else it was.
        kept: classes that both know, by exactly the same name: their weights were taken over.
        fresh: classes that the model does not know: their weights begin anew.
        left: classes of the model that are not wanted any more.
        alike: (fresh class, class of the model) whose names differ by case, spaces, hyphens or underscores alone.
        changed: settings that differ from the model's, such as "dialect.box.limit 100 -> 300".
    """

    model: str
    kept: tuple[str, ...]
    fresh: tuple[str, ...]
    left: tuple[str, ...]
    alike: tuple[tuple[str, str], ...]
    changed: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def _lines(self) -> Iterator[str]:
        yield f"begins with {self.model}"
        yield f"  classes kept: {_few(self.kept)}"
        if self.fresh:
            yield f"  begun anew, as the model does not know them: {_few(self.fresh)}"
        if self.left:
            yield f"  left behind, as the data does not have them: {_few(self.left)}"
        for name, known in self.alike:
            yield f"  {name!r} is not the model's {known!r}: if they are the same, write it {known!r} in the data"
        if self.changed:
            yield f"  set otherwise than in the model: {_few(self.changed)}"


def begin_with(
    model: Detector | str | os.PathLike[str], *, classes: Classes | Iterable[str], **settings: Any
) -> tuple[Detector, Carried]:
    """A detector for other classes that begins with the weights of an earlier model.

    It is of the model's kind, with the model's backbone, neck and conventions. In layers with rows by class the rows of
    classes that both know are taken over by name, background's too; those of other classes begin anew.

    Args:
        model: a `.safetensors` file that `save` wrote, or a detector.
        classes: names of what to find, or a dataset's `classes`, which keep their original ids.
        settings: what is to differ from the model, by the names that `faster_rcnn` takes: `short_side`,
            `frozen_stages`, `box_limit`, ...

    Returns:
        The detector, on the CPU, and what it took over.

    Raises:
        DataNotFoundError, ModelFileError: the file is missing or damaged.
        ConfigError: a setting that the model's weights do not fit.
    """
    source = model if isinstance(model, Detector) else load(model, device="cpu")
    detector = build_detector(adapt_recipe(source.recipe, classes=classes, **settings))
    return detector, take_weights(detector, source, name=_name(model))


def adapt_recipe(
    recipe: Recipe,
    *,
    classes: Classes | Iterable[str],
    backbone: str | None = None,
    neck: str | None = None,
    dialect: str | None = None,
    frozen_stages: int | None = None,
    frozen_norm: bool | None = None,
    channels: int | None = None,
    head_width: int | None = None,
    **conventions: Any,
) -> Recipe:
    """A model's recipe for other classes.

    Args:
        recipe: the model's.
        classes: names, or a dataset's `classes`; not looked at where a kind of detector tells none apart.
        backbone, neck, dialect: None, or as the model has them.
        frozen_stages, frozen_norm, channels, head_width, conventions: as `faster_rcnn` takes them; None: the model's.

    Raises:
        ConfigError: another backbone, neck or dialect than the model's, or an unknown setting.
    """
    for what, asked, own in (
        ("backbone", backbone, recipe.backbone),
        ("neck", neck, recipe.neck),
        ("dialect", dialect, recipe.dialect.name),
    ):
        if asked is not None and asked != own:
            raise ConfigError(f"{what} {asked!r}: the model to begin with has {own!r}. Leave it out.")
    named = recipe.found if recipe.class_free else Classes.of(classes)
    frozen = {"frozen_stages": frozen_stages, "frozen_norm": frozen_norm}
    return recipe.changed(
        classes=named.names,
        category_ids=named.ids,
        dialect=adapt_dialect(recipe.dialect, **widths(channels, head_width), **conventions),
        **{name: value for name, value in frozen.items() if value is not None},
    )


def take_from(detector: Detector, model: Detector | str | os.PathLike[str]) -> Carried:
    """`take_weights` of a detector or a model file.

    Raises:
        DataNotFoundError, ModelFileError: the file is missing or damaged.
        ConfigError: its weights do not fit.
    """
    source = model if isinstance(model, Detector) else load(model, device="cpu")
    return take_weights(detector, source, name=_name(model))


def take_weights(detector: Detector, source: Detector, *, name: str) -> Carried:
    """Give a detector all weights of another one in place, those that belong to classes by the classes' names.

    Args:
        detector: takes them.
        source: has them; it stays as it is.
        name: what to call it in messages.

    Raises:
        ConfigError: they are of different kinds, or weights that do not belong to classes have different shapes.
    """
    if type(detector) is not type(source) or detector.recipe.kind != source.recipe.kind:
        raise ConfigError(f"{name}: is a {source.recipe.kind}, the detector is a {detector.recipe.kind}")
    known, wanted = list(source.classes), list(detector.classes)
    pairs = [(known.index(each), label) for label, each in enumerate(wanted) if each in known]
    old, new = source.state_dict(), detector.state_dict()
    by_class, by_class_before = _named_rows(detector, new), _named_rows(source, old)
    misfits = [
        f"{key} is {_shape(old.get(key))} there and {_shape(new.get(key))} here"
        for key in sorted({*old, *new})
        if not _fits(old.get(key), new.get(key), by_class_before.get(key), by_class.get(key))
    ]
    if misfits:
        more = f", and {len(misfits) - 1} more" if len(misfits) > 1 else ""
        raise ConfigError(
            f"{name}: its weights do not fit the detector: {misfits[0]}{more}. Build the detector with the settings "
            "that the model has."
        )
    for key, rows in by_class.items():
        old[key] = carry_rows(
            old[key].to(new[key].device),
            new[key],
            rows,
            num_taken=len(known),
            num_fresh=len(wanted),
            pairs=pairs,
        )
    with torch.no_grad():
        for key, tensor in new.items():
            tensor.copy_(old[key])
    if IMPORTED in source.training_record:
        detector.training_record = {**detector.training_record, IMPORTED: source.training_record[IMPORTED]}
    return _describe(name, source, detector)


def _name(model: Detector | str | os.PathLike[str]) -> str:
    return f"a {type(model).__name__}" if isinstance(model, Detector) else str(model)


def _named_rows(detector: Detector, state: dict[str, Tensor]) -> dict[str, ClassRows]:
    """The tensors that have rows by class, by their names in the state."""
    names = {id(module): name for name, module in detector.named_modules()}
    found: dict[str, ClassRows] = {}
    for rows in detector.class_rows():
        prefix = f"{names[id(rows.layer)]}."
        found |= {key: rows for key in state if key.startswith(prefix)}
    return found


def _fits(old: Tensor | None, new: Tensor | None, before: ClassRows | None, now: ClassRows | None) -> bool:
    """Whether one can be taken over into the other: shaped alike, but for how many classes there are."""
    if old is None or new is None or (before is None) != (now is None):
        return False
    if before is None or now is None:
        return old.shape == new.shape
    return (before.each, before.groups, before.others) == (now.each, now.groups, now.others) and (
        old.shape[1:] == new.shape[1:]
    )


def _shape(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else str(tuple(tensor.shape))


def _describe(name: str, source: Detector, detector: Detector) -> Carried:
    known, wanted = source.classes.names, detector.classes.names
    fresh = tuple(each for each in wanted if each not in known)
    left = tuple(each for each in known if each not in wanted)
    spelled = {spelling(each): each for each in left}
    return Carried(
        model=name,
        kept=tuple(each for each in wanted if each in known),
        fresh=fresh,
        left=left,
        alike=tuple((each, spelled[spelling(each)]) for each in fresh if spelling(each) in spelled),
        changed=tuple(_changes(source.recipe, detector.recipe)),
    )


def _changes(before: Recipe, now: Recipe) -> Iterator[str]:
    for option in options_of(type(now)):
        old, new = (reduce(getattr, option.path.split("."), each) for each in (before, now))
        if old != new and option.path not in _NOT_COMPARED:
            yield f"{option.path.removeprefix('dialect.')} {old} -> {new}"


def _few(texts: Sequence[str]) -> str:
    more = f", ... {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + more if texts else "none"
