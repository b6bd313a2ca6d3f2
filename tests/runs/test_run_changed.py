"""A study changed under its run: what extends it equals a fresh run, what is smaller keeps what is valid."""

from __future__ import annotations

import json
import re
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from batchscope import runs
from batchscope.cli.main import DONE, MISUSE, invoke
from batchscope.errors import StudyError
from batchscope.executors.worker import Worker
from batchscope.runs import Interrupted, Run
from engine.workbench import Plain, classification, study
from rows import first
from runs.same import tables

pytestmark = pytest.mark.usefixtures("without_page")
SMALL = (
    "engine.program=loop",
    "engine.dtype=float32",
    "engine.pack_size=2",
    "search.trials=4",
    "budget.steps=30",
    "evaluation.ratio=1.3",
)

# Evaluations that ended early do not tell what another goal, or another policy, would ask of them (test_run.py).
FULL_EVALUATIONS = "evaluation.sequential=false"


def do(folder: Path, *overrides: str) -> Run:
    return runs.run(study(*SMALL, *overrides), folder, workload=classification())


def assert_same(one: Path, other: Path) -> None:
    for ours, theirs in zip(tables(one), tables(other), strict=True):
        assert_frame_equal(ours, theirs, check_exact=True)
    assert (one / "summary.json").read_text() == (other / "summary.json").read_text()


def assert_holds(one: Path, other: Path) -> None:
    """Every trial and evaluation of the other is there, bit for bit; trials may have gone further, as they once had
    to.
    """
    (ours, our_evaluations), (theirs, their_evaluations) = tables(one), tables(other)
    evaluations = our_evaluations.join(their_evaluations.select("trial", "step"), on=["trial", "step"], how="semi")
    assert_frame_equal(evaluations, their_evaluations, check_exact=True)
    both = ours.join(theirs, on="trial", suffix="_other")
    assert len(both) == len(theirs) and (both["steps"] >= both["steps_other"]).all()


@pytest.mark.parametrize(
    ("before", "after"),
    first(
        2,
        [
            (["policy=full"], ["policy=full", "search.trials=7"]),
            ([], ["batch_sizes=[8, 32]"]),
            ([FULL_EVALUATIONS], [FULL_EVALUATIONS, 'goals=["validation/error < 0.35", "validation/loss < 0.8"]']),
            ([FULL_EVALUATIONS, "policy=race"], [FULL_EVALUATIONS, "policy=full"]),
            (["margin=1"], ["margin=3"]),
            ([], ["search.confirm={seeds: 2}"]),
            (["search.widen={edge: 0.3, rounds: 1}"], ["search.widen={edge: 0.3, rounds: 2}"]),
        ],
    ),
    ids=lambda changes: " ".join(changes) or "as it was",
)
def test_an_extended_run_is_bitwise_the_fresh_run_of_the_extended_study(
    before: list[str], after: list[str], tmp_path: Path
) -> None:
    do(tmp_path / "run", *before)
    known = tables(tmp_path / "run")[1]
    do(tmp_path / "run", *after)
    do(tmp_path / "fresh", *after)
    assert_same(tmp_path / "run", tmp_path / "fresh")
    evaluations = tables(tmp_path / "run")[1]
    assert len(known.join(evaluations, on=known.columns, how="semi", nulls_equal=True)) == len(known)


@pytest.mark.parametrize("confirm", [[], ["search.confirm={seeds: 1}"]])
def test_more_trials_of_a_race_keep_how_far_the_others_had_gone(confirm: list[str], tmp_path: Path) -> None:
    do(tmp_path / "run", *confirm, "search.trials=3")
    run = do(tmp_path / "run", *confirm, "search.trials=6", "batch_sizes=[8, 16]")
    fresh = do(tmp_path / "fresh", *confirm, "search.trials=6", "batch_sizes=[8, 16]")
    assert_holds(tmp_path / "run", tmp_path / "fresh")
    same = ("batch_size", "steps", "trial")
    assert_frame_equal(run.steps_to_result().table.select(same), fresh.steps_to_result().table.select(same))


