"""The versions that ``make lowest`` installs are the lowest that pyproject.toml declares."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_lowest_versions_are_those_that_are_declared() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    lines = [line for line in (ROOT / "constraints-lowest.txt").read_text().splitlines() if not line.startswith("#")]
    pinned = dict(line.split("==") for line in lines)
    assert all(re.fullmatch(r"[\w-]+>=[\w.]+", each) for each in declared)
    expected = dict(each.split(">=") for each in declared)
    assert pinned.pop("torch") and expected.pop("torch")  # of which not every version can be had
    assert pinned == expected


def test_what_must_pass_runs_them() -> None:
    assert "make lowest" in (ROOT / ".ci" / "run").read_text()
    assert "-c constraints-lowest.txt" in (ROOT / "Makefile").read_text()
