"""``bs.recommend`` on real and imported runs, and its snippets: they run as they are printed."""

from __future__ import annotations

import csv
import json
import re
import runpy
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from torch import nn

import batchscope as bs
from advice.exact_recommendations import curve, prediction, probe
from batchscope.advice.options import Option
from batchscope.advice.recommend import described
from batchscope.advice.snippet import snippet
from batchscope.advice.verdicts import NEAR
from batchscope.analysis import Interval
from batchscope.cli.main import DONE, invoke
from batchscope.errors import AnalysisError, ProbeError
from batchscope.exchange.importers.curve import import_curve
from batchscope.optim.table import TABLE
from batchscope.seeds import seeded
from batchscope.spec.goal import Goal

STUDY = """
workload: digits/softmax
batch_sizes: [16, 64, 128]
search: {trials: 4, confirm: {seeds: 0}, space: {learning_rate: {min: 0.03, max: 1, scale: log}, momentum: 0.9}}
goals: ["validation/error < 0.15"]
budget: {epochs: 6}
engine: {program: loop, pack_size: 1, threads: 1}
"""
GOAL = Goal("validation/error", "<", 0.15)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> bs.Run:
    return bs.run(bs.Study.from_text(STUDY), tmp_path_factory.mktemp("recommend") / "run", workers=0)


def option(**changes: Any) -> Option:
    time = Interval(10.0, 9.0, 11.0)
    values: dict[str, Any] = {
        "batch_size": 48,
        "devices": 1,
        "device_batch_size": 48,
        "micro_batch_size": 16,
        "accumulation_steps": 3,
        "steps": Interval(5.0, 4.0, 7.0),
        "step_seconds": 0.1,
        "communication_seconds": 0.0,
        "time": time,
        "cost": time,
        "energy": None,
        "hyperparameters": {"learning_rate": 0.05, "momentum": 0.9},
    }
    return Option(**(values | changes))


def test_a_run_and_its_curve_give_the_same(run: bs.Run) -> None:
    hardware: dict[str, Any] = {"devices": [1, 2], "bandwidth": 10.0, "price": 2.0}
    of_run = bs.recommend(run, probe(), **hardware)
    of_curve = bs.recommend(run.steps_to_result(), probe(), **hardware)
    assert of_run.options.equals(of_curve.options)
    best = list(of_run)[0]
    assert (best.optimizer, best.schedule) == ("nesterov", "constant")
    assert set(best.hyperparameters) == {"learning_rate", "momentum"}
    row = of_run.options.filter(pl.col("batch_size") == best.batch_size, pl.col("devices") == best.devices)
    winner = run.steps_to_result().table.filter(pl.col("batch_size") == best.batch_size)
    assert row["hyperparameter/learning_rate"].to_list() == winner["learning_rate"].to_list()


def test_a_probe_may_be_a_file(run: bs.Run, tmp_path: Path) -> None:
    path = tmp_path / "probe.json"
    path.write_text(probe().to_json())
    assert bs.recommend(run, path).options.equals(bs.recommend(run, probe()).options)
    with pytest.raises(ProbeError, match="no probe at"):
        bs.recommend(run, tmp_path / "none.json")


def test_a_probe_of_another_workload_is_refused_unless_asked_for(run: bs.Run) -> None:
    other = probe(workload="mnist/fc-8")
    with pytest.raises(AnalysisError, match=r"of 'digits/softmax' and the probe of 'mnist/fc-8'.*--any-workload"):
        bs.recommend(run, other)
    assert len(bs.recommend(run, other, any_workload=True))


def test_a_user_file_is_the_same_from_any_folder(run: bs.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "workload", "here/mine.py:make")
    assert len(bs.recommend(run, probe(workload="mine.py:make")))
    with pytest.raises(AnalysisError, match="--any-workload"):
        bs.recommend(run, probe(workload="mine.py:other"))


def test_differences_between_probe_and_study_are_noted(run: bs.Run) -> None:
    notes = bs.recommend(run, probe(optimizer="adam", dtype="bfloat16")).notes
    assert any("adam" in note and "nesterov" in note for note in notes)
    assert any("bfloat16" in note for note in notes)


