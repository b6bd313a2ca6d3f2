"""docs/recommend.md: its commands and its code run as they are written."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from analysis.exact_recommendations import probe
from batchscope.analysis.choices import NEAR
from batchscope.cli.main import DONE, invoke
from batchscope.runs import run
from batchscope.spec.study import Study

PAGE = (Path(__file__).parents[2] / "docs" / "recommend.md").read_text()
STUDY = """
workload: digits/softmax
batch_sizes: [16, 64]
search: {trials: 4, space: {learning_rate: {min: 0.1, max: 1, scale: log}, momentum: 0.9}}
goals: ["validation/error < 0.15"]
budget: {epochs: 6}
engine: {program: loop, pack_size: 1, threads: 1}
"""


def test_commands_and_code_run_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(Study.from_text(STUDY), "runs/mine", workers=0)
    Path("probe.json").write_text(probe().to_json())
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    commands = [line for kind, text in blocks if kind == "bash" for line in text.splitlines()]
    assert len(commands) >= 6
    for command in commands:
        assert invoke(shlex.split(command)[1:]) == DONE, command
    (code,) = [text for kind, text in blocks if kind == "python"]
    exec(compile(code, "recommend.md", "exec"), {})


def test_the_page_names_the_tolerance() -> None:
    assert NEAR == 1.1 and PAGE.count("at most a tenth") == 2
