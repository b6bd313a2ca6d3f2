"""``batchscope recommend`` and ``report --probe`` as typed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import batchscope as bs
from advice.exact_recommendations import curve, probe
from batchscope.advice.recommendation import recommend
from batchscope.cli.advice import print_recommendation
from batchscope.cli.main import DONE, FAILED, MISUSE, invoke
from batchscope.exchange.importers.curve import import_curve

GOAL = "reached/goal > 0.5"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run imported from steps that someone has measured, its hyperparameters among them, and a probe of it."""
    folder = tmp_path_factory.mktemp("recommend")
    rows = [f"{size},{round(100 + 25600 / size) + trial},{0.01 * size}" for size in (16, 64, 256) for trial in range(9)]
    (folder / "steps.csv").write_text("\n".join(["size,steps,rate", *rows]) + "\n")
    import_curve(
        folder / "steps.csv",
        folder / "run",
        batch_size="size",
        steps="steps",
        hyperparameters={"learning_rate": "rate"},
    )
    slower = [
        f"{size},{round(200 + 40000 / size) + trial},{0.01 * size}" for size in (16, 64, 256) for trial in range(9)
    ]
    (folder / "slower.csv").write_text("\n".join(["size,steps,rate", *slower]) + "\n")
    import_curve(
        folder / "slower.csv",
        folder / "slower <run>",
        batch_size="size",
        steps="steps",
        hyperparameters={"learning_rate": "rate"},
    )
    (folder / "probe.json").write_text(probe(workload="steps").to_json())
    return folder


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


