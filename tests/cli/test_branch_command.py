"""``batchscope branch`` as typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from batchscope.cli.main import DONE, MISUSE, invoke

TRAINING = ["branch", "noisy_quadratic/4", "--batch-size", "2", "--steps", "160", "--learning-rate", "0.1"]
SMALL = [*TRAINING, "--at", "0.1,0.5", "--window", "0.1", "--replicates", "2", "--largest-factor", "2"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke([*SMALL, "-o", "branches.json"]) == DONE
    shown = capsys.readouterr()
    assert shown.err.startswith("at most ") and "trainings" in shown.err
    assert "critical batch size" in shown.out and "90% interval" in shown.out
    assert "updates instead of 160. It cost" in shown.out and "wrote branches.json" in shown.out
    document = json.loads(Path("branches.json").read_text())
    assert document["schema"] == 1 and len(document["points"]) == 2
    assert document["cost"]["trainings"] <= document["cost"]["at_most"] + 1e-9
    assert [path.name for path in Path().iterdir()] == ["branches.json"]


def test_json_is_one_document_and_formats_are_those_of_schedule(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke([*SMALL, "--json"]) == DONE
    assert json.loads(capsys.readouterr().out)["workload"] == "noisy_quadratic/4"
    for program, words in (("megatron", "--train-samples 320"), ("olmo", "BatchSizeSchedulerCallback")):
        assert invoke([*SMALL, "--format", program]) == DONE
        assert words in capsys.readouterr().out
    assert invoke([*SMALL, "--format", "lightning"]) == DONE
    compile(capsys.readouterr().out, "made.py", "exec")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["branch", "noisy_quadratic/4"], "give --learning-rate"),
        ([*TRAINING, "--at", "early"], "--at is a list of shares"),
        ([*TRAINING, "--format", "yaml"], "--format is megatron"),
        ([*TRAINING, "--json", "--format", "olmo"], "not both"),
        ([*TRAINING, "-o", "."], "is a folder"),
        ([*TRAINING, "-o", "nowhere/b.json"], "no folder"),
        (["branch", "nothing.yaml"], "no study file at nothing.yaml"),
        (["branch", "noisy_quadratic/x", "--learning-rate", "1"], "noisy_quadratic"),
    ],
)
def test_misuse_says_what_to_type(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(arguments) == MISUSE
    assert told in capsys.readouterr().err.replace("\n", " ").replace("│", "").replace("  ", " ")
