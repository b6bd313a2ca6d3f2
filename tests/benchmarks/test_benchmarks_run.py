"""Benchmarks run at their smallest size and end in one JSON line with what they promise."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def last_line(script: str, *arguments: str) -> dict[str, Any]:
    """The JSON document at the end of a script's output."""
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return document


@pytest.mark.slow
def test_step_time_measures_user_engine_and_limit_in_every_row() -> None:
    # A budget in which machine code would never pay: compiling it takes a minute, and no claim here is about it.
    sizes = ("--seconds", "0.1", "--trials", "4", "--budget-steps", "2000", "--markdown")
    document = last_line("step_time.py", "--models", "digits-mlp-64,fc-256", "--batch-sizes", "8", *sizes)
    assert document["benchmark"] == "step_time"
    assert [(row["model"], row["batch_size"]) for row in document["rows"]] == [("digits-mlp-64", 8), ("fc-256", 8)]
    for row in document["rows"]:
        assert row["ratio"] == pytest.approx(row["user_ms"] / row["ours_ms"], rel=2e-3)
        assert row["share_of_limit"] == pytest.approx(row["limit_ms"] / row["ours_ms"], rel=2e-3)
        assert row["ratio_met"] == (row["ratio"] >= row["wanted_ratio"] == 5)
        assert row["pack_size"] <= 4
        assert row["ours_ms"] == min(arrangement["ms"] for arrangement in row["arrangements"])
    # A step of a net with one hidden layer, forward and backward, in products of two operations each: two for the
    # weights of the first layer (its input needs no gradient), three for those of the second.
    dense = document["rows"][1]
    assert dense["operations"] == 8 * 2 * (2 * 784 * 256 + 3 * 256 * 10)
    assert dense["parameters"] == 784 * 256 + 256 + 256 * 10 + 10


@pytest.mark.slow
def test_update_time_tells_what_fetching_and_evaluating_add() -> None:
    document = last_line("update_time.py", "digits/mlp-64", "--batch-size", "16", "--rounds", "20")
    assert (document["benchmark"], document["threads"]) == ("update_time", 1)
    assert document["milliseconds"].keys() == {"ready", "fetched", "evaluated"}
    assert 0 < document["milliseconds"]["ready"] < 1.2 * document["milliseconds"]["fetched"]


@pytest.mark.slow
def test_study_time_finds_the_same_answer_as_the_peer() -> None:
    pytest.importorskip("optuna", reason="the peer is not installed: pip install 'batchscope[benchmarks]'")
    document = last_line("study_time.py", "--digits", "--arrangement", "threads")
    assert document["benchmark"] == "study_time"
    contenders = document["contenders"]
    assert set(contenders) == {"ours", "pruner", "nopruner"}
    for contender in contenders.values():
        assert contender["seconds"] > 0
        assert contender["example_gradients"] == sum(
            cell["example_gradients"] for cell in contender["batch_sizes"].values()
        )
    for size, cell in contenders["ours"]["batch_sizes"].items():
        assert cell["steps"] == min(step for step in cell["crossings"].values() if step is not None)
        assert contenders["nopruner"]["batch_sizes"][size]["steps"] == pytest.approx(cell["steps"], rel=0.06, abs=1)
        compared = document["against"]["nopruner"]["batch_sizes"][size]
        assert compared["crossings_both"] >= compared["crossings_same"] >= 1
    # Without pruner the peer takes every trial to the goal or the budget, and the race does not.
    assert contenders["nopruner"]["example_gradients"] > contenders["ours"]["example_gradients"]
    ratio = contenders["nopruner"]["seconds"] / contenders["ours"]["seconds"]
    assert document["against"]["nopruner"]["times_our_seconds"] == pytest.approx(ratio, rel=2e-3)


@pytest.mark.slow
def test_overhead_is_what_the_engine_does_not_take() -> None:
    document = last_line("overhead.py", "--units", "40", "--steps", "30")
    assert document["benchmark"] == "overhead" and document["wanted"] == 0.05
    inline = document["inline"]
    assert 0 < inline["engine_seconds"] < inline["seconds"] and inline["units"] >= 30
    share = 1 - inline["engine_seconds"] / inline["seconds"]
    assert document["overhead"] == pytest.approx(share, abs=1e-3)


@pytest.mark.slow
def test_meters_are_unbiased_beside_their_peers() -> None:
    document = last_line("meters.py", "--parts", "bias,products", "--repeats", "40", "--turns", "2")
    assert document["benchmark"] == "meters"
    ours, *_, naive, held = document["bias"]
    assert ours["mean"] == pytest.approx(ours["truth"], rel=0.05)
    assert abs(naive["median"] - naive["truth"]) > 5 * abs(ours["median"] - ours["truth"])
    assert held["intervals_held"] > 0.75
