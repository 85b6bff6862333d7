"""Classes, ids and splits: what is never there, spelled in two ways, or divided so that it can't be learned."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from fpn.data.formats.layout import WHOLE, plain_split
from fpn.data.formats.survey import Survey
from fpn.data.issues import Finding
from fpn.suggestions import spelling
from fpn.wording import counted

_SHOWN = 6


def check_names(names: Sequence[str], counts: Counter[str]) -> Iterator[Finding]:
    """Class names that a person would take for the same."""
    for group in alike_names(names):
        said = " and ".join(f"{name!r} ({counted(counts[name], 'object')})" for name in group)
        yield Finding("class-spelling", said)


def alike_names(names: Sequence[str]) -> list[list[str]]:
    """Groups of names that differ only by case, spaces, hyphens or underscores; see `spelling`."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys(names):
        groups[spelling(name)].append(name)
    return [group for group in groups.values() if len(group) > 1]


def check_counts(names: Sequence[str], counts: Mapping[str, Counter[str]]) -> Iterator[Finding]:
    """Classes that have no objects; `counts`: split -> each class in its list -> objects."""
    together = sum(counts.values(), Counter[str]())
    for name in names:
        if not together[name]:
            yield Finding("class-unused", f"{name!r} has no object")
    training = [split for split in counts if plain_split(split) == "train"]
    if len(training) != 1 or len(counts) < 2:
        return
    known = counts[training[0]]
    for name in names:
        if together[name] and not known[name]:
            told = f"{name!r} has {counted(together[name], 'object')}, none in {training[0]}"
            yield (
                Finding("class-untrained", told)
                if name in known
                else Finding("class-unknown", f"{told}, nor is it in that list")
            )


def check_ids(survey: Survey) -> Iterator[Finding]:
    """Gaps in a COCO json's ids."""
    dataset = survey.dataset
    for what, ids in (("category", dataset.classes.ids), ("image", dataset.table.image_ids.tolist())):
        low, high = min(ids, default=0), max(ids, default=0)
        absent = high - low + 1 - len(set(ids))
        if absent > 0:
            message = f"{dataset.name}: {what} ids {low} to {high} leave out {absent}"
            yield Finding("id-gaps", message)


def contained(images: Mapping[str, frozenset[str]]) -> dict[str, str]:
    """Splits whose images are all in another one, with the largest such."""
    found = {}
    for inner, own in images.items():
        outer = [name for name, all_ in images.items() if name != inner and own <= all_]
        # Of two equal splits the first is the outer one.
        names = list(images)
        outer = [name for name in outer if own != images[name] or names.index(name) < names.index(inner)]
        if outer:
            found[inner] = max(outer, key=lambda name: len(images[name]))
    return found


def may_share(one: str, other: str, images: Mapping[str, frozenset[str]]) -> bool:
    """Whether two splits may have images in common: one is meant to be a part of the other."""
    inner, outer = (one, other) if images[one] <= images[other] else (other, one)
    if not images[inner] <= images[outer]:
        return False
    whole = outer == WHOLE or plain_split(outer) not in ("train", "val", "test", "trainval")
    parts = plain_split(outer) == "trainval" and plain_split(inner) in ("train", "val")
    return whole or parts or plain_split(inner) not in ("train", "val", "test", "trainval")


def check_splits(images: Mapping[str, frozenset[str]]) -> Iterator[Finding]:
    """Images that stand in two splits by name; `images`: split -> paths."""
    splits = list(images)
    for first, one in enumerate(splits):
        for other in splits[first + 1 :]:
            if not may_share(one, other, images):
                for name in sorted(images[one] & images[other]):
                    yield Finding("split-overlap", f"{name} is in {one} and in {other}", name)
    for inner, outer in contained(images).items():
        if may_share(inner, outer, images):
            yield Finding("split-contained", f"{inner} ({counted(len(images[inner]), 'image')}) is part of {outer}")


def some(texts: Sequence[str], limit: int = _SHOWN) -> str:
    """The first few of a list, in words."""
    return ", ".join(texts[:limit]) + (f", ... {len(texts) - limit} more" if len(texts) > limit else "")