def test_what_cannot_be_asked(run: bs.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AnalysisError, match="a curve has its goal"):
        bs.recommend(curve(), goal="validation/error < 0.1")
    with pytest.raises(AnalysisError, match="for a run or a curve, got dict"):
        bs.recommend({})  # type: ignore[arg-type]
    changing = STUDY + "algorithm: {first_epochs: {batch_size: 8}}\n"
    monkeypatch.setattr(run, "study", bs.Study.from_text(changing))
    with pytest.raises(AnalysisError, match="a batch size that stays"):
        bs.recommend(run)


def test_the_report_has_the_recommendation(run: bs.Run) -> None:
    assert "Recommendation" in (run.folder / "report.html").read_text()
    page = run.write_report(advice=bs.recommend(run, probe(), devices=[1, 2, 4])).read_text()
    assert "What more devices bring" in page and "ring all-reduce" in page


def test_commands_and_code_of_the_page_run_as_written(
    run: bs.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "recommend.md").read_text()
    for name in ("mine", "sgd", "adam"):
        shutil.copytree(run.folder, tmp_path / "runs" / name)
    (tmp_path / "probe.json").write_text(probe().to_json())
    (tmp_path / "prediction.json").write_text(prediction(workload=probe().workload).to_json())
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    commands = [line for kind, text in blocks if kind == "bash" for line in text.splitlines()]
    assert len(commands) >= 6
    for command in commands:
        assert invoke(shlex.split(command)[1:]) == DONE, command
    (code,) = [text for kind, text in blocks if kind == "python"]
    exec(compile(code, "recommend.md", "exec"), {})
    assert NEAR == 1.1 and page.count("at most a tenth") == 2


def test_schedules_in_words() -> None:
    text = (
        STUDY + "algorithm: {learning_rate_schedule: {name: cosine, unit: epochs, decay_steps: 30}, warm_up: goyal}\n"
    )
    assert described(bs.Study.from_text(text)) == (
        "cosine, decay_steps 30.0 (in epochs), after a warm-up of 0.05 of the budget"
    )


def test_the_yaml_snippet_is_a_study_of_that_point(run: bs.Run) -> None:
    found = bs.recommend(run, probe(), devices=[1, 2])
    study = bs.Study.from_text(run.snippet(found.fastest, "yaml"))
    assert study.batch_sizes == (found.fastest.batch_size,)
    assert study.search.count == 1 and all(dimension.is_fixed for dimension in study.search.space.values())
    given = {name: dimension.model_dump()["values"][0] for name, dimension in study.search.space.items()}
    assert given == dict(found.fastest.hyperparameters)
    assert run.study and study.goals == run.study.goals and study.algorithm == run.study.algorithm


