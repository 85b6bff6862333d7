"""`--check-images` and `--skip-unreadable`: what is said of images that can't be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from fpn.cli.terminal import progress_bar, say, say_warning
from fpn.errors import DataError, ImageError
from fpn.wording import counted

if TYPE_CHECKING:
    from fpn.data import Dataset

# So many images are named.
_NAMED = 20
_LEAVE_OUT = "--skip-unreadable leaves out such images, and names them."


def check_images(datasets: Sequence[Dataset | None], *, skip: bool, speaks: bool) -> None:
    """Decode all images of all datasets before a training.

    Args:
        datasets: to train and to measure on.
        skip: images that can't be read are left out later on, so they are only named.
        speaks: whether this process tells.

    Raises:
        DataError: there are such images, and `skip` is false.
    """
    from fpn.data.checks.classes import some
    from fpn.data.checks.decoding import decode_all
    from fpn.data.formats.files import enumerate_issues

    bar = partial(progress_bar, "decoding") if speaks else None
    unreadable: dict[str, str] = {}
    cut_short: dict[str, str] = {}
    seen: set[str] = set()
    for dataset in datasets:
        if dataset is not None:
            decoded = decode_all(dataset, bar=bar)
            unreadable |= decoded.unreadable
            cut_short |= decoded.cut_short
            seen.update(dataset.path(number) for number in range(len(dataset)))
    if unreadable and not skip:
        faults = [f"{path}: {why}" for path, why in unreadable.items()]
        remedy = "Restore them or take them out, or leave them out with --skip-unreadable."
        raise DataError(enumerate_issues(f"{len(faults)} of {len(seen)} images can't be read:", faults, remedy))
    if not speaks:
        return
    say_unreadable({path: f"{path}: {why}" for path, why in unreadable.items()}, "left out")
    if cut_short:
        told = some([f"{path}: {missing}" for path, missing in cut_short.items()], 3)
        say_warning(f"{counted(len(cut_short), 'image')} cut short, and used: {told}")
    say(f"{len(seen) - len(unreadable)} of {len(seen)} images can be decoded")


@contextmanager
def advising(advice: str = _LEAVE_OUT) -> Iterator[None]:
    """Add to what is said of an image that can't be read what else helps, beside mending it."""
    try:
        yield
    except ImageError as error:
        raise ImageError(f"{error} {advice}") from error


def say_unreadable(unreadable: Mapping[str, str], then: str) -> None:
    """Name images that can't be read, if there are any: path -> why, with the path; `then` is what follows from it."""
    if unreadable:
        more = [f"  ... and {len(unreadable) - _NAMED} more"] if len(unreadable) > _NAMED else []
        named = [f"  {why}" for why in list(unreadable.values())[:_NAMED]]
        say_warning("\n".join([f"{counted(len(unreadable), 'image')} can't be read; {then}:", *named, *more]))
