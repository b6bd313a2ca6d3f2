"""One training until it reaches a goal, with checkpoints on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from batchscope.engine.loop import Loop
from batchscope.engine.pack import Pack
from batchscope.engine.program import advance
from batchscope.engine.training import Loaded, Training
from batchscope.engine.watch import Watch
from batchscope.errors import PredictionError
from batchscope.plan.rungs import TRAINING_PASSES, Grid
from batchscope.prediction.one_training import OneTraining, rate_rule
from batchscope.spec.goal import EXAMPLES, Goal
from batchscope.tensors import size_of

# Checkpoints that are kept: from each, when there are twice as many, every other is dropped.
CHECKPOINTS = 8
# Of rates that are tried where none is given: each is trained for no longer than the best one took.
RATES = {"linear": (0.01, 0.03, 0.1, 0.3), "square_root": (3e-4, 1e-3, 3e-3, 1e-2)}


@dataclass(frozen=True)
class Reached:
    """A training that reached its goal.

    Attributes:
        one: Which.
        training: On its data.
        steps: To the goal.
        checkpoints: On the way, ascending, the last one at the goal.
        examples: Trained, and evaluated at a third each, all rates that were tried together.
    """

    one: OneTraining
    training: Training
    steps: int
    checkpoints: tuple[Pack, ...]
    examples: float


def to_goal(candidates: Sequence[OneTraining], loaded: Loaded, goal: Goal) -> Reached:
    """The fastest of some trainings that differ in their learning rate.

    Args:
        candidates: At least one.
        loaded: Their workload and data.
        goal: To reach.

    Raises:
        PredictionError: If none reaches it within the budget.
    """
    best: Reached | None = None
    spent = 0.0
    training = Training(loaded, candidates[0].batch_size)
    for one in candidates:
        found, cost = _trained(one, training, goal, training.timeline.last if best is None else best.steps)
        spent += cost
        if found is not None and (best is None or found.steps < best.steps):
            best = found
    if best is None:
        tried = "none of the rates reaches" if len(candidates) > 1 else "the training does not reach"
        raise PredictionError(
            f"{tried} {goal} within {training.timeline.last} steps: train for longer (--epochs), give another "
            "--learning-rate, or ask for an easier --goal"
        )
    return replace(best, examples=spent)


def at_rates(one: OneTraining) -> list[OneTraining]:
    """The training at each of the rates that are tried where none is given."""
    return [one.at(learning_rate=rate) for rate in RATES[rate_rule(one.study.algorithm.optimizer)]]


def _trained(one: OneTraining, training: Training, goal: Goal, last: int) -> tuple[Reached | None, float]:
    """The training, if it reaches the goal within so many steps, and the examples that it took."""
    study, validation = training.loaded.study, size_of(training.loaded.validation)
    grid = Grid(study.evaluation.ratio, study.evaluation.first, last)
    watch = Watch((goal,), full=frozenset({last}))
    program, pack = Loop(training), Pack.fresh(training, [one.trial(0)])
    kept, evaluated = [pack], 0.0
    for step in grid.evaluations():
        advanced = advance(program, pack, step, (step,), watch=watch)
        assert advanced is not None  # nobody interrupts it
        pack, measured = advanced
        kept.append(pack)
        if len(kept) > 2 * CHECKPOINTS:
            kept = kept[::2]
        taken = measured.metrics.get(EXAMPLES, [[None]])[0][0]
        evaluated += validation if taken is None else taken
        if measured.ends:
            break
    cost = training.timeline.examples(pack.step) + evaluated / TRAINING_PASSES
    value = measured.metrics.get(goal.metric, [[None]])[0][0]
    if value is None or not goal.is_reached(value):
        return None, cost
    return Reached(one, training, pack.step, tuple(kept), cost), cost
