"""The first page of the documentation is a tutorial that can be typed: its commands run in their order."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from batchscope.cli.main import DONE, invoke

PAGE = (Path(__file__).parents[1] / "docs" / "index.md").read_text()
SHORT = ["search.trials=3", "batch_sizes=[32, 128]", "budget.epochs=3", "--workers", "0", "engine.threads=1"]


def test_the_tutorial_runs_as_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (text,) = re.findall(r"^```bash\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    shown = {}
    for command in text.splitlines():
        arguments = shlex.split(command)[1:]
        assert invoke([*arguments, *(SHORT if arguments[0] == "run" else [])]) == DONE, command
        shown[command] = capsys.readouterr().out
    *_, answer, script = shown.values()
    assert re.match(r"Batch size \d+, learning rate [\d.]+.*: (about|at least) [\d,]+ steps", answer.splitlines()[1])
    compile(script, "snippet.py", "exec")
    assert "my_workload.py:make" in script


def test_no_code_is_cut_at_the_right() -> None:
    code = re.findall(r"^(?:    |```\w*\n)(.*)$", PAGE, re.MULTILINE)
    assert code and max(map(len, code)) <= 80
