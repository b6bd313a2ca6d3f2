"""What a command loads before it answers: a study is read, and a run is analysed, without torch."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchscope.schedules.learning_rate import LEARNING_RATE_SCHEDULES
from batchscope.schedules.table import LEARNING_RATE_PARAMETERS

ROOT = Path(__file__).parents[1] / "src" / "batchscope"
LAZY = [path for path in ROOT.rglob("__init__.py") if "= exports(" in path.read_text()]
MOST_LATE_IMPORTS = 24

STUDY = """\
workload: digits/softmax
algorithm: {optimizer: lars, learning_rate_schedule: {name: cosine, decay_steps: 40}}
batch_sizes: [32]
search: {trials: 2, confirm: {seeds: 0}, space: {learning_rate: {min: 1e-2, max: 1, scale: log}}}
goals: ["validation/error < 0.5"]
budget: {steps: 40}
"""
TRIALS = "trial,size,step,error\n" + "".join(
    f"{size}-{trial},{size},{step},{0.9 / step}\n" for size in (8, 16) for trial in (1, 2) for step in (1, 2, 4)
)
CALLED = """\
import sys
from batchscope.cli.main import invoke
from batchscope.spec.study import Study

heavy = {"torch", "sklearn", "scipy.optimize", "scipy.stats", "pooch", "requests", "pandas", "matplotlib"}

def loaded(what):
    if found := heavy & set(sys.modules):
        sys.exit(f"{what} loads {', '.join(sorted(found))}")

Study.from_yaml("study.yaml").to_yaml()
loaded("reading a study")
columns = ["--batch-size", "size", "--step", "step", "--trial", "trial", "--metric", "validation/error=error"]
goal = ["--goal", "validation/error < 0.5"]
for arguments in (
    ["--help"],
    ["--version"],
    ["run", "--help"],
    ["probe", "--help"],
    ["init", "new.py"],
    ["import", "csv", "trials.csv", "-o", "imported", *columns, *goal],
    ["status", "imported"],
    ["analyze", "imported"],
    ["analyze", "imported", "--json"],
    ["recommend", "imported"],
    ["report", "imported"],
    ["export", "imported", "--format", "csv"],
    ["run", "nothing.yaml"],
    ["run", "study.yaml", "search.trials=none"],
):
    assert invoke(arguments) in (0, 2), arguments
    loaded(" ".join(arguments))
"""


def test_no_verb_loads_torch_to_read_or_to_refuse(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    (tmp_path / "trials.csv").write_text(TRIALS)
    done = subprocess.run([sys.executable, "-c", CALLED], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def late_imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of every import inside a function."""
    lines = path.read_text().splitlines()
    for function in ast.walk(ast.parse(path.read_text())):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    yield node.lineno, lines[node.lineno - 1]


def test_imports_inside_functions_are_few_and_say_why() -> None:
    found = {(path, number): line for path in sorted(ROOT.rglob("*.py")) for number, line in late_imports(path)}
    bare = [f"{path.relative_to(ROOT)}:{number}" for (path, number), line in found.items() if "# here, " not in line]
    assert not bare, f"an import stands at the head of its file, or says '# here, because ...': {bare}"
    assert len(found) <= MOST_LATE_IMPORTS, "\n".join(map(str, found))


@pytest.mark.parametrize("path", LAZY, ids=lambda path: path.parent.name)
def test_a_lazy_package_has_the_names_that_a_type_checker_sees(path: Path) -> None:
    package = importlib.import_module(".".join(path.parent.relative_to(ROOT.parent).parts))
    seen = {
        alias.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module and node.module != "__future__"
        for alias in node.names
        if alias.name not in ("TYPE_CHECKING", "TABLE", "exports")
    }
    assert set(package.__all__) == seen
    modules = {inside.stem for inside in path.parent.iterdir()}
    for name in seen:
        assert getattr(package, name) is not None
        assert name not in modules or inspect.ismodule(getattr(package, name)), f"{name} is a module of {package}"
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        package.nonsense  # noqa: B018


def test_the_table_says_what_the_schedules_take() -> None:
    taken = {
        name: {key: given.default is given.empty for key, given in inspect.signature(schedule).parameters.items()}
        for name, schedule in LEARNING_RATE_SCHEDULES.items()
    }
    assert taken == LEARNING_RATE_PARAMETERS
