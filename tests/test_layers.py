"""Imports run one way: each layer knows those below it, and nothing above.

Every import counts, those inside functions and under ``TYPE_CHECKING`` too. Names of
implementations in registries are strings, so they do not: that is how a registry below can
name what lies above it.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = {"mlhf": ROOT / "engine", "mlhf_service": ROOT / "app"}

# Lowest first. What stands in one layer does not import each other.
ENGINE = [
    {"core"},
    {"curvature", "data"},
    {"losses"},
    {"models"},
    {"optimizers"},
    {"training"},
    {"meta"},
    {"ablation"},
    {"runner", "selfcheck", "predictor"},
    {"fork_server"},
]

APP = [
    {"access_settings", "measures_folder"},
    {"measures"},
    {"settings", "errors", "child", "client", "logs", "tracing", "tenancy"},
    {"storage"},
    {"kit"},
    {"context", "data_folder", "write_turns", "commit_log", "catalogue", "connection_bursts"},
    {"database"},
    {"database_wait"},
    {"api", "compatibility"},
    {"audit"},
    {"keys"},
    {"runs", "workers"},
    {"datasets", "comparisons", "webhooks"},
    {"meta_checkpoints", "networks"},
    {"jobs"},
    {"deletions", "operations", "logged"},
    {"retention", "imports", "reports", "predictions", "mirrors"},
    {"ablations", "queue", "web", "tables"},
    {"health", "metrics"},
    {"main", "migrate"},
    {"upkeep", "backup"},
    {"server", "deployment"},
    {"cli"},
]

SERVICE_ONLY = {"mlhf_service", "fastapi", "starlette", "sqlalchemy", "celery", "pydantic_settings"}


@dataclass(frozen=True)
class Import:
    """One import: ``source`` imports ``target``, both by dotted name.

    Attributes:
        at_import: Whether it runs when ``source`` is imported.
    """

    source: str
    target: str
    at_import: bool


@cache
def modules() -> dict[str, Path]:
    """Every module of ours by its dotted name; a package is its ``__init__``."""
    found = {}
    for package, root in SOURCES.items():
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports() -> tuple[Import, ...]:
    found = set()
    for name, path in modules().items():
        for node, at_import in _import_nodes(ast.parse(path.read_text()), True):
            found |= {Import(name, target, at_import) for target in _targets(node, name)}
    return tuple(sorted(found, key=lambda i: (i.source, i.target)))


_LATER = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _import_nodes(
    node: ast.AST, at_import: bool
) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, at_import
        elif isinstance(child, _LATER) or _is_type_checking(child):
            yield from _import_nodes(child, False)
        else:
            yield from _import_nodes(child, at_import)


def _targets(node: ast.Import | ast.ImportFrom, source: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    assert node.level == 0, f"{source} imports relatively"
    assert node.module is not None
    for alias in node.names:
        inner = f"{node.module}.{alias.name}"
        yield inner if inner in modules() else node.module


def _subpackage(name: str) -> str:
    """Return the part right under the root package: ``data`` for ``mlhf.data.idx``."""
    return name.split(".")[1]


def _between_subpackages(package: str) -> dict[tuple[str, str], list[Import]]:
    """Return the imports from one subpackage of a package to another; its own facade is in none."""
    found: dict[tuple[str, str], list[Import]] = {}
    for each in imports():
        if each.source.startswith(f"{package}.") and each.target.startswith(f"{package}."):
            pair = _subpackage(each.source), _subpackage(each.target)
            if pair[0] != pair[1]:
                found.setdefault(pair, []).append(each)
    return found


def _shown(found: list[Import]) -> list[str]:
    return [f"{each.source} imports {each.target}" for each in found]


@pytest.mark.parametrize(("package", "layers"), [("mlhf", ENGINE), ("mlhf_service", APP)])
def test_every_subpackage_has_its_layer(package, layers):
    subpackages = {_subpackage(name) for name in modules() if name.startswith(f"{package}.")} - {
        "__main__"
    }
    assert set().union(*layers) == subpackages
    assert sum(map(len, layers)) == len(subpackages)


@pytest.mark.parametrize(("package", "layers"), [("mlhf", ENGINE), ("mlhf_service", APP)])
def test_no_import_runs_back_up(package, layers):
    level = {subpackage: i for i, layer in enumerate(layers) for subpackage in layer}
    for (source, target), found in _between_subpackages(package).items():
        assert level[source] > level[target], _shown(found)


@pytest.mark.parametrize("package", SOURCES)
def test_no_two_subpackages_import_each_other(package):
    pairs = _between_subpackages(package)
    both = [_shown(found) for (a, b), found in pairs.items() if (b, a) in pairs]
    assert both == []


@pytest.mark.parametrize("package", SOURCES)
def test_nothing_imports_the_facade_it_is_under(package):
    assert [
        i.source for i in imports() if i.target == package and i.source.startswith(package + ".")
    ] == []


@pytest.mark.parametrize("package", SOURCES)
def test_no_files_import_each_other_in_a_circle(package):
    inside = {name for name in modules() if name.startswith(f"{package}.")}
    graph: dict[str, set[str]] = {name: set() for name in inside}
    for each in imports():
        if {each.source, each.target} <= inside and each.target != each.source:
            graph[each.source].add(each.target)
    assert _circle(graph) is None


def test_a_circle_would_be_found():
    assert _circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


def _circle(graph: dict[str, set[str]]) -> list[str] | None:
    done: set[str] = set()

    def visit(name: str, way: list[str]) -> list[str] | None:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return None
        done.add(name)
        for target in sorted(graph[name]):
            if found := visit(target, [*way, name]):
                return found
        return None

    for name in sorted(graph):
        if found := visit(name, []):
            return found
    return None


def test_a_kind_of_job_knows_nothing_of_what_is_done_with_jobs():
    inside, kinds = "mlhf_service.jobs.", "mlhf_service.jobs.kinds."
    wrong = [
        each
        for each in imports()
        if each.source.startswith(kinds)
        and each.target.startswith(inside)
        and not each.target.startswith(kinds)
    ]
    assert _shown(wrong) == []


def test_the_engine_knows_no_service():
    wrong = [
        each
        for each in imports()
        if each.source.split(".")[0] == "mlhf" and each.target.split(".")[0] in SERVICE_ONLY
    ]
    assert _shown(wrong) == []


def test_the_service_imports_no_torch():
    """Not itself, not inside a function, and not by importing a module that does at its top."""
    loaded: dict[str, set[str]] = {}
    for each in imports():
        if each.at_import:
            loaded.setdefault(each.source, set()).add(each.target)
    ways = [[i.source, i.target] for i in imports() if i.source.split(".")[0] == "mlhf_service"]
    seen: set[str] = set()
    while ways:
        way = ways.pop()
        assert way[-1].split(".")[0] != "torch", " imports ".join(way)
        for name in _with_packages(way[-1]):
            if name not in seen:
                seen.add(name)
                ways += [[*way, target] for target in loaded.get(name, ())]


def _with_packages(name: str) -> list[str]:
    """Return a module and the packages it is in, whose ``__init__`` run too."""
    parts = name.split(".")
    return [".".join(parts[: n + 1]) for n in range(len(parts))]
