"""``batchscope schedule``, and the page that shows it."""

from __future__ import annotations

import doctest
import json
import re
import shlex
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from batchscope.cli.schedule import schedule
from batchscope.errors import ScheduleError
from batchscope.schedules import compile_batch_schedule

PAGE = Path(__file__).parents[2] / "docs" / "schedules.md"
CIFAR = (
    '--learning-rate "0.1, 0.02@60, 0.004@120, 0.0008@160" --epochs 200 --train-size 50000 '
    "--batch-size 128 --max-batch-size 5120"
)
app = typer.Typer()
app.command()(schedule)


def call(arguments: str) -> str:
    result = CliRunner().invoke(app, shlex.split(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_json_is_one_document() -> None:
    document = json.loads(call(f"{CIFAR} --json"))
    assert document["schema"] == 1
    assert document["total_updates"] == 29_139
    assert document["largest_noise_scale_departure"] == pytest.approx(0, abs=1e-12)
    assert [(p["epoch_start"], p["epoch_end"], p["batch_size"], p["updates"]) for p in document["phases"]] == [
        (0, 60, 128, 23_437),
        (60, 120, 640, 4_687),
        (120, 160, 3200, 625),
        (160, 200, 5120, 390),
    ]
    assert document["phases"][0]["learning_rate"] == 0.1
    assert document["phases"][0]["momentum"] == 0.9


def test_every_option_reaches_the_compiler() -> None:
    options = "--momentum 0.8 --momentum-to 0.95 --variant hybrid --granularity 8 --learning-rate-factor 2 --exact"
    expected = compile_batch_schedule(
        "0.1, 0.02@60, 0.004@120, 0.0008@160",
        128,
        5120,
        train_size=50_000,
        epochs=200,
        momentum=0.8,
        momentum_to=0.95,
        variant="hybrid",
        granularity=8,
        learning_rate_factor=2,
        exact=True,
    )
    assert json.loads(call(f"{CIFAR} {options} --json")) == json.loads(expected.to_json())


def test_the_other_forms() -> None:
    assert call(f"{CIFAR} --format megatron").startswith('--step-batch-size-schedule "0:128 2999936:640')
    assert "Duration.tokens(6143868928)" in call(f"{CIFAR} --format olmo --sequence-length 2048")
    assert "max_batch_size=5120," in call(f"{CIFAR} --format lightning")
    assert "29,139 updates" in call(CIFAR)


@pytest.mark.parametrize("width", [40, 80])
def test_nothing_is_wider_than_the_terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setattr("batchscope.cli.schedule.console", lambda: Console(width=width))
    table = call(CIFAR).partition("29,139 updates")[0]
    assert max(map(len, table.splitlines())) <= width
    assert "…" not in table
    for cell in ("23,437", "5,120", "0.032", "390.62"):
        assert cell in table


def test_misuse_is_told() -> None:
    for wrong in (f"{CIFAR} --format json", f"{CIFAR} --json --format olmo", "--epochs 3"):
        assert CliRunner().invoke(app, shlex.split(wrong)).exit_code == 2
    with pytest.raises(ScheduleError, match="got 'up'"):
        call(f"{CIFAR} --variant up")


def test_the_examples_of_the_page() -> None:
    results = doctest.testfile(str(PAGE), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.attempted > 20
    assert results.failed == 0


def blocks() -> list[str]:
    return re.findall(r"```console\n\$ (.*?)```", PAGE.read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("block", blocks(), ids=range(len(blocks())))
def test_the_commands_of_the_page(block: str) -> None:
    command, _, shown = block.replace("\\\n", " ").partition("\n")
    assert command.startswith("batchscope schedule ")
    printed = call(command.removeprefix("batchscope schedule "))
    assert [line.rstrip() for line in printed.strip().splitlines()] == [
        line.rstrip() for line in shown.strip().splitlines()
    ]
