"""`fpn explain`: shapes, strides, receptive fields, anchors, equation 1, and how toolkits differ."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from fpn.cli import paths
from fpn.cli.terminal import say
from fpn.errors import ConfigError
from fpn.training.config import DetectorName

if TYPE_CHECKING:
    from fpn.detectors import Dialect
    from fpn.shapes import Size
    from fpn.studies.explain.pyramid import Explanation
    from fpn.studies.tables import TextTable


def run(
    what: Annotated[str | None, Parameter(name="SIZE-OR-MODEL"), paths.MODEL_OR_SIZE] = None,
    /,
    *,
    detector: DetectorName = "faster_rcnn",
    backbone: str | None = None,
    neck: str | None = None,
    dialect: str | None = None,
    against: str | None = None,
    box: tuple[str, ...] = (),
    size: str = "640x480",
    short_side: int | None = None,
    long_side: int | None = None,
    as_is: Annotated[bool, Parameter(negative=())] = False,
    dialects: Annotated[bool, Parameter(negative=())] = False,
    markdown: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Show what a pyramid is: shapes, strides, receptive fields, anchors, and equation 1 as each toolkit has it.

    Sizes are width x height, as people write those of images. For example:

    fpn explain 640x480 --box 40x60 (the pyramid at that image size, and where such a box goes)

    fpn explain cells.safetensors --against paper (a model, and what it does differently)

    fpn explain --dialect torchvision --against detectron2 (two toolkits side by side)

    Args:
        what: Size of an image, such as 640x480, or a model file.
        detector: Kind of detector whose conventions are shown; a model has its own.
        backbone: Name of a timm model. None: resnet50, or what the dialect's original has.
        neck: How its maps become levels, such as pafpn or bifpn. None: fpn.
        dialect: Whose conventions: paper, torchvision, detectron2, mmdetection, fpn_pytorch, ... None: paper.
        against: Another dialect; shows only where it differs, and what each difference means.
        box: Boxes such as 40x60 in pixels of the image; shows the level that each is read from.
        size: Size of the image that a model is shown for.
        short_side: Shorter side of images in the network. None: the dialect's.
        long_side: Limit of the longer side. None: in the dialect's proportion.
        as_is: The size is what the network sees: the image is neither scaled nor padded.
        dialects: Show all conventions of all dialects.
        markdown: Write markdown in place of tables for the terminal.
    """
    from fpn.studies.explain.pyramid import dialects_page

    if dialects:
        _refuse(what=what, dialect=dialect, against=against)
        if markdown:
            say(dialects_page())
        else:
            _show(_all_dialects(), markdown=False)
        return
    if what is None:
        _show(_conventions(dialect, against, detector), markdown=markdown)
        return
    sides = {"short_side": short_side, "long_side": long_side}
    parts = {"backbone": backbone, "neck": neck}
    explained = _explain(what, detector, parts=parts, dialect=dialect, size=size, sides=sides, as_is=as_is)
    other = None if against is None else _other(against, explained.kind)
    tables = _about(explained, other, box, parts=parts, as_is=as_is)
    _show([*tables, *_origins(what)], markdown=markdown)


def _explain(
    what: str,
    detector: str,
    *,
    parts: Mapping[str, str | None],
    dialect: str | None,
    size: str,
    sides: dict[str, int | None],
    as_is: bool,
) -> Explanation:
    from fpn.detectors.presets import adapt_dialect
    from fpn.studies.explain.geometry import read_size
    from fpn.studies.explain.pyramid import explain_dialect, explain_model

    asked = read_size(what)
    if asked is not None:
        spoken = adapt_dialect(dialect or "paper", detector, **sides)
        return explain_dialect(spoken, asked, kind=detector, **_given(parts), as_is=as_is)
    if not Path(what).exists() and not what.endswith(".safetensors"):
        raise ConfigError(f"{what!r}: neither a size (width x height, such as 640x480) nor a model file")
    _refuse(dialect=dialect, **parts, **sides)
    return explain_model(what, _size(size), as_is=as_is)