def test_on_a_terminal(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hardware = "--devices 1,2,4 --bandwidth 10 --latency 5 --price 2.5 --power 300 --deadline 90m --budget 25"
    assert invoke(["recommend", "run", "--probe", "probe.json", *hardware.split()]) == DONE
    first = capsys.readouterr().out.splitlines()
    assert first[1].startswith("Batch size 64 on 1 device, learning rate 0.64: at least ")
    assert any("--all" in line for line in first) and any("--snippet pytorch" in line for line in first)
    assert invoke(["recommend", "run", "--probe", "probe.json", *hardware.split(), "--all"]) == DONE
    shown = capsys.readouterr()
    assert shown.err == ""
    for expected in (
        "fastest: batch size 256 on 4 devices",
        "cheapest: batch size 64 on 1 device",
        "learning_rate 0.64",
        "deadline: batch size 64 on 1 device: the cheapest that takes at most 1 h 30 min",
        "budget: batch size 256 on 4 devices: the fastest that costs at most 25",
        "the time-cost Pareto front",
        "the fastest batch size for each number of devices",
        "2(N-1)/N x bytes / bandwidth",
        "kWh",
    ):
        assert expected in shown.out


def test_json_is_one_document(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["recommend", "run", "--probe", "probe.json", "--devices", "1,2", "--json"]) == DONE
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == 1 and document["workload"] == "steps" and document["goal"] == GOAL
    assert document["device"] == "a device (cuda)" and not document["idealised"]
    assert document["fastest"]["hyperparameters"] == {"learning_rate": pytest.approx(0.64)}
    assert len(document["options"]) == 6 and document["deadline"] is None


def test_without_a_probe(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["recommend", "run", "--json", "--extrapolate"]) == DONE
    document = json.loads(capsys.readouterr().out)
    assert document["idealised"] and document["units"]["time"] == "steps" and document["device"] is None
    assert [row["batch_size"] for row in document["options"] if row["extrapolated"]] == [512, 1024]
    # The knee leads, and the largest is not called the fastest where a smaller one is the largest useful.
    assert document["headline"]["sentence"].startswith("Batch size 256, ")
    assert document["recommended"]["batch_size"] == 256
    assert invoke(["recommend", "run", "--all"]) == DONE
    assert "idealised" in capsys.readouterr().out


def test_the_report_takes_a_probe(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["report", "run", "--probe", "probe.json", "--devices", "1,2", "--price", "3"]) == DONE
    page = (here / "run" / "report.html").read_text()
    assert "Cost is 3 for a device-hour" in page
    assert invoke(["report", "run", "--devices", "2"]) == MISUSE
    assert "--probe probe.json" in capsys.readouterr().err


def test_two_runs_are_chosen_across(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["recommend", "slower <run>", "run"]) == DONE
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("Take run. Batch size 256, ")
    # At 256 the slower one takes 200 + 40,000 / 256 steps against 200.
    assert lines[2].startswith("slower <run> takes 1.8 times the steps and 1.8 times the examples, batch size 256.")
    assert invoke(["recommend", "slower <run>", "run", "--json"]) == DONE
    document = json.loads(capsys.readouterr().out)
    assert document["chosen"]["run"] == "run" and set(document["runs"]) == {"run", "slower <run>"}
    assert document["runs"]["run"]["recommended"]["batch_size"] == 256


def test_two_runs_are_laid_over_each_other_in_one_page(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["report", "run", "slower <run>", "--normalised", "-o", "both.html"]) == DONE
    assert "both.html" in capsys.readouterr().out
    page = (here / "both.html").read_text()
    assert "Take run. Batch size 256" in page and page.count('class="plot"') == 2
    assert "slower &lt;run&gt;" in page and "slower <run>" not in page
    figures = [json.loads(found) for found in re.findall(r'<script type="application/json">(.*?)</script>', page)]
    first, second = figures[0]["data"]
    assert first["name"] == "run" and first["y"] == [1700, 500, 200] and second["y"] == [2700, 825, 356]
    assert [line["y"][0] for line in figures[1]["data"][1:]] == [1, 1]  # both relative to the smallest
    assert invoke(["report", "run", "slower <run>", "--goal", "reached/goal > 2"]) == MISUSE


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        ("--devices 0", MISUSE, "--devices 1,2,4,8"),
        ("--devices two", MISUSE, "got 'two': --devices 1,2,4,8"),
        ("--devices 2", MISUSE, "--probe probe.json"),
        ("--probe probe.json --price -1", MISUSE, "a price is at least 0, got -1"),
        ("--probe probe.json --deadline soon", MISUSE, "write 45s, 90m, 2h"),
        ("--probe probe.json --budget 5", MISUSE, "--price PER_DEVICE_HOUR"),
        ("--probe other.json", MISUSE, "--any-workload"),
        ("--probe none.json", FAILED, "no probe at none.json"),
        ("--probe steps.csv", FAILED, "steps.csv"),
        ("--batch-sizes 1024", MISUSE, "--extrapolate"),
        ("--snippet yaml", MISUSE, "does not say how it was trained"),
        ("--snippet jax", MISUSE, "yaml or pytorch"),
        ("--snippet yaml --choice best", MISUSE, "fastest, balanced, cheapest"),
        ("--snippet yaml --choice deadline", MISUSE, "needs --deadline too"),
    ],
)
def test_mistakes_are_answered_without_a_traceback(
    arguments: str, status: int, expected: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "other.json").write_text(probe(workload="something else").to_json())
    assert invoke(["recommend", "run", *arguments.split()]) == status
    shown = capsys.readouterr()
    assert expected in shown.err and "Traceback" not in shown.err and shown.out == ""


def test_a_goal_that_nothing_reached(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["recommend", "run", "--goal", "reached/goal > 2"]) == MISUSE
    assert "no batch size reached reached/goal > 2" in capsys.readouterr().err


@pytest.mark.parametrize("with_probe", [False, True])
@pytest.mark.parametrize(("columns", "everything"), [(60, False), (80, True)])
def test_tables_hold_in_their_columns(
    with_probe: bool, columns: int, everything: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    console = Console(width=columns, markup=False, highlight=False, emoji=False)
    long = curve([2**power for power in range(4, 18)], spread=0.3)
    measured = probe([2**power for power in range(18)]) if with_probe else None
    hardware: dict[str, Any] = {"devices": [1, 64, 1024], "price": 1234.5} if with_probe else {}
    found = recommend(long, measured, extrapolate=not with_probe, **hardware)
    print_recommendation(console, found, everything=everything)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns
    if everything:
        rows = [line for line in lines if line.startswith("│")]
        assert rows and all(line.split("│")[1].strip() for line in rows)  # no row is folded into two
    else:
        heads, row = lines[:], next(line for line in lines if line.strip().startswith("recommended"))
        assert any("learning" in line for line in heads) and row.split()[-1].replace(".", "").isdigit()


def test_the_public_name_is_the_function() -> None:
    assert bs.recommend(curve(), probe()).fastest.batch_size == 64
