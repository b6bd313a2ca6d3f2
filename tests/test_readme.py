"""The README is true: its commands run as written, its examples too, and its tree is the package's."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from batchscope.cli.main import DONE, invoke

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = [
    line.split("#")[0].strip() for kind, text in BLOCKS if kind == "bash" for line in text.splitlines() if line.strip()
]

# What makes a run short: the commands are those of the README, the study is smaller.
SHORT = ["search.trials=4", "batch_sizes=[16, 64]", "budget.epochs=3", "--workers", "0", "engine.threads=1"]
SHORT_PROBE = ["--batch-sizes", "16,64", "--seconds", "0.02", "--threads", "1"]


@pytest.mark.slow
def test_the_commands_run_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    verbs = [command for command in COMMANDS if command.startswith("batchscope ")]
    assert len(verbs) >= 8
    for command in verbs:
        arguments = shlex.split(command)[1:]
        if arguments[0] == "run":
            arguments += SHORT
        if arguments[0] == "probe":
            arguments += SHORT_PROBE
        assert invoke(arguments) == DONE, command
    text = next(text for kind, text in BLOCKS if kind == "python" and "bs.run" in text)
    overrides = [option for option in SHORT if "=" in option]
    exec(compile(text.replace('.yaml")', f'.yaml", {overrides})'), "README.md", "exec"), {})


def test_the_training_parts_run_as_written() -> None:
    text = next(text for kind, text in BLOCKS if kind == "python" and "bs.optim" in text)
    exec(compile(text, "README.md", "exec"), {})


def test_make_has_the_targets_that_the_readme_names() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {command.split()[1] for command in COMMANDS if command.startswith("make ")}
    assert named and named <= targets


def test_the_tree_names_every_room() -> None:
    tree = next(text for _, text in BLOCKS if text.startswith("src/batchscope/"))
    named = set(re.findall(r"^  (\w+)/", tree, re.MULTILINE))
    rooms = {path.parent.name for path in (ROOT / "src" / "batchscope").glob("*/__init__.py")}
    assert named == rooms