@pytest.mark.parametrize("goal", ["validation/error < 0.35", "validation/error < 0.01"])
def test_a_larger_budget_adds_to_what_is_there(goal: str, tmp_path: Path) -> None:
    """The old budget's end stays as an evaluation; every evaluation that the fresh run has is bitwise there."""
    goals = f'goals=["{goal}"]'
    do(tmp_path / "run", goals, "budget.steps=20")
    do(tmp_path / "run", goals, "budget.steps=45")
    do(tmp_path / "fresh", goals, "budget.steps=45")
    extended, fresh = tables(tmp_path / "run"), tables(tmp_path / "fresh")
    ours = extended[1].drop("train/running_loss")
    theirs = fresh[1].drop("train/running_loss")
    common = ours.join(theirs.select("trial", "step"), on=["trial", "step"], how="semi")
    assert_frame_equal(common, theirs, check_exact=True)
    more = ours.join(theirs.select("trial", "step"), on=["trial", "step"], how="anti")
    assert set(more["step"]) <= {20}
    assert set(extended[0]["trial"]) == set(fresh[0]["trial"])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("batch_sizes=[8, 32]", "batch_sizes=[8]"),
        ("budget.steps=40", "budget.steps=12"),
        ('goals=["validation/error < 0.35", "validation/error < 0.2"]', 'goals=["validation/error < 0.35"]'),
    ],
)
def test_a_smaller_study_computes_nothing_and_keeps_what_is_there(
    before: str, after: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    do(tmp_path / "run", "policy=full", before)
    rows, evaluations = tables(tmp_path / "run")
    monkeypatch.setattr(Worker, "run", lambda *_: pytest.fail("nothing is missing"))
    do(tmp_path / "run", "policy=full", after)
    assert_frame_equal(tables(tmp_path / "run")[1], evaluations, check_exact=True)
    assert_frame_equal(tables(tmp_path / "run")[0].drop("status"), rows.drop("status"), check_exact=True)


def test_fewer_trials_keep_what_is_there_and_going_back_finds_it(tmp_path: Path) -> None:
    do(tmp_path / "run")
    do(tmp_path / "first")
    for overrides in (["search.trials=2"], []):
        do(tmp_path / "run", *overrides)
        assert_holds(tmp_path / "run", tmp_path / "first")


def test_checkpoints_of_another_space_are_not_taken_for_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same indices, steps and shapes, but other trials: their state would give a wrong curve."""
    monkeypatch.setattr("batchscope.executors.worker.CHECKPOINT_SECONDS", 0.0)
    other = "search.space={learning_rate: {min: 1e-5, max: 1e-4, scale: log}, momentum: 0.1}"
    goals = 'goals=["validation/error < 0.01"]'
    run = Worker.run

    def stopping(after: int) -> object:
        count = iter(range(10**6))

        def counted(worker: Worker, *arguments: object) -> object:
            if next(count) == after:
                raise KeyboardInterrupt
            return run(worker, *arguments)  # type: ignore[arg-type]

        return counted

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Worker, "run", stopping(2))
        do(tmp_path / "run", goals, other)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Worker, "run", stopping(2))
        patch.setattr(Worker, "save", lambda worker: None)  # killed, not stopped
        patch.setattr("batchscope.executors.worker.CHECKPOINT_SECONDS", 1e9)
        do(tmp_path / "run", goals)
    do(tmp_path / "run", goals)
    do(tmp_path / "fresh", goals)
    fresh = tables(tmp_path / "fresh")[1]
    ours = tables(tmp_path / "run")[1].join(fresh.select("trial").unique(), on="trial", how="semi")
    assert_frame_equal(ours, fresh, check_exact=True)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("algorithm.optimizer=momentum", "+  optimizer: momentum"),
        ("algorithm.weight_decay=0.1", "weight_decay: 0.1"),
        ("evaluation.ratio=1.1", "+  ratio: 1.1"),
        ("engine.dtype=float64", "+  dtype: float64"),
    ],
)
def test_another_algorithm_is_refused_with_the_difference_and_what_to_type(
    change: str, line: str, tmp_path: Path
) -> None:
    do(tmp_path / "run", "search.trials=2")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(StudyError) as caught:
        do(tmp_path / "run", "search.trials=2", change)
    assert line in str(caught.value) and "give another folder with -o" in str(caught.value)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_another_workload_is_refused_though_it_has_the_same_name(tmp_path: Path) -> None:
    do(tmp_path / "run", "search.trials=2")
    wider = classification(lambda: Plain(norm=pytest.importorskip("torch").nn.BatchNorm1d))
    with pytest.raises(StudyError, match="the shapes of its model changed since it began") as caught:
        runs.run(study(*SMALL, "search.trials=2"), tmp_path / "run", workload=wider)
    assert f"give another folder with -o {tmp_path / 'run-2'}" in str(caught.value)


FILE = """\
import torch
import batchscope as bs
DATA = torch.arange(8.0).reshape(8, 1) / 8, torch.zeros(8)
def make():
    return bs.Workload(lambda: torch.nn.Linear(1, 1), lambda o, t: (o[:, 0] - t) ** 2, DATA, DATA)  # mine
"""


def test_a_comment_changes_nothing_and_other_code_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    file, space = Path("mine.py"), "{learning_rate: 0.1, momentum: 0}"
    Path("study.yaml").write_text(
        f"workload: mine.py:make\nbatch_sizes: [2]\nsearch: {{trials: 1, space: {space}}}\n"
        'goals: ["validation/loss < 0.001"]\nbudget: {steps: 4}\nengine: {program: loop}\n'
    )
    command = ["run", "study.yaml", "-o", "run", "--workers", "0"]
    file.write_text(FILE)
    assert invoke(command) == DONE
    file.write_text(f'"""Mine."""\n{FILE}# the end\n')
    assert invoke(command) == DONE
    other = FILE.replace("** 2", "** 4")
    file.write_text(other)
    capsys.readouterr()
    assert invoke(command) == MISUSE
    said = capsys.readouterr().err
    assert "run cannot go on: the code of mine.py changed since it began" in said and "-o run-2" in said
    advised = re.search(r'write (version="[0-9a-f]{16}")', said)
    assert advised
    file.write_text(other.replace("DATA, DATA)", f"DATA, DATA, {advised[1]})"))
    assert invoke(command) == DONE
    assert invoke([*command, "algorithm.optimizer=sgd", "search.space={learning_rate: 0.1}"]) == MISUSE
    said = capsys.readouterr().err
    assert "the study changed since it began:" in said and "+ optimizer: sgd" in said.replace("    +  ", "+ ")


def test_every_trial_that_a_change_leaves_behind_is_still_a_row_once(tmp_path: Path) -> None:
    do(tmp_path / "run", "search.trials=6")
    do(tmp_path / "run", "search.trials=2", "batch_sizes=[8, 16]")
    rows, evaluations = tables(tmp_path / "run")
    assert rows["trial"].n_unique() == len(rows) == 8
    assert not evaluations.select(pl.struct("trial", "step").is_duplicated().any()).item()


def winners(result: Run) -> list[tuple[object, ...]]:
    return result.steps_to_result().table.select("batch_size", "steps", "trials").rows()


WIDENED = "search.widen={edge: 0.3, rounds: 1}"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], ["seed=1"]),
        ([], ["search.space.learning_rate={min: 0.001, max: 0.01, scale: log}"]),
        ([WIDENED, "search.confirm.seeds=1"], [WIDENED, "seed=3"]),
        (["search.trials=6"], []),
        (["batch_sizes=[8, 32]", "search.confirm.seeds=2"], ["batch_sizes=[8]", "search.confirm.seeds=1"]),
        (["batch_sizes=[8, 32]"], ["batch_sizes=[8]"]),
    ],
    ids=str,
)
def test_only_the_trials_of_the_present_study_count(
    tmp_path: Path,
    before: list[str],
    after: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What another study has left in the folder is kept, named everywhere, and changes no answer."""
    first = do(tmp_path / "run", FULL_EVALUATIONS, *before)
    assert first.warnings == [] and first.not_counted == 0
    both = do(tmp_path / "run", FULL_EVALUATIONS, *after)
    fresh = do(tmp_path / "fresh", FULL_EVALUATIONS, *after)
    assert set(both.trials["trial"]) == set(fresh.trials["trial"]) and fresh.not_counted == 0
    assert winners(both) == winners(fresh)
    everything = set(tables(tmp_path / "run")[0]["trial"])
    assert both.not_counted == len(everything - set(fresh.trials["trial"])) > 0
    words = f"{both.not_counted} trials of an earlier study, not counted"
    assert words in both.warnings
    assert set(both.measurements.collect()["trial"]) == set(fresh.trials["trial"])
    assert both.status()["not_counted"] == both.not_counted
    counts = [[size["trials"] for size in result.status()["batch_sizes"]] for result in (both, fresh)]
    assert counts[0] == counts[1]
    document = both.summary()
    assert document["not_counted"] == both.not_counted and words in document["goals"][0]["notes"]
    monkeypatch.undo()
    assert words in both.write_report().read_text()
    for verb in ("analyze", "status"):
        capsys.readouterr()
        assert invoke([verb, str(tmp_path / "run")]) == DONE
        assert words in capsys.readouterr().err
    assert invoke(["export", str(tmp_path / "run"), "--format", "parquet", "-o", str(tmp_path / "out")]) == DONE
    assert set(pl.read_parquet(tmp_path / "out" / "trials.parquet")["trial"]) == set(fresh.trials["trial"])
    provenance = tmp_path / "run" / "provenance.json"
    facts = json.loads(provenance.read_text())
    assert len(facts.pop("searches")) == (1 if after == ["batch_sizes=[8]"] else 2)
    provenance.write_text(json.dumps(facts))  # as an older driver left it: then every trial is drawn again
    assert set(Run(tmp_path / "run").trials["trial"]) == set(fresh.trials["trial"])
