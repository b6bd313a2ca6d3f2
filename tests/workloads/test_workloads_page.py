"""docs/workloads.md: its code runs and gives what it says, its table is the registry's, its message is the real one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from batchscope import workloads
from batchscope.errors import WorkloadError

PAGE = (Path(__file__).parents[2] / "docs" / "workloads.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_noisy_quadratic_gives_the_printed_steps() -> None:
    (block,) = (block for block in BLOCKS if "steps_to_goal" in block)
    lines: list[str] = block.strip().split("\n")
    names: dict[str, object] = {}
    exec(lines[0], names)
    assert eval(lines[2].split("#")[0], names).shape == (201,)
    assert eval(lines[3], names) == ast.literal_eval(lines[4].removeprefix("# "))


def test_the_workload_file_loads(tmp_path: Path) -> None:
    (block,) = (block for block in BLOCKS if "def make" in block)
    path = tmp_path / "my_workload.py"
    path.write_text(block)
    workload = workloads.load(f"{path}:make")
    assert workload.metric_names == ("validation/loss", "validation/error", "train/loss", "train/error")
    assert isinstance(workload.train, tuple)
    outputs = workload.model()(workload.train[0][:7])
    for function in (workload.loss, *workload.metrics.values()):
        assert function(outputs, workload.train[1][:7]).shape == (7,)


@pytest.mark.parametrize("row", workloads.names(), ids=lambda row: row.example)
def test_the_table_is_the_registrys(row: workloads.Listed) -> None:
    pattern = row.pattern.removesuffix("[-dropout]").replace("|", r"\|")
    (line,) = (line for line in PAGE.splitlines() if line.startswith(f"| `{pattern}` |"))
    first, second = row.goals
    assert f"`{first}`, `< {second.split()[-1]}`" in line


def test_the_message_is_the_real_one(tmp_path: Path) -> None:
    path = tmp_path / "my_workload.py"
    path.write_text("import torch\n\nimport torchvison\n")
    with pytest.raises(WorkloadError) as caught:
        workloads.load(f"{path}:make")
    assert str(caught.value).replace(str(path), "/home/me/my_workload.py") in PAGE
