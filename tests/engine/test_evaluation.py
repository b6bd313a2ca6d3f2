"""Evaluation that ends early: the same values, the same decisions in every pack, and nothing that mattered missed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from batchscope.engine.alone import Alone
from batchscope.engine.evaluate import FIRST_PART, Accumulators, evaluate, parts, validation_size
from batchscope.engine.loop import Loop
from batchscope.engine.pack import Pack, State
from batchscope.engine.program import Measurements, Program, advance
from batchscope.engine.vmap import Vmap
from batchscope.engine.watch import Standing, Watch
from batchscope.plan.rungs import Grid
from batchscope.plan.sampling import first_trials
from batchscope.spec.goal import EXAMPLES, Goal
from batchscope.tensors import Pair
from engine.workbench import error, training
from engine.workbench import well_validated as workload
from rows import first

STEPS = 40
EVALUATIONS = Grid(1.3, 1, STEPS).evaluations()
EASY, HARD = Goal("validation/error", "<", 0.45), Goal("validation/error", "<", 0.355)
AT_LEAST = "validation/error/at_least"


@pytest.fixture(autouse=True)
def evaluations_at_few_examples_end_early_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchscope.engine.evaluate.FEW", 0)


def evaluations(
    program: Program, size: int, *, watch: bool = True, count: int = 6, full: tuple[int, ...] = (6,)
) -> Measurements:
    """The evaluations of all trials, in packs of ``size``, as if of one pack."""
    trials = first_trials(program.training.loaded.study.search, program.training.batch_size, 0, count)
    whole = Measurements()
    for start in range(0, count, size):
        pack = Pack.fresh(program.training, trials[start : start + size])
        masks = tuple(trial.index % 2 for trial in pack.trials)  # every other one has reached the easy goal before
        asked = Watch((EASY, HARD), masks, frozenset(full)) if watch else Watch()
        advanced = advance(program, pack, STEPS, EVALUATIONS, watch=asked)
        assert advanced is not None
        found = advanced[1]
        whole.ends.update({start + k: step for k, step in found.ends.items()})
        for name, rows in found.metrics.items():
            own = whole.metrics.setdefault(name, [[] for _ in EVALUATIONS])
            padded = rows + [[None] * len(pack.trials)] * (len(EVALUATIONS) - len(rows))  # all of its trials were over
            for row, values in zip(own, padded, strict=True):
                row += values
    return whole


@pytest.mark.parametrize("program", [Loop, Alone, Vmap])
@pytest.mark.parametrize("dtype", first(1, ["float32", "float64"]))
def test_pack_size_changes_no_bit_and_no_decision(program: type[Program], dtype: str) -> None:
    bench = training(workload(), f"engine.dtype={dtype}")
    whole = evaluations(program(bench), 6)
    taken = [count for row in whole.metrics[EXAMPLES] for count in row if count is not None]
    assert min(taken) == FIRST_PART and max(taken) == 1500 and len(set(taken)) > 4
    assert 0 < len(whole.ends) < 6
    for size in (1, 2, 3):
        assert evaluations(program(bench), size) == whole


def test_values_are_means_over_all_examples_and_no_evaluation_beyond_a_goal_is_missed() -> None:
    bench = training(workload())
    watched, complete = evaluations(Vmap(bench), 3), evaluations(Vmap(bench), 3, watch=False)
    early = 0
    for row, step in enumerate(EVALUATIONS):
        for k in range(6):
            value = watched.metrics["validation/error"][row][k]
            truth = complete.metrics["validation/error"][row][k]
            bound = watched.metrics[AT_LEAST][row][k]
            assert truth is not None
            if step > watched.ends.get(k, STEPS):
                assert value is None and bound is None
            elif value is None:
                early += 1
                assert bound is not None and truth >= bound and step != 6
            else:
                assert value == truth and bound is None
                for name in ("validation/loss", "train/running_loss"):
                    assert watched.metrics[name][row][k] == complete.metrics[name][row][k]
    assert early > 15
    for k in range(6):  # a trial ends at its first evaluation beyond the harder goal
        found = [
            step for row, step in enumerate(EVALUATIONS) if (complete.metrics["validation/error"][row][k] or 1) < 0.355
        ]
        assert watched.ends.get(k) == (found[0] if found else None)


def test_a_goal_is_open_until_it_is_reached_and_the_hardest_of_a_metric_always() -> None:
    low, other = Goal("validation/loss", "<", 1.0), Goal("train/loss", "<", 0.5)
    standing = Standing(Watch((EASY, HARD, low, other), (0b0001, 0b0110)), 2)
    assert standing.open(0) == [HARD, low]
    assert standing.open(1) == [EASY, HARD, low]
    standing.note(7, {"validation/error": [0.4, None], "validation/loss": [0.9, None], "train/loss": [0.4, 0.4]})
    assert standing.ends == {} and standing.open(0) == [HARD, low]
    standing.note(9, {"validation/error": [0.29, 0.39], "validation/loss": [2.0, 2.0], "train/loss": [0.6, 0.6]})
    assert standing.ends == {0: 9, 1: 9}


def test_bounds_are_those_of_the_easiest_open_goal() -> None:
    above = Goal("validation/accuracy", ">", 0.6)
    standing = Standing(Watch((EASY, HARD, above), (0b001, 0), frozenset()), 2)
    said = standing.decided([32, 64], 100)
    assert said == {EXAMPLES: [32, 64], AT_LEAST: [0.355, 0.45], "validation/accuracy/at_most": [0.6, 0.6]}
    assert standing.decided([100, 64], 100)[AT_LEAST] == [None, 0.45]


def test_what_was_not_measured_is_no_divergence_and_what_is_not_finite_is() -> None:
    standing = Standing(Watch((HARD,), (0, 0), frozenset()), 2)
    standing.note(3, {"train/loss": [0.5, 0.5], "validation/error": [None, None]})
    assert standing.alive == [0, 1]
    standing.note(4, {"train/loss": [0.5, 0.5], "validation/error": [None, float("nan")]})
    assert standing.ends == {1: 4}


@pytest.mark.parametrize("program", [Loop, Alone, Vmap])
def test_a_pack_stops_when_its_last_trial_has_diverged(program: type[Program]) -> None:
    bench = training(
        workload(), "search.space={learning_rate: {min: 1e6, max: 1e8, scale: log}}", "engine.dtype=float32"
    )
    pack = Pack.fresh(bench, first_trials(bench.loaded.study.search, 8, 0, 3))
    for watch in (Watch(), Watch((HARD,), (0, 0, 0), frozenset())):
        advanced = advance(program(bench), pack, STEPS, EVALUATIONS, watch=watch)
        assert advanced is not None
        stopped, found = advanced
        assert set(found.ends) == {0, 1, 2} and stopped.step == max(found.ends.values()) == found.steps[-1] < STEPS


def test_a_goal_on_the_training_loss_needs_no_validation_examples() -> None:
    bench = training(workload())
    pack = Pack.fresh(bench, first_trials(bench.loaded.study.search, 8, 0, 2))
    watch = Watch((Goal("train/loss", "<", 0.01),), (0, 0), frozenset({EVALUATIONS[-1]}))
    advanced = advance(Vmap(bench), pack, STEPS, EVALUATIONS, watch=watch)
    assert advanced is not None
    metrics = advanced[1].metrics
    assert metrics[EXAMPLES] == [[0, 0]] * (len(EVALUATIONS) - 1) + [[1500, 1500]]
    assert metrics["validation/error"][:-1] == [[None, None]] * (len(EVALUATIONS) - 1)
    assert None not in metrics["validation/error"][-1]


class Worst:
    """A metric that is no average, in the form of torchmetrics."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Take some examples."""
        self.seen.append(F.cross_entropy(outputs, targets, reduction="none"))

    def compute(self) -> Tensor:
        """The largest loss, and how many losses there were behind the point."""
        seen = torch.cat(self.seen)
        return seen.max().floor() + len(seen) / 10_000


