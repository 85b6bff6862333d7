"""The page of the Python API: every public name with its signature and what its docstring says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

import griffe

from docs_tools.blocks import ROOT
from docs_tools.markdown import cell, code, escaped, table

# The packages whose `__all__` is promised; CHANGELOG.md lists their names.
PACKAGES = ("fpn", "fpn.data", "fpn.detectors", "fpn.evaluation", "fpn.interop", "fpn.structures")
_STARS = {griffe.ParameterKind.var_positional: "*", griffe.ParameterKind.var_keyword: "**"}
_WHAT = {
    "fpn": "What one needs to train, measure, use and ship a detector.",
    "fpn.data": "Datasets: labelled images in, samples out.",
    "fpn.detectors": "Detectors, their conventions, and the model file.",
    "fpn.evaluation": "Figures, how sure they are, and thresholds.",
    "fpn.interop": "Weights of other toolkits, and back.",
    "fpn.structures": "Types that cross borders.",
}
# Names that are no functions or classes, and so have no docstring.
_CONSTANTS = {
    "fpn.__version__": "The version of `fpn`, as text.",
    "fpn.detectors.DIALECTS": "Name -> conventions of Faster R-CNN; [Dialects](../dialects.md) shows all of them.",
    "fpn.detectors.PAPER": "The paper's conventions of Faster R-CNN.",
    "fpn.detectors.TORCHVISION": "torchvision's conventions of Faster R-CNN.",
    "fpn.evaluation.TASKS": "Name -> what can be measured: boxes, masks, keypoints, ...",
    "fpn.interop.TOOLKITS": "Name -> toolkit whose weights are recognised and read.",
    "fpn.structures.Features": "Maps by level, `dict[str, Tensor]`: finest first, keys `p2`, `p3`, ...; (B, C, H, W).",
    "fpn.structures.OBJECT": "What all objects are to a detector that tells no classes apart: one class, `object`.",
}
_HEAD = """\
# Python

The public names. What they do stays between releases unless `CHANGELOG.md` says otherwise; all else may
change. Shapes are written as `Float[Tensor, "n 4"]`: a tensor of numbers with n rows of 4. Boxes are x1, y1, x2, y2 in
pixels from 0 on, half-open (width is x2 - x1); labels are 0 to K - 1; sizes are (height, width).
"""


@cache
def _package() -> griffe.Object:
    found = griffe.load("fpn", search_paths=[str(ROOT / "src")], docstring_parser="google")
    assert isinstance(found, griffe.Object)
    return found


def public_names(package: str) -> list[str]:
    """The package's `__all__`, sorted without regard to case."""
    module = _at(package)
    return sorted((str(name) for name in module.exports or []), key=str.lower)


def _at(path: str) -> griffe.Object:
    inner = path.partition(".")[2]
    found = _package()[inner] if inner else _package()
    return found.final_target if isinstance(found, griffe.Alias) else found


def python_page() -> str:
    """The page."""
    lines = [_HEAD]
    shown: dict[str, str] = {}
    for package in PACKAGES:
        lines += [f"## {package}", "", _WHAT[package], ""]
        for name in public_names(package):
            found = _at(f"{package}.{name}")
            earlier = shown.get(found.path)
            if earlier is not None:
                heading = f"### {escaped(package)}.{escaped(name)}"
                lines += [heading, "", f"The same as [{earlier}](#{_anchor(earlier)}).", ""]
                continue
            shown[found.path] = f"{package}.{name}"
            lines += _entry(f"{package}.{name}", found)
    return "\n".join(lines)


def _anchor(name: str) -> str:
    return name.replace(".", "").lower()


def _entry(name: str, found: griffe.Object) -> list[str]:
    lines = [f"### {escaped(name)}", ""]
    if isinstance(found, griffe.Attribute):
        lines += [_CONSTANTS[name], ""]
    elif isinstance(found, griffe.Function):
        lines += _fenced(_signature(name.rpartition(".")[2], found))
    elif isinstance(found, griffe.Class):
        lines += _class_head(found)
    lines += _docstring(found)
    if isinstance(found, griffe.Class):
        for method in _methods(found):
            lines += [f"**{method.name}**", "", *_fenced(_signature(method.name, method)), *_docstring(method)]
    return lines


def _class_head(found: griffe.Class) -> list[str]:
    start = found.members.get("__init__")
    if isinstance(start, griffe.Function) and start.docstring is not None:
        return [*_fenced(_signature(found.name, start)), *_docstring(start)]
    return []


def _methods(found: griffe.Class) -> Iterator[griffe.Function]:
    for member in found.members.values():
        if isinstance(member, griffe.Function) and not member.name.startswith("_") and member.docstring is not None:
            yield member


def _fenced(text: str) -> list[str]:
    return ["<!-- generated -->", "```python", text, "```", ""]


def _signature(name: str, function: griffe.Function) -> str:
    """As one would write it, a parameter a line where one line is too long."""
    parts = list(_parameters(function.parameters))
    returns = f" -> {function.returns}" if function.returns is not None and name == function.name else ""
    line = f"{name}({', '.join(parts)}){returns}"
    if len(line) <= 100:
        return line
    return f"{name}(\n" + "".join(f"    {part},\n" for part in parts) + f"){returns}"


def _parameters(parameters: griffe.Parameters) -> Iterator[str]:
    starred = False
    for each in parameters:
        if each.name in ("self", "cls"):
            continue
        kind = each.kind
        if kind is griffe.ParameterKind.keyword_only and not starred:
            starred = True
            yield "*"
        stars = "" if kind is None else _STARS.get(kind, "")
        starred = starred or stars == "*"
        annotation = "" if each.annotation is None else f": {each.annotation}"
        default = "" if each.default is None or stars else f" = {each.default}"
        yield f"{stars}{each.name}{annotation}{default}"


def _docstring(found: griffe.Object) -> list[str]:
    if found.docstring is None:
        return []
    lines: list[str] = []
    for section in found.docstring.parse("google"):
        lines += _section(section)
    return lines


def _section(section: griffe.DocstringSection) -> list[str]:
    kind = section.kind
    if kind is griffe.DocstringSectionKind.text:
        return [escaped(str(section.value)), ""]
    if kind in (griffe.DocstringSectionKind.parameters, griffe.DocstringSectionKind.attributes):
        title = "parameter" if kind is griffe.DocstringSectionKind.parameters else "attribute"
        return table((title, "meaning"), _named(section.value))
    if kind is griffe.DocstringSectionKind.raises:
        rows = ((code(str(each.annotation).strip("()")), cell(each.description)) for each in section.value)
        return table(("raises", "when"), rows)
    if kind in (griffe.DocstringSectionKind.returns, griffe.DocstringSectionKind.yields):
        return [f"Gives: {cell(' '.join(each.description for each in section.value))}", ""]
    return [escaped(str(getattr(section.value, "contents", section.value))), ""]


def _named(values: Sequence[griffe.DocstringNamedElement]) -> list[tuple[str, str]]:
    return [(code(each.name), cell(each.description)) for each in values]