def _about(
    explained: Explanation,
    other: Dialect | None,
    boxes: tuple[str, ...],
    *,
    parts: Mapping[str, str | None],
    as_is: bool,
) -> list[TextTable]:
    from fpn.detectors.presets import DIALECTS_OF
    from fpn.studies.explain.dialect_tables import differences
    from fpn.studies.explain.equation_one import boxes_tables, equation_table, with_rois
    from fpn.studies.explain.geometry import is_pyramid_only, read_box
    from fpn.studies.explain.pyramid import explain_dialect
    from fpn.studies.explain.windows import windows_table

    own, size = explained.dialect, explained.view.original
    asked = [read_box(text) for text in boxes]
    if asked and is_pyramid_only(own):
        raise ConfigError(f"--box: {own.name} is a pyramid without a detector, which reads no boxes. Leave it out.")
    if asked and not with_rois([own]):
        raise ConfigError(f"--box: {explained.kind} has no second stage that reads boxes from levels. Leave it out.")
    windows, kind = windows_table(explained), explained.kind
    tables = [explained.table(), *([] if windows is None else [windows])]
    if other is not None:
        theirs = explain_dialect(other, size, kind=kind, **_given(parts), as_is=as_is)
        tables += [theirs.table(), differences(own, other)]
    if not with_rois([own]):
        return tables
    shown = [own, other] if other else [own, *(each for each in DIALECTS_OF[kind].values() if each.name != own.name)]
    return [*tables, equation_table(shown), *boxes_tables(shown, asked, size, as_is=as_is)]


def _given(parts: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in parts.items() if value is not None}


def _origins(what: str) -> list[TextTable]:
    """Of a model file whose weights are another toolkit's."""
    from fpn.studies.explain.origins import origin_table

    table = origin_table(what) if Path(what).is_file() else None
    return [] if table is None else [table]


def _conventions(dialect: str | None, against: str | None, detector: str) -> list[TextTable]:
    from fpn.studies.explain.dialect_tables import differences, sources, whole
    from fpn.studies.explain.equation_one import equation_table, with_rois

    if dialect is None and against is None:
        raise ConfigError(
            "nothing to explain: name an image size, such as 640x480, a model file, or --dialect, or --dialects"
        )
    one = _dialect(dialect or "paper", detector)
    if against is None:
        return [sources([one]), *whole(one)]
    other = _other(against, detector)
    speaking = with_rois([one, other])
    return [sources([one, other]), differences(one, other), *([equation_table(speaking)] if speaking else [])]


def _all_dialects() -> list[TextTable]:
    from fpn.studies.explain.dialect_tables import compared_kinds, sources
    from fpn.studies.explain.equation_one import equation_table

    return [sources(), equation_table(), *compared_kinds()]


def _dialect(name: str, detector: str) -> Dialect:
    from fpn.detectors.presets import named_dialect

    return named_dialect(name, detector)


def _other(name: str, detector: str) -> Dialect:
    try:
        return _dialect(name, detector)
    except ConfigError as error:
        raise ConfigError(str(error).replace("dialect", "--against", 1)) from None


def _size(text: str) -> Size:
    from fpn.studies.explain.geometry import read_size

    size = read_size(text)
    if size is None:
        raise ConfigError(f"--size {text!r}: expected width x height in pixels, such as 640x480")
    return size


def _refuse(**given: object) -> None:
    """Options that have no meaning where they are."""
    idle = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is not None]
    if idle:
        raise ConfigError(f"{' '.join(idle)}: has no meaning here. Leave it out; see fpn explain --help.")


def _show(tables: list[TextTable], *, markdown: bool) -> None:
    if markdown:
        say("\n\n".join(table.markdown() for table in tables))
        return
    for number, table in enumerate(tables):
        if number:
            say()
        say(table.rich())