def test_the_yaml_snippet_of_a_grid_is_one_point_and_keeps_the_algorithm() -> None:
    text = STUDY.replace("trials: 4, confirm: {seeds: 0}", "method: grid, widen: {rounds: 2}, confirm: {seeds: 3}")
    text = text.replace("scale: log}", "scale: log, points: 3}") + "algorithm: {optimizer: momentum, warm_up: goyal}\n"
    made = bs.Study.from_text(snippet(bs.Study.from_text(text), option(), GOAL, "yaml"))
    assert (made.search.count, made.search.widen.rounds, made.search.confirm.seeds) == (1, 0, 5)
    assert made.seed == 1 and "report RUN runs/again" in snippet(bs.Study.from_text(text), option(), GOAL, "yaml")
    assert made.algorithm == bs.Study.from_text(text).algorithm and made.batch_sizes == (48,)


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    """One rank, which is enough for every line of the loop to run."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/ranks", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def trained(text: str, examples: int = 200) -> tuple[nn.Module, nn.Module]:
    """Run the loop of a snippet on a small regression; returns the model before and after."""
    names: dict[str, Any] = {"__name__": "snippet"}
    exec(compile(text, "snippet.py", "exec"), names)
    torch.manual_seed(0)
    inputs = torch.randn(examples, 3)
    workload = bs.Workload(
        model=lambda: nn.Linear(3, 1),
        loss=lambda outputs, targets: ((outputs - targets) ** 2).flatten(1).mean(1),
        train=(inputs, inputs.sum(1, keepdim=True)),
        validation=(inputs, inputs.sum(1, keepdim=True)),
    )
    hand = bs.ByHand(workload, device="cpu")
    model, before = hand.model(), hand.model()
    loss = lambda model, part, update: hand.loss(model, part)  # noqa: E731
    after, took = names["train"](model, hand.batches(names["BATCH_SIZE"]), loss, updates=5)
    assert took is None
    return before, after


def loss_of(model: nn.Module) -> float:
    inputs = torch.randn(100, 3, generator=torch.Generator().manual_seed(1))
    return float(nn.functional.mse_loss(model(inputs), inputs.sum(1, keepdim=True)).detach())


def test_the_pytorch_snippet_of_a_run_trains(run: bs.Run) -> None:
    before, after = trained(run.snippet(bs.recommend(run).fastest, "pytorch"))
    assert loss_of(after) < loss_of(before)


def test_accumulation_and_schedule_of_the_snippet_are_those_of_plain_pytorch() -> None:
    text = STUDY + "algorithm: {learning_rate_schedule: {name: linear, decay_steps: 8}}\n"
    whole, parts = (
        trained(snippet(bs.Study.from_text(text), chosen, GOAL, "pytorch"), examples=48)[1]
        for chosen in (option(micro_batch_size=48, accumulation_steps=1), option())
    )
    torch.manual_seed(0)
    inputs = torch.randn(48, 3)
    with seeded(0):
        model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    for step in range(5):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / 8)
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.mse_loss(model(inputs), inputs.sum(1, keepdim=True)))
        optimizer.step()
    # 48 examples are the whole data set, so their order does not matter.
    for mine, other, plain in zip(whole.parameters(), parts.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(other, plain, rtol=1e-4, atol=1e-5)


def test_the_snippet_for_several_devices_runs_under_a_process_group(process_group: None) -> None:
    text = snippet(
        bs.Study.from_text(STUDY), option(devices=2, device_batch_size=24, micro_batch_size=16), GOAL, "pytorch"
    )
    before, after = trained(text)
    assert loss_of(after) < loss_of(before)
    uneven = snippet(
        bs.Study.from_text(STUDY), option(devices=5, device_batch_size=10, micro_batch_size=10), GOAL, "pytorch"
    )
    assert "50 over all, where 48 was measured" in uneven


@pytest.mark.parametrize("rule", sorted(TABLE))
def test_the_snippet_of_every_optimizer_runs_with_its_hyperparameters(rule: str) -> None:
    point = {name: 0.01 if default is None else default for name, default in TABLE[rule].defaults.items()}
    space = ", ".join(f"{name}: {value!r}" for name, value in point.items())
    text = re.sub(r"space: \{.*\}\}", "space: {" + space + "}}", STUDY) + f"algorithm: {{optimizer: {rule}}}\n"
    code = snippet(bs.Study.from_text(text), option(hyperparameters=point), GOAL, "pytorch")
    assert ("    optimizer.eval()" in code) == TABLE[rule].averages
    assert ("torch.optim." in code) == bool(TABLE[rule].torch)
    before, after = trained(code)
    assert any(not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))


@pytest.mark.parametrize("name", ["torch.optim.NAdam", "mine.py:Mine"])
def test_the_snippet_of_a_users_optimizer_names_the_class(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text("import torch\nclass Mine(torch.optim.NAdam):\n    pass\n")
    monkeypatch.chdir(tmp_path)
    point = {"beta2": 0.9, "weight_decay": 0.1, "learning_rate": 0.05, "beta1": 0.8, "momentum_decay": 0.01}
    space = ", ".join(f"{key}: {value!r}" for key, value in point.items())
    text = re.sub(r"space: \{.*\}\}", "space: {" + space + "}}", STUDY) + f"algorithm: {{optimizer: {name}}}\n"
    code = snippet(bs.Study.from_text(text), option(hyperparameters=point), GOAL, "pytorch")
    given = "(model.parameters(), lr=0.05, weight_decay=0.1, momentum_decay=0.01, betas=(0.8, 0.9))"
    assert f"    optimizer = {name.removeprefix('mine.py:')}{given}\n" in code
    assert (f"Mine = member({str(tmp_path / 'mine.py:Mine')!r}, 'optimizer')" in code) == name.startswith("mine")
    trained(code)


def test_the_snippet_of_a_users_schedule_calls_the_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rates.py").write_text("def falling(step, total_steps):\n    return 1 - step / total_steps\n")
    monkeypatch.chdir(tmp_path)
    study = bs.Study.from_text(STUDY + "algorithm: {learning_rate_schedule: 'rates.py:falling'}\n")
    code = snippet(study, option(), GOAL, "pytorch", train_size=1000)
    assert (
        f"falling = member({str(tmp_path / 'rates.py:falling')!r}" in code
        and "bs.schedules.Function(function=falling, total_steps=" in code
    )
    trained(code)


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        ("{learning_rate_schedule: {name: cosine, unit: epochs, decay_steps: 2}}", "bs.schedules.Stretched("),
        ("{warm_up: {length: 3}}", "bs.schedules.Ramp(steps=3.0, start=0.0)"),
        ("{scaling_rule: {name: linear, base_batch_size: 16}}", "lr=0.15"),
        ("{ghost_batch_size: 8}", "bs.nn.convert_ghost_batch_norm(model, 8)"),
        ("{clip_gradient_norm: 0.5}", "clip_grad_norm_(model.parameters(), 0.5)"),
        ("{average_weights: 0.99}", "return average.module"),
        ("{label_smoothing: 0.1}", "label_smoothing=LABEL_SMOOTHING"),
        ("{discard_small_loss: {fraction: 0.3}}", 'DISCARD = bs.schedules.SmallLossDiscard(0.3, float("inf"))'),
    ],
)
def test_what_else_belongs_to_the_algorithm_is_in_the_loop_or_said(algorithm: str, expected: str) -> None:
    study = bs.Study.from_text(STUDY + f"algorithm: {algorithm}\n")
    code = snippet(study, option(), GOAL, "pytorch", train_size=1000)
    assert expected in code
    trained(code)


OWN = """
import torch
from torch import nn
import batchscope as bs


