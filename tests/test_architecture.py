"""The shape of the house: a module imports only from lower levels, and siblings leave each other alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "batchscope"
LEVELS = {
    "errors": 0,
    "tensors": 0,
    "seeds": 0,
    "lazy": 0,
    "optim": 1,
    "schedules": 1,
    "nn": 1,
    "probes": 1,
    "spec": 2,
    "data": 2,
    "models": 2,
    "workloads": 3,
    "plan": 3,
    "store": 3,
    "engine": 4,
    "analysis": 4,
    "executors": 5,
    "report": 5,
    "runs": 6,
    "recipes": 6,
    "integrations": 6,
    "cli": 7,
    "__main__": 8,
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
