"""A program that fails later costs nothing but its speed: the loop goes on from the same state, and says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import torch
from torch import Tensor, nn

from batchscope import runs
from batchscope.engine.choice import PROGRAMS, ProgramChoice
from batchscope.engine.pack import State
from batchscope.engine.training import Settings
from batchscope.engine.vmap import Vmap
from batchscope.errors import StudyError, WorkloadError
from batchscope.runs import Progress, Run
from batchscope.runs.program_choices import Recorded, pinned
from engine.workbench import Plain, classification, normalised, study
from runs.same import tables

SMALL = ("search.trials=5", "budget.steps=40", "batch_sizes=[4, 16]")


def do(folder: Path, *overrides: str, model: Callable[[], nn.Module] = Plain) -> Run:
    return runs.run(study(*SMALL, *overrides), folder, workload=classification(model))


class Breaking(Vmap):
    """Fails from its fifth step on."""

    def train(self, state: State, settings: Settings, start: int, until: int) -> tuple[State, Tensor]:
        """As ever, until then."""
        if until >= 5:
            raise RuntimeError("view size is not compatible")
        return super().train(state, settings, start, until)


def hooked() -> nn.Module:
    """What no graph can hold."""
    model = Plain()
    next(model.parameters()).register_hook(lambda gradient: gradient * 2)  # type: ignore[no-untyped-call]
    return model


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return do(tmp_path_factory.mktemp("whole") / "run")


def assert_same_numbers(run: Run, other: Run) -> None:
    for ours, theirs in zip(tables(run.folder), tables(other.folder), strict=True):
        assert ours.columns == theirs.columns and len(ours) == len(theirs)
        for name in ours.columns:
            if ours[name].dtype.is_float():
                one, two = (torch.tensor(table[name].fill_null(-1.0).to_list()) for table in (ours, theirs))
                torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9)
            else:
                assert ours[name].equals(theirs[name])


def test_the_loop_goes_on_where_a_program_fails(whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROGRAMS, "vmap", Breaking)
    run = do(tmp_path / "run")
    assert_same_numbers(run, whole)
    longest = dict(whole.trials.group_by("batch_size").agg(steps=pl.col("steps").max()).iter_rows())
    for size in (size for size, steps in longest.items() if steps >= 5):
        choice = run.provenance["choices"][str(size)]
        assert choice["program"] == "loop" and "view size is not compatible" in choice["reasons"]["vmap"]
        assert any(f"batch size {size} went on with engine.program=loop: vmap failed" in each for each in run.warnings)
    assert longest[4] >= 5
    told = list(run.warnings)
    again = do(tmp_path / "run", "search.trials=6")  # what failed is not taken up again, although it is pinned
    assert again.provenance["choices"]["4"]["program"] == "loop" and again.warnings == told


@pytest.mark.slow
def test_a_folder_whose_program_cannot_run_here_goes_on(whole: Run, tmp_path: Path) -> None:
    do(tmp_path / "run", "search.trials=3")
    path = tmp_path / "run" / "provenance.json"
    provenance = json.loads(path.read_text())
    for choice in provenance["choices"].values():
        choice["program"] = "captured"  # of an earlier version
    path.write_text(json.dumps(provenance))
    run = do(tmp_path / "run", "engine.program=auto")
    assert_same_numbers(run, whole)
    assert {choice["program"] for choice in run.provenance["choices"].values()} == {"loop"}
    assert "no such program" in run.provenance["choices"]["4"]["reasons"]["captured"]


@pytest.mark.slow
def test_a_folder_goes_on_with_the_program_that_is_pinned_now(whole: Run, tmp_path: Path) -> None:
    do(tmp_path / "run", "search.trials=3")
    run = do(tmp_path / "run", "engine.program=loop")
    assert_same_numbers(run, whole)
    assert run.provenance["choices"]["4"]["program"] == "loop"
    assert any("begun with engine.program=vmap and goes on with loop" in each for each in run.warnings)


def test_what_has_failed_is_not_pinned_again() -> None:
    own = Recorded(
        Path("mine"), {4: ProgramChoice("loop", 5, reasons={"vmap": "failed"}), 16: ProgramChoice("traced", 5)}, 1
    )
    found = pinned(study(*SMALL), own)
    assert (found.choices[4].program, found.choices[16].program) == ("loop", "vmap")
    assert len(found.remarks) == 1 and "batch size 16" in found.remarks[0]


def test_a_pinned_program_that_cannot_serve_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match=r"engine\.program: traced cannot compute batch size 4: .*hook.*loop"):
        do(tmp_path / "run", "engine={program: traced}", model=hooked)
    assert Run(tmp_path / "run").trials.is_empty()


@pytest.mark.slow
def test_a_batch_size_that_cannot_be_trained_is_left_out_in_words(tmp_path: Path) -> None:
    seen: list[Progress] = []
    asked = study(*SMALL, "engine={program: auto}", "batch_sizes=[1, 4]")
    run = runs.run(asked, tmp_path / "run", workload=classification(normalised), on_progress=seen.append)
    assert set(run.trials["batch_size"]) == {4}
    assert any("batch size 1 is left out" in each and "two examples or more" in each for each in run.warnings)
    assert [size.choosing for size in seen[0].batch_sizes] == [True, True]
    assert "Expected more than 1 value" in seen[-1].batch_sizes[0].skipped and seen[-1].share == 1.0
    again = runs.run(asked, tmp_path / "again", workload=classification(normalised), replay_choices=run.folder)
    assert set(again.trials["batch_size"]) == {4}


def test_where_no_batch_size_can_be_trained_that_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="1 cannot be trained.*batch norm needs two examples.*write 2 or more"):
        do(tmp_path / "run", "batch_sizes=[1]", model=normalised)