def test_a_metric_that_is_no_average_sees_every_example_once_and_a_goal_on_it_needs_them_all() -> None:
    bench = training(workload(metrics={"error": error, "worst": Worst}))
    state = Pack.fresh(bench, first_trials(bench.loaded.study.search, 8, 0, 2)).state
    program = Loop(bench)
    values, taken = evaluate(program.evaluate, bench, state)
    assert [round((value or 0) % 1, 6) for value in values["worst"]] == [0.15, 0.15] and taken == [1500, 1500]
    goals = {0: [Goal("validation/worst", "<", 1e-3)], 1: [Goal("validation/error", "<", 1e-3)]}
    values, taken = evaluate(program.evaluate, bench, state, [0, 1], goals)
    assert values["worst"][0] is not None and values["error"][0] is not None and taken[0] == 1500
    assert values["worst"][1] is None and values["error"][1] is None and taken[1] == FIRST_PART


@pytest.mark.parametrize("count", [1, 31, 32, 100, 128, 129, 700, 1500])
def test_parts_hold_every_example_once_in_few_sizes(count: int) -> None:
    bench = training(
        replace(workload(), validation=(torch.arange(count * 6).reshape(count, 6).float(), torch.zeros(count).long()))
    )
    found, sizes = [], set()
    for part in parts(bench):
        inputs = part.examples[0]
        assert isinstance(inputs, Tensor)
        found.append(inputs[-part.fresh :, 0])
        sizes.add(len(inputs))
    assert sorted(torch.cat(found).tolist()) == [6 * k for k in range(count)]
    assert len(sizes) <= 2 and part.end == count == validation_size(bench)


