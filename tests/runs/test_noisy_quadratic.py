"""Ground truth: on the noisy quadratic the measured mean loss, and the curve, follow the closed form."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import batchscope as bs
from batchscope import workloads
from batchscope.analysis.laws import fit
from batchscope.engine.loop import Loop
from batchscope.engine.pack import Pack
from batchscope.engine.program import advance
from batchscope.engine.training import Loaded, Training
from batchscope.plan.sampling import first_trials
from batchscope.workloads.noisy_quadratic import expected_loss, steps_to_goal
from rows import first

D = 16
STUDY = f"""
workload: noisy_quadratic/{D}
algorithm: {{optimizer: sgd}}
batch_sizes: {{from: 1, to: 1024, factor: 4}}
search: {{trials: 24, confirm: {{seeds: 0}}, space: {{learning_rate: {{min: 1e-3, max: 2, scale: log}}}}}}
goals: ["validation/loss < 0.05"]
budget: {{steps: 20000}}
engine: {{dtype: float64, program: vmap, pack_size: 24, threads: 1}}
"""


@pytest.mark.parametrize("optimizer", first(1, ["momentum", "sgd", "nesterov"]))
def test_the_mean_loss_is_the_closed_form(optimizer: str) -> None:
    point = "{learning_rate: 0.3}" if optimizer == "sgd" else "{learning_rate: 0.1, momentum: 0.8}"
    study = bs.Study.from_text(STUDY, [f"algorithm.optimizer={optimizer}", f"search.space={point}"])
    loaded = Loaded(workloads.load(study.workload), study, torch.device("cpu"))
    program, steps, replicates = Loop(Training(loaded, 4)), 20, 200
    losses = np.empty((replicates, steps))
    for replicate in range(replicates):
        trials = [replace(trial, replicate=replicate) for trial in first_trials(study.search, 4, 0, 1)]
        pack = Pack.fresh(program.training, trials)
        advanced = advance(program, pack, steps, range(1, steps + 1))
        assert advanced is not None
        losses[replicate] = np.array(advanced[1].metrics["validation/loss"], float).ravel()
    hyper = loaded.algorithm.hyperparameters(pack.trials[0].hyperparameters)
    expected = expected_loss(
        4, hyper["learning_rate"], hyper.get("momentum", 0.0), steps, D, nesterov=optimizer == "nesterov"
    )[1:]
    z = (losses.mean(0) - expected) / (losses.std(0, ddof=1) / replicates**0.5)
    assert np.abs(z).max() < 4  # twenty correlated evaluations
    assert np.abs(losses.mean(0) / expected - 1).max() < 0.15  # so that the spread hides no bias worth the name


def test_the_curve_has_the_critical_batch_size_of_the_closed_form(tmp_path: Path) -> None:
    study = bs.Study.from_text(STUDY)
    curve = bs.run(study, tmp_path / "run", workers=0).steps_to_result()
    truth = [steps_to_goal(batch_size, 0.05, D) for batch_size in study.batch_sizes]
    assert all(best is not None for best in truth)
    exact = np.array([best.steps for best in truth if best is not None], float)
    critical = fit(np.array(study.batch_sizes, float), exact).law.critical_batch_size
    found = curve.regimes.critical_batch_size
    assert found.low is not None and found.high is not None
    assert found.low <= critical <= found.high
    assert found.high / found.low < 30  # an interval that says something
    # A noisy path first passes the goal before the mean does, by a factor that the closed form does not know.
    measured = curve.table["steps"].to_numpy()
    assert (measured >= exact / 3).all() and (measured <= 3 * exact + 2).all()
