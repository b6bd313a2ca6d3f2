"""Real data: two points of the published curve of ``docs/results.md``, from the data folder."""

from __future__ import annotations

from pathlib import Path

import pytest

import batchscope as bs

EXAMPLE = Path(__file__).parents[2] / "examples" / "fashion_mnist.yaml"


@pytest.mark.slow
@pytest.mark.data
def test_fashion_mnist_reaches_its_goal_in_as_few_steps_as_the_documentation_says(
    data_dir: Path, tmp_path: Path
) -> None:
    # What the search found, to which new seeds add nothing.
    overrides = ["batch_sizes=[128, 1024]", 'goals=["validation/error < 0.17"]', "search.confirm.seeds=0"]
    study = bs.Study.from_yaml(EXAMPLE, [*overrides, "engine.program=vmap"])
    table = bs.run(study, tmp_path / "run", data_dir=data_dir).steps_to_result().table
    assert table["steps"].to_list() == [pytest.approx(59, rel=0.15), pytest.approx(38, rel=0.15)]
    assert table["trials"].to_list() == [20, 20]


@pytest.mark.slow
@pytest.mark.data
def test_evaluations_that_end_early_change_no_steps_to_result_on_real_data(data_dir: Path, tmp_path: Path) -> None:
    goals = [f"validation/error < {threshold}" for threshold in (0.2, 0.17, 0.16)]
    search = ["search.trials=8", "search.confirm={seeds: 1, candidates: 1}"]
    overrides = ["batch_sizes=[64, 256, 1024]", *search, f"goals={goals}", "engine.program=vmap"]
    found = []
    for sequential in ("true", "false"):
        study = bs.Study.from_yaml(EXAMPLE, [*overrides, f"evaluation.sequential={sequential}", "engine.pack_size=8"])
        found.append(bs.run(study, tmp_path / sequential, data_dir=data_dir))
    for goal in goals:
        early, complete = (run.steps_to_result(goal).table for run in found)
        assert early["steps"].null_count() == 0
        kept = ["steps", "reached", "feasible", "trials", "learning_rate", "momentum"]
        assert early.select(kept).equals(complete.select(kept))
    end = ["batch_size", "index", "status", "steps"]  # every trial, not the winners only
    assert found[0].trials.select(end).sort(end).equals(found[1].trials.select(end).sort(end))
    looked, complete = (run.measurements.collect() for run in found)
    assert looked["evaluation/examples"].fill_null(5_000).sum() < 0.7 * 5_000 * complete.height