def test_the_order_of_the_examples_is_the_seeds_and_loses_none() -> None:
    orders = [training(workload(), f"seed={seed}").loaded.validation[1] for seed in (0, 0, 1)]
    assert all(isinstance(order, Tensor) for order in orders)
    assert torch.equal(orders[0], orders[1]) and not torch.equal(orders[0], orders[2])  # type: ignore[arg-type]
    assert torch.equal(orders[0].sort().values, orders[2].sort().values)  # type: ignore[union-attr]


class Counting(Vmap):
    """Counts the examples that are computed."""

    computed = 0

    def evaluate(
        self, state: State, examples: Pair, whole: Sequence[Accumulators] = (), place: int = 0
    ) -> dict[str, Tensor]:
        """As ever."""
        found = super().evaluate(state, examples, whole, place)
        self.computed += next(iter(found.values())).numel()
        return found


def test_work_goes_down_with_the_trials_that_are_left() -> None:
    bench = training(workload())
    counting = Counting(bench)
    state = Pack.fresh(bench, first_trials(bench.loaded.study.search, 8, 0, 8)).state
    goals = {k: [Goal("validation/error", "<", 0.01 if k else 0.99)] for k in range(8)}
    values, taken = evaluate(counting.evaluate, bench, state, range(8), goals)
    assert taken == [1500] + [FIRST_PART] * 7 and [value is None for value in values["error"]] == [False] + [True] * 7
    assert counting.computed < 1500 + 8 * FIRST_PART + 300


def test_full_evaluations_are_by_the_clock_and_the_budgets_end() -> None:
    for batch_size in (8, 64):
        grid = Grid(1.05, 1, 4000)
        full = sorted(grid.full_evaluations(lambda step, size=batch_size: step * size, 100))  # type: ignore[misc]
        assert full[-1] == 4000 and set(full) <= set(grid.evaluations())
        longer = Grid(1.05, 1, 9000).full_evaluations(lambda step, size=batch_size: step * size, 100)  # type: ignore[misc]
        assert set(full[:-1]) <= longer  # a larger budget moves none
        since = 0
        for evaluation in full[:-1]:
            assert 3 * (evaluation - since) * batch_size >= 20 * 100  # evaluation at most a twentieth of training
            since = evaluation