class Mine(torch.optim.NAdam):
    pass


def falling(step, total_steps):
    return 1 - 0.5 * step / total_steps


def make():
    inputs = torch.randn(512, 8, generator=torch.Generator().manual_seed(0))
    targets = (inputs[:, 0] + inputs[:, 1] > 0).long()
    return bs.Workload(
        model=lambda: nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2)),
        loss=lambda outputs, targets: nn.functional.cross_entropy(outputs, targets, reduction="none"),
        train=(inputs[:384], targets[:384]),
        validation=(inputs[384:], targets[384:]),
        metrics=["accuracy"],
    )
"""


def as_script(code: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a snippet as who types ``python this.py`` does; what it prints."""
    (folder / "this one.py").write_text(code)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["this one.py"])
        runpy.run_path(str(folder / "this one.py"), run_name="__main__")
    return capsys.readouterr().out


def test_the_pytorch_snippet_is_a_script_that_trains_to_the_goal(
    run: bs.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = bs.recommend(run).fastest
    said = as_script(run.snippet(found, "pytorch"), tmp_path, capsys)
    assert re.match(r"validation/error < 0.15 after \d+ updates; nothing was promised", said), said
    promised = replace(found, lower_bound=False, steps=Interval(9.0, 1.0, 400.0))
    assert "the promise of 1 to 400 was kept" in as_script(run.snippet(promised, "pytorch"), tmp_path, capsys)
    missed = replace(found, lower_bound=False, steps=Interval(1.0, 0.5, 1.0))
    assert "the promise of 0 to 1 was not kept" in as_script(run.snippet(missed, "pytorch"), tmp_path, capsys)


@pytest.mark.parametrize(
    "algorithm",
    [
        "{optimizer: nesterov}",
        pytest.param("{optimizer: adamw, clip_gradient_norm: 1.0, average_weights: 0.5}", marks=pytest.mark.slow),
        pytest.param("{optimizer: nesterov, ghost_batch_size: 8, label_smoothing: 0.1}", marks=pytest.mark.slow),
        pytest.param("{optimizer: 'OWN:Mine', learning_rate_schedule: 'OWN:falling'}", marks=pytest.mark.slow),
        pytest.param("{optimizer: schedule_free_adamw, discard_small_loss: {fraction: 0.2}}", marks=pytest.mark.slow),
    ],
)
def test_both_snippets_of_a_users_workload_run_whatever_its_path(
    algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "my models [new]"
    folder.mkdir()
    (folder / "a b.py").write_text(OWN)
    momentum = ", momentum: 0.9" if "nesterov" in algorithm else ""
    study = bs.Study.from_text(
        f"workload: 'my models [new]/a b.py:make'\nalgorithm: {algorithm.replace('OWN', 'my models [new]/a b.py')}\n"
        "batch_sizes: [32]\n"
        f"search: {{trials: 2, confirm: {{seeds: 2}}, space: {{learning_rate: [0.05, 0.02]{momentum}}}}}\n"
        "goals: ['validation/accuracy > 0.8']\nbudget: {epochs: 20}\n"
        "engine: {program: loop, pack_size: 1, threads: 1}\n"
    )
    own = bs.run(study, tmp_path / "run", workers=0)
    chosen = bs.recommend(own).recommended
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    again = bs.Study.from_text(own.snippet(chosen, "yaml"))
    assert (
        bs.recommend(bs.run(again, tmp_path / "again", workers=0)).recommended.hyperparameters == chosen.hyperparameters
    )
    code = own.snippet(chosen, "pytorch")
    monkeypatch.chdir(elsewhere)
    assert "validation/accuracy > 0.8 after " in as_script(code, elsewhere, capsys)


def test_there_is_no_snippet_of_what_is_not_known(run: bs.Run) -> None:
    chosen = bs.recommend(run).fastest
    with pytest.raises(AnalysisError, match="yaml or pytorch, got 'jax'"):
        run.snippet(chosen, "jax")
    with pytest.raises(AnalysisError, match="was never trained"):
        run.snippet(replace(chosen, hyperparameters={}))


@pytest.mark.slow
def test_curves_of_language_models_of_another_group(data_dir: Path, tmp_path: Path) -> None:
    source = data_dir / "zhang2024" / "derived_steps_to_target.csv"
    if not source.exists():
        pytest.skip(f"no {source}: it is part of the development data")
    import_curve(
        source, tmp_path / "runs", batch_size="batch_size_sequences", steps="steps_to_goal", group="model_size"
    )
    with source.open() as file:
        rows = [
            (row["model_size"], int(row["batch_size_sequences"]), int(row["steps_to_goal"]))
            for row in csv.DictReader(file)
        ]
    for model in ("1.2B", "85M"):
        own = {size: steps for name, size, steps in rows if name == model}
        run = bs.open_run(tmp_path / "runs" / model)
        found = bs.recommend(run)
        useful = run.steps_to_result().regimes.maximum_useful_batch_size.value
        # Beyond the maximum useful batch size fewer steps are not called faster.
        last = next((size for size in sorted(own) if useful and size >= useful), max(own))
        assert found.fastest.steps.value == min(steps for size, steps in own.items() if size <= last)
        assert found.recommended.batch_size <= found.fastest.batch_size
        assert found.cheapest.cost.value == min(size * steps for size, steps in own.items())
        assert not found.fastest.hyperparameters and any("no hyperparameters" in note for note in found.notes)
        measured = probe([2**power for power in range(15)], workload=model)
        on_many = bs.recommend(run, measured, devices=[1, 8, 64], bandwidth=100.0)
        times = {
            (size, count): steps * (1.6e-3 + 1e-4 * -(-size // count) + 2 * (count - 1) / count * 4e6 / 100e9)
            for size, steps in own.items()
            for count in (1, 8, 64)
        }
        best = min(times, key=lambda pair: times[pair])
        assert (on_many.fastest.batch_size, on_many.fastest.devices) == best
        assert on_many.fastest.time.value == pytest.approx(times[best])
        with pytest.raises(AnalysisError, match="does not say how it was trained"):
            run.snippet(found.fastest)
    page = run.write_report().read_text()
    assert "Recommendation" in page and json.loads((run.folder / "summary.json").read_text())["schema"] == 1
