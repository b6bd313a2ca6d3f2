"""The shape of the house: a module imports only from lower levels, and siblings leave each other alone."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "batchscope"
LEVELS = {
    "errors": -2,  # which every room may raise
    "amounts": -1,  # and write
    "hutchinson": 0,
    "interval": 0,
    "tensors": 0,
    "seeds": 0,
    "lazy": 0,
    "user_file": 0,
    "machine": 0,
    "interrupts": 0,
    "optim": 1,
    "schedules": 1,
    "nn": 1,
    "meters": 1,
    "spec": 2,
    "data": 2,
    "models": 2,
    "workloads": 3,
    "plan": 3,
    "store": 3,
    "exchange": 4,
    "engine": 4,
    "analysis": 4,
    "executors": 5,
    "probing": 5,
    "prediction": 5,
    "advice": 5,
    "report": 6,
    "runs": 7,
    "recipes": 8,
    "integrations": 8,
    "cli": 9,
    "__main__": 10,
}
MODULES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def room(module: str) -> str:
    """The room of a dotted name: the part after ``batchscope``."""
    return module.split(".")[1]


def imports(path: Path) -> Iterator[str]:
    """Every ``batchscope`` module that a file imports, wherever in the file it does so."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: absolute imports only"
            if node.module == "batchscope":
                yield from (f"batchscope.{alias.name}" for alias in node.names)
            elif node.module and node.module.startswith("batchscope."):
                yield node.module
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("batchscope."))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path: Path) -> None:
    here = path.relative_to(ROOT).parts[0].removesuffix(".py")
    assert here in LEVELS, f"{here} is no room of the house: give it a level in this test and in the README"
    for module in imports(path):
        there = room(module)
        if there in {here, "__version__"}:
            continue
        assert there in LEVELS, f"{path.name} imports {module}, which is in no room"
        assert LEVELS[there] < LEVELS[here], f"{here} (level {LEVELS[here]}) imports {module} (level {LEVELS[there]})"


@pytest.mark.parametrize("path", sorted((ROOT / "analysis").rglob("*.py")), ids=lambda path: path.name)
def test_analysis_reads_tables_without_torch(path: Path) -> None:
    names = {
        alias.name.split(".")[0]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import)
        for alias in node.names
    } | {
        (node.module or "").split(".")[0]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
    }
    assert "torch" not in names


def test_no_module_imports_itself_in_a_round() -> None:
    names = {".".join(("batchscope", *path.relative_to(ROOT).with_suffix("").parts)): path for path in MODULES}
    modules = {name: path for name, path in names.items() if not name.endswith("__init__")}
    graph = {name: {there for there in imports(path) if there in modules} for name, path in modules.items()}
    tuple(graphlib.TopologicalSorter(graph).static_order())  # a round is a CycleError that names its modules
