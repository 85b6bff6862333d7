"""Checks the types of all that fpn's functions and dataclasses take and give while tests run.

Shapes are checked by jaxtyping, whose letters mean one number throughout a call; all else by beartype alone. One
function in twenty has shapes. jaxtyping's own import hook treats them all as if they had: then importing everything
takes 13 s longer in each process of the tests, with this 1 s (2 cores of an AMD EPYC), and each call is slower, too.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import is_dataclass
from functools import cache, wraps
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any, TypeVar

from beartype import beartype
from jaxtyping import jaxtyped

PACKAGE = "fpn"
# What the decorators are called in the checked modules.
TYPES, SHAPES = "__check_types__", "__check_shapes__"
# In names of compiled files; another one whenever `Decorator` does something else.
MARK = ".checked-1.pyc"

Checked = TypeVar("Checked", bound=Callable[..., Any])


def install() -> None:
    """From now on: what was imported before is never checked."""
    assert PACKAGE not in sys.modules, "it was imported before its types could be checked"
    sys.meta_path.insert(0, CheckedFinder())


class CheckedFinder(MetaPathFinder):
    """Finds the package's modules as ever, and has them loaded with checks."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] != PACKAGE:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = CheckedLoader(spec.loader.name, spec.loader.path)
        return spec


class CheckedLoader(SourceFileLoader):
    """Decorates functions and dataclasses, and keeps the compiled file apart from the usual one."""

    def source_to_code(self, data: Any, path: Any, *, _optimize: int = -1) -> Any:
        tree = ast.parse(data, path)
        Decorator(tree)
        return compile(tree, path, "exec", dont_inherit=True, optimize=_optimize)

    def get_data(self, path: str) -> bytes:
        return super().get_data(_marked(path))

    def set_data(self, path: str, data: Any, **options: Any) -> None:
        super().set_data(_marked(path), data, **options)

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__.update({TYPES: check_types, SHAPES: check_shapes})
        super().exec_module(module)


class Decorator:
    """Of a module's functions and dataclasses; what is within functions is made anew at each call and left alone."""

    def __init__(self, module: ast.Module) -> None:
        imports = [each for each in module.body if isinstance(each, ast.ImportFrom) and each.module == "jaxtyping"]
        self.shapes = {alias.name for each in imports for alias in each.names}
        self.decorate(module.body)

    def decorate(self, body: Sequence[ast.stmt]) -> None:
        for statement in body:
            if isinstance(statement, ast.FunctionDef):
                given = statement.args
                arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
                annotations = [each.annotation for each in arguments if each] + [statement.returns]
                # Innermost, where it sees the function itself and not what other decorators make of it.
                statement.decorator_list.append(self.check(annotations, statement))
            elif isinstance(statement, ast.ClassDef):
                if any("dataclass" in ast.unparse(decorator) for decorator in statement.decorator_list):
                    fields = [each.annotation for each in statement.body if isinstance(each, ast.AnnAssign)]
                    statement.decorator_list.insert(0, self.check(fields, statement))
                self.decorate(statement.body)

    def check(self, annotations: Sequence[ast.expr | None], where: ast.stmt) -> ast.Name:
        named = (each for annotation in annotations if annotation for each in ast.walk(annotation))
        shaped = any(isinstance(each, ast.Name) and each.id in self.shapes for each in named)
        return ast.copy_location(ast.Name(SHAPES if shaped else TYPES, ast.Load()), where)


def check_shapes(checked: Checked) -> Checked:
    """A function that checks what it takes and gives; a dataclass that checks its fields when it is made."""
    shaped = jaxtyped(typechecker=beartype)
    return shaped(checked) if isinstance(checked, type) else _when_called(checked, shaped)  # type: ignore[return-value]


def check_types(checked: Checked) -> Checked:
    """The same where there are no shapes."""
    if not isinstance(checked, type):
        return _when_called(checked, _with_types)
    if is_dataclass(checked):
        checked.__init__ = _when_called(checked.__init__, _with_types)  # type: ignore[misc]
    return checked


def _when_called(function: Checked, decorate: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Checked:
    """What annotations mean is asked at the first call: most functions have none, and by then all names are known."""
    decorated: list[Callable[..., Any]] = []

    @wraps(function)
    def check_and_call(*arguments: Any, **named: Any) -> Any:
        __tracebackhide__ = True
        if any(isinstance(each, _proxies()) for each in arguments):
            return function(*arguments, **named)
        if not decorated:
            decorated.append(decorate(function))
        return decorated[0](*arguments, **named)

    return check_and_call  # type: ignore[return-value]


@cache
def _proxies() -> type:
    """What stands where tensors will while a graph is traced. torch is not imported before threads have been chosen."""
    from torch.fx import Proxy

    return Proxy


def _with_types(function: Callable[..., Any]) -> Callable[..., Any]:
    written = function.__annotations__
    function.__annotations__ = _known(written, function.__globals__)
    try:
        return beartype(function) if function.__annotations__ else function
    finally:
        function.__annotations__ = written


def _known(annotations: dict[str, Any], names: dict[str, Any]) -> dict[str, Any]:
    """What annotations mean; those that only a type checker can know are left out."""
    known = {}
    for argument, annotation in annotations.items():
        with suppress(Exception):
            known[argument] = eval(annotation, names) if isinstance(annotation, str) else annotation
    return known


def _marked(path: str) -> str:
    return path.removesuffix(".pyc") + MARK if path.endswith(".pyc") else path
