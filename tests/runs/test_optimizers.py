"""A search that chooses among optimizers: each trial is trained as a study of its optimizer alone would."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import batchscope as bs
from batchscope import workloads
from batchscope.advice.snippet import snippet
from batchscope.engine.loop import Loop
from batchscope.engine.pack import Pack
from batchscope.engine.program import advance
from batchscope.engine.training import Loaded, Training
from batchscope.plan.sampling import first_trials
from batchscope.spec.study import Study

STUDY = """
workload: digits/softmax
batch_sizes: [64]
search:
  trials: 6
  confirm: {seeds: 1}
  optimizers:
    momentum: {learning_rate: {min: 0.1, max: 1, scale: log}, momentum: [0.5, 0.9]}
    adam: {learning_rate: {min: 0.003, max: 0.1, scale: log}}
  space: {label_smoothing: [0, 0.1]}
goals: ["validation/error < 0.15"]
budget: {steps: 30}
policy: full
engine: {program: vmap, pack_size: 2, dtype: float64, threads: 1}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> bs.Run:
    return bs.run(bs.Study.from_text(STUDY), tmp_path_factory.mktemp("optimizers") / "run", workers=0)


def test_every_trial_is_trained_as_in_a_study_of_its_optimizer_alone(run: bs.Run) -> None:
    study = bs.Study.from_text(STUDY)
    rows = {row["index"]: row for row in run.trials.filter(replicate=0).iter_rows(named=True)}
    values = run.measurements.collect()
    for trial in first_trials(study.search, 64, study.seed, 6):
        point = dict(trial.hyperparameters)
        row, name = rows[trial.index], point.pop("optimizer")
        assert row["hyperparameter/optimizer"] == name
        own = {key: dimension.model_dump() for key, dimension in study.search.optimizers[str(name)].items()}
        parts = {"algorithm": {"optimizer": name}, "search": {"space": own}}
        alone = Study.from_mapping(study.model_dump(mode="json", exclude_none=True) | parts)
        training = Training(Loaded(workloads.load("digits/softmax"), alone, torch.device("cpu")), 64)
        moved = advance(Loop(training), Pack.fresh(training, [replace(trial, hyperparameters=point)]), 30, [30])
        assert moved is not None
        stored = values.filter(trial=row["trial"], step=30)["validation/loss"].item()
        assert stored == pytest.approx(moved[1].metrics["validation/loss"][0][0], rel=1e-9)


def test_the_winner_has_an_optimizer_and_a_recommendation_writes_it_down(run: bs.Run) -> None:
    curve = run.steps_to_result()
    (row,) = curve.table.iter_rows(named=True)
    fastest = bs.recommend(run).fastest
    assert fastest.hyperparameters["optimizer"] == row["optimizer"]
    study = bs.Study.from_text(STUDY)
    assert Study.from_text(snippet(study, fastest, curve.goal, "yaml")).algorithm.optimizer == row["optimizer"]
    for name, written in (("momentum", "torch.optim.SGD("), ("adam", "torch.optim.Adam(")):
        other = replace(fastest, hyperparameters={"optimizer": name, "learning_rate": 0.1})
        assert written in snippet(study, other, curve.goal, "pytorch")
