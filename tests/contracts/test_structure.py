"""How the code is laid out: short functions and files, no import cycles, one name for one thing."""

from __future__ import annotations

import ast
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"

# A function's lines are counted from its `def` to its end, without its decorators and its docstring; blank lines and
# comments count.
FUNCTION_LINES = 60
FILE_LINES = 500

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the package by its name; a subpackage's own is that of its `__init__.py`."""
    paths = {path.relative_to(SOURCE).with_suffix(""): path for path in sorted((SOURCE / "fpn").rglob("*.py"))}
    return {
        ".".join(part for part in name.parts if part != "__init__"): ast.parse(path.read_text(encoding="utf-8"))
        for name, path in paths.items()
    }


def subpackage(module: str) -> str:
    """The layer's member that a module belongs to: "fpn.data.formats.open" -> "data"."""
    return module.partition(".")[2].partition(".")[0]


# --- sizes ------------------------------------------------------------------------------------------------------------


def without_docstring(node: FunctionNode | ast.ClassDef) -> list[ast.stmt]:
    return node.body[ast.get_docstring(node, clean=False) is not None :]


def count_lines(node: FunctionNode) -> int:
    """Lines of a function but for its docstring."""
    docstring = node.body[0] if ast.get_docstring(node, clean=False) is not None else None
    lines = node.end_lineno - node.lineno + 1
    return lines if docstring is None else lines - (docstring.end_lineno - docstring.lineno + 1)


def test_a_docstring_is_not_counted_and_blank_lines_are() -> None:
    (function,) = ast.parse('def f(a,\n  b):\n  """Says\n  much."""\n\n  # why\n  return a\n').body
    assert isinstance(function, ast.FunctionDef)
    assert count_lines(function) == 5


def test_no_function_is_longer_than_60_lines() -> None:
    long = [
        f"{name}.{node.name}: {count_lines(node)} lines"
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, FunctionNode) and count_lines(node) > FUNCTION_LINES
    ]
    assert not long


def test_no_file_is_longer_than_500_lines() -> None:
    counts = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in (SOURCE / "fpn").rglob("*.py")}
    assert not {str(path.relative_to(SOURCE)): count for path, count in counts.items() if count > FILE_LINES}


def test_every_module_says_what_it_is_for() -> None:
    assert not [name for name, tree in modules().items() if not ast.get_docstring(tree)]


# --- imports ----------------------------------------------------------------------------------------------------------


def imports(module: str, tree: ast.Module, known: frozenset[str]) -> set[str]:
    """Modules of the package that a module imports, anywhere in it but for type checkers alone."""
    found: set[str] = set()
    for node in at_run_time(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports relative to itself"
            # A name is a module, or it is something that the module before it holds.
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names & known
            found |= {node.module} if names - known else set()
    return (found & known) - {module}


def at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING:`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            for other in child.orelse:
                yield from (other, *at_run_time(other))
            continue
        yield from (child, *at_run_time(child))


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that reach one another (Tarjan's strongly connected components of two and more)."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        order[name] = lowest[name] = len(order)
        stack.append(name)
        for other in sorted(graph[name]):
            if other not in order:
                visit(other)
            if other in stack:
                lowest[name] = min(lowest[name], lowest[other])
        if lowest[name] == order[name]:
            at = stack.index(name)
            found.append(sorted(stack[at:]))
            del stack[at:]

    for name in graph:
        if name not in order:
            visit(name)
    return [group for group in found if len(group) > 1]


def test_cycles_are_found_and_chains_are_not() -> None:
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}) == [["a", "b", "c"]]
    assert cycles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_an_import_inside_a_function_counts_and_one_for_type_checkers_does_not() -> None:
    tree = ast.parse(
        "if TYPE_CHECKING:\n  import fpn.a\nelse:\n  import fpn.b\n"
        "def f():\n  from fpn.c import d\n  from fpn import e\n"
    )
    known = frozenset({"fpn", "fpn.a", "fpn.b", "fpn.c", "fpn.c.d", "fpn.e"})
    assert imports("fpn.x", tree, known) == {"fpn.b", "fpn.c.d", "fpn.e"}


# Imports that close a circle and are still there. A line goes with its import; none is ever added.
CLOSING: dict[tuple[str, str], str] = {
    (
        "fpn.detectors.detector",
        "fpn.inference.optimize",
    ): "until `fpn.optimize(detector)` is the one way",
}


def test_no_module_imports_itself_by_a_detour() -> None:
    known = frozenset(modules())
    graph = {name: imports(name, tree, known) for name, tree in modules().items()}
    for module, imported in CLOSING:
        assert imported in graph[module], "an import in CLOSING is gone: take its line out"
        graph[module].remove(imported)
    assert cycles(graph) == []


def test_the_contract_of_layers_is_exhaustive() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (layers,) = [each for each in settings["tool"]["importlinter"]["contracts"] if each["containers"] == ["fpn"]]
    assert layers["type"] == "layers"
    assert layers["exhaustive"]
    assert layers["exhaustive_ignores"] == ["__main__"]


# --- names ------------------------------------------------------------------------------------------------------------

# Doubles that are still there. A line goes when its name is one place's alone; none is ever added.
DOUBLES: dict[str, str] = {
    "Batch": "evaluation reads images its own way until it calls the one prediction pipeline",
    "Prepared": "as Batch",
    "convert": "the toolkits' weights are converted; they are to be imported",
}


def names_at_the_top(tree: ast.Module) -> Iterator[str]:
    """Public functions, classes and values that a module defines. One letter is a type variable's name."""
    for node in tree.body:
        if isinstance(node, FunctionNode | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
        else:
            names = []
        yield from (name for name in names if not name.startswith("_") and len(name) > 1)


def test_what_a_module_defines_is_what_is_written_at_its_top() -> None:
    tree = ast.parse("import b\nT = 1\nLONG: int = 2\n_own = 3\nclass C:\n  inner = 4\ndef f():\n  deep = 5\n")
    assert list(names_at_the_top(tree)) == ["LONG"]
    tree = ast.parse("class Cat: ...\nasync def run(): ...\ndef _own(): ...\n")
    assert list(names_at_the_top(tree)) == ["Cat", "run"]


def test_no_name_is_defined_in_two_subpackages() -> None:
    places: defaultdict[str, set[str]] = defaultdict(set)
    for module, tree in modules().items():
        for name in names_at_the_top(tree):
            places[name].add(module)
    doubles = {name: sorted(found) for name, found in places.items() if len({subpackage(m) for m in found}) > 1}
    assert {name: found for name, found in doubles.items() if name not in DOUBLES} == {}
    assert set(DOUBLES) <= set(doubles), "a name in DOUBLES is no double any more: take its line out"


def test_no_function_is_written_twice() -> None:
    places: defaultdict[str, list[str]] = defaultdict(list)
    for module, tree in modules().items():
        for node in tree.body:
            if isinstance(node, FunctionNode):
                body = ast.Module(body=without_docstring(node), type_ignores=[])
                places[ast.dump(body)].append(f"{module}.{node.name}")
    assert [found for found in places.values() if len(found) > 1] == []
