"""``train/loss`` and its like: of a fixed sample of the training examples, in evaluation mode, for all trials alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

import batchscope as bs
from batchscope.engine.loop import Loop
from batchscope.engine.pack import Pack
from batchscope.engine.program import Measurements, advance
from batchscope.engine.qualification import Reference, qualify
from batchscope.engine.training import Training
from batchscope.engine.vmap import Vmap
from batchscope.engine.watch import Watch
from batchscope.plan.sampling import first_trials
from batchscope.spec.goal import EXAMPLES, Goal
from batchscope.spec.workload import Workload
from batchscope.tensors import size_of
from engine.workbench import classification, error, training, well_validated

GOAL = 'goals=["train/loss < 0.5"]'


def measured(bench: Training, *steps: int, watch: Watch = Watch(), count: int = 2) -> tuple[Pack, Measurements]:  # noqa: B008
    pack = Pack.fresh(bench, first_trials(bench.loaded.study.search, 8, 0, count))
    advanced = advance(Vmap(bench), pack, steps[-1], steps, watch=watch)
    assert advanced is not None
    return advanced


def test_loss_and_metrics_are_those_of_the_sample_after_the_step() -> None:
    bench = training(classification(), GOAL)  # dropout in training mode, none here
    pack, found = measured(bench, 3)
    assert bench.loaded.train_sample is not None
    inputs, targets = bench.loaded.train_sample
    assert isinstance(inputs, Tensor) and isinstance(targets, Tensor) and len(inputs) == 100
    for k, trial in enumerate(pack.trials):
        model = bench.loaded.module(trial.seed).eval()
        state = {name.partition("/")[2]: value[k] for name, value in pack.state.items() if name.startswith("parameter")}
        outputs = torch.func.functional_call(model, state, (inputs,))
        assert found.metrics["train/loss"][0][k] == pytest.approx(F.cross_entropy(outputs, targets).item(), rel=1e-12)
        assert found.metrics["train/error"][0][k] == pytest.approx(error(outputs, targets).mean().item(), rel=1e-12)
    assert found.metrics["train/running_loss"] != found.metrics["train/loss"]


def test_it_is_measured_only_where_the_study_asks_for_it() -> None:
    assert set(measured(training(), 1)[1].metrics) == {"train/running_loss", "validation/loss", "validation/error"}
    assert "train/error" in measured(training(None, "evaluation.train_examples=10"), 1)[1].metrics


def as_stream(train: tuple[Tensor, Tensor]) -> bs.Stream:
    def draw(generator: torch.Generator, count: int) -> tuple[Tensor, Tensor]:
        where = torch.randint(len(train[0]), (count,), generator=generator)
        return train[0][where], train[1][where]

    return bs.Stream(draw)


def as_iterable(train: tuple[Tensor, Tensor]) -> object:
    def examples(seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(*train, strict=True)

    return examples


@pytest.mark.parametrize("form", [tuple, lambda train: TensorDataset(*train), as_stream, as_iterable])
def test_it_is_the_same_for_every_study_of_a_workload_in_every_form_of_data(form: object) -> None:
    assert callable(form)
    workload = classification()
    own = replace(workload, train=form(workload.train))
    samples = [
        training(own, GOAL, *more, "budget={steps: 9}").loaded.train_sample
        for more in ([], ["seed=5"], ["batch_sizes=4"])
    ]
    for sample in samples:
        assert sample is not None and samples[0] is not None
        assert all(torch.equal(one, other) for one, other in zip(sample, samples[0], strict=True))  # type: ignore[arg-type]
    known = {tuple(row) for row in workload.train[0].double().tolist()}  # type: ignore[index]
    assert samples[0] is not None
    rows = [tuple(row) for row in samples[0][0].double().tolist()]  # type: ignore[union-attr]
    assert known.issuperset(rows) and len(rows) == 100
    assert form is as_stream or len(set(rows)) == 100


def test_it_has_no_more_examples_than_the_training_data() -> None:
    sample = training(None, "evaluation.train_examples=1000").loaded.train_sample
    assert sample is not None and size_of(sample) == 200


def test_an_evaluation_that_ends_early_finds_the_crossing_of_a_full_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchscope.engine.evaluate.FEW", 0)
    goal = Goal("train/error", "<", 0.36)
    workload = well_validated()
    bench = training(replace(workload, train=workload.validation), "evaluation.train_examples=1500")
    steps = tuple(range(1, 41))
    whole = measured(bench, *steps, count=6, watch=Watch((goal,), (0,) * 6))[1]
    early = measured(bench, *steps, count=6, watch=Watch((goal,), (0,) * 6, frozenset()))[1]
    assert early.ends == whole.ends != {}
    bounds, values = early.metrics["train/error/at_least"], early.metrics["train/error"]
    ended = [row for row, bound in enumerate(bounds) if bound[0] is not None]
    assert ended and all(values[row][0] is None and bounds[row][0] == 0.36 for row in ended)
    assert {value for row in early.metrics[EXAMPLES] for value in row} <= {0.0, None}  # nothing is asked of these


class Pooled(nn.Module):
    """A network for images of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.convolution(inputs).relu().mean((2, 3)))
        return outputs


def test_training_examples_may_have_another_shape_than_those_held_out() -> None:
    labels = torch.arange(60) % 3
    cropped, whole = torch.randn(60, 1, 5, 5), torch.randn(60, 1, 8, 8)
    plain = classification()
    workload = Workload(Pooled, plain.loss, (cropped, labels), (whole, labels), metrics={"error": error})
    bench = training(workload, GOAL)
    trials = first_trials(bench.loaded.study.search, 8, 0, 3)
    reference = Reference(bench, trials)
    assert {tuple(part.examples[0].shape) for part in reference.parts} == {(60, 1, 8, 8), (60, 1, 5, 5)}  # type: ignore[union-attr]
    qualify(Vmap(bench), reference, 3)
    asked = Pack.fresh(bench, trials)
    one, other = (advance(program(bench), asked, 2, (1, 2)) for program in (Loop, Vmap))
    assert one is not None and other is not None
    for row, others in zip(one[1].metrics["train/loss"], other[1].metrics["train/loss"], strict=True):
        assert row == pytest.approx(others, rel=1e-9)


def test_by_hand_a_goal_is_measured_on_the_same_sample() -> None:
    workload = classification()
    hand, bench = bs.ByHand(workload, seed=3, dtype="float64"), training(workload, GOAL)
    model = hand.model()
    assert bench.loaded.train_sample is not None
    inputs, targets = bench.loaded.train_sample
    assert isinstance(targets, Tensor)
    with torch.no_grad():
        loss = F.cross_entropy(model.eval()(inputs), targets).item()
    assert hand.reached(model, f"train/loss < {loss * 1.001}")
    assert not hand.reached(model, f"train/loss < {loss * 0.999}")
