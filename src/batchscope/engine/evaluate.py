"""What an evaluation measures: means of the loss and the metrics over the validation examples, taken part by part.

The examples lie in a random order that is keyed by the study's seed, so the first n of them are a random sample. Parts
are the same for every pack, program and evaluation: whether all of them are needed changes no bit of a mean.

Legend: K trials of a pack, N validation examples, B examples of a part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from batchscope.engine.sequential import Sample
from batchscope.engine.training import Training, losses, shape_of
from batchscope.errors import WorkloadError
from batchscope.spec.goal import Goal
from batchscope.spec.workload import Workload
from batchscope.tensors import Pair, Tree, map_pair, size_of

State = dict[str, Tensor]
Accumulators = Mapping[str, Any]
Forward = Callable[[State, Pair, Sequence[Accumulators], int], dict[str, Tensor]]

# Examples in a part. Most evaluations end in one of the first, so they are small.
FIRST_PART, FIRST_PARTS = 64, 2

# On a CPU the activations of a pack should stay near the caches; a GPU wants to be filled.
LATER_PART = {"cpu": 256}
LATER_PART_ELSEWHERE = 1024

# So few examples are taken at once: the calls for parts would cost more than the examples that they might save.
FEW = 1000

# An evaluation may end once so many times the examples of the last decision are there: what many decisions one after
# the other add to the chance of a wrong one is bounded for any number of examples.
MORE_EXAMPLES = 1.125

# How many times as large as needed a state may be before the trials that are left are gathered.
SPARE = 1.25


@dataclass(frozen=True)
class Part:
    """Some validation examples.

    Attributes:
        examples: Inputs and targets, B of them.
        fresh: How many, at the end, belong to no earlier part: parts overlap so that they have few different sizes,
            because a graph is made for one size.
        end: Examples in this part and those before it.
        has_loss: Whether its loss counts; not where a loss for a batch would be of fewer examples than in the others.
    """

    examples: Pair
    fresh: int
    end: int
    has_loss: bool = True


def parts(training: Training, examples: Pair | None = None) -> Iterator[Part]:
    """The validation examples, or others, part by part."""
    examples = training.loaded.validation if examples is None else examples
    workload, count = training.loaded.workload, size_of(examples)
    if workload.loss_per == "batch":
        size = min(workload.evaluation_batch_size, count)
        for start in range(0, count, size):
            end = min(start + size, count)
            yield Part(map_pair(itemgetter(slice(start, end)), examples), end - start, end, end - start == size)
        return
    whole = bool(workload.whole_metrics)
    for start, end, size in _bounds(count, LATER_PART.get(training.loaded.device.type, LATER_PART_ELSEWHERE)):
        begin = start if whole else end - size
        yield Part(map_pair(itemgetter(slice(begin, end)), examples), end - start, end)


def _bounds(count: int, later: int) -> Iterator[tuple[int, int, int]]:
    """(start, end, examples to compute) of every part: one size for the first, one for the others."""
    if count < FEW:
        yield 0, count, count
        return
    first = min(count, FIRST_PART * FIRST_PARTS)
    for start in range(0, first, FIRST_PART):
        yield start, min(start + FIRST_PART, first), min(FIRST_PART, first)
    rest = count - first
    size = math.ceil(rest / math.ceil(rest / later)) if rest else 1
    for start in range(first, count, size):
        yield start, min(start + size, count), max(size, FIRST_PART)


def validation_size(training: Training) -> int:
    """N."""
    return size_of(training.loaded.validation)


def evaluated_size(training: Training) -> int:
    """The examples of an evaluation in full: N, and those of the training data that are measured too."""
    sample = training.loaded.train_sample
    return validation_size(training) + (0 if sample is None else size_of(sample))


def ends_evaluations_early(training: Training) -> bool:
    """Whether evaluations may end before all examples: where study and loss let them, and there are not just a few."""
    averages = training.loaded.workload.loss_per == "example"
    return averages and training.loaded.study.ends_evaluations_early and validation_size(training) >= FEW


def per_example(workload: Workload, outputs: Any, targets: Tree) -> dict[str, Tensor]:
    """Name to (B,) values: ``loss`` and every metric that is an average over examples.

    Raises:
        WorkloadError: If a metric does not give one value per example.
    """
    count = size_of(targets)
    values = {"loss": losses(workload, outputs, targets)}
    if workload.loss_per == "batch":
        values["loss"] = values["loss"].expand(count)
    for name, metric in workload.averages.items():
        value = values[name] = metric(outputs, targets)
        if not isinstance(value, Tensor) or tuple(value.shape) != (count,):
            raise WorkloadError(
                f"the metric {name} must give one value per example, shape ({count},), got {shape_of(value)}; one that "
                "is no average over examples is a factory of torchmetrics metrics, or one by name"
            )
    return values


def evaluate(
    forward: Forward,
    training: Training,
    state: State,
    trials: Sequence[int] | None = None,
    goals: Mapping[int, Sequence[Goal]] | None = None,
    examples: Pair | None = None,
) -> tuple[dict[str, list[float | None]], list[int]]:
    """Means over all validation examples: of ``loss`` and every metric, for the trials that need them.

    Args:
        forward: ``Program.evaluate``.
        training: Whose examples.
        state: Of K trials.
        trials: Those to be evaluated; all if not given.
        goals: For each of them the goals on metrics of these examples that it is watched for: its evaluation ends once
            it is out of reach of them all. If not given, none ends.
        examples: Others than the validation examples.

    Returns:
        Name to K means, None for a trial whose evaluation ended early; and for each trial the examples that it took.
    """
    workload, count = training.loaded.workload, next(iter(state.values())).shape[0]
    total = validation_size(training) if examples is None else size_of(examples)
    needed = {name: value for name, value in state.items() if not name.startswith("slot/")}
    held, left = list(range(count)), list(range(count) if trials is None else trials)
    factories = workload.whole_metrics
    whole = [{name: factory() for name, factory in factories.items()} for _ in range(count)]
    asked = {k: [_of_mean(goal, workload) for goal in own] for k, own in (goals or {}).items()}
    sums = Sums(count, {goal.measure for own in asked.values() for goal in own})
    taken = [0] * count
    own, decided, without_loss = needed, 0, 0
    for part in parts(training, examples):
        if goals is not None and is_due(part.end - part.fresh, decided):
            decided = part.end - part.fresh
            samples = sums.samples(total)
            left = [k for k in left if any(_is_near(goal, samples, k) for goal in asked[k])]
        if not left:
            break
        if SPARE * len(left) < len(held):
            held = left
            where = torch.tensor(held, device=training.loaded.device)
            own = {name: value.index_select(0, where) for name, value in needed.items()}
        accumulators = [whole[k] for k in held] if factories else ()
        values = forward(own, part.examples, accumulators, part.end - part.fresh)
        if not part.has_loss:
            values, without_loss = {**values, "loss": torch.zeros_like(values["loss"])}, part.fresh
        sums.add(values, part.fresh, held)
        for k in left:
            taken[k] = part.end
    counts = {"loss": total - without_loss}
    means = {name: (value / counts.get(name, total)).tolist() for name, value in sums.first.items()}
    means |= {name: [metric.value(mean) for mean in means[metric.of]] for name, metric in workload.of_means.items()}
    means |= {
        name: [float(metrics[name].compute()) if k in left else 0.0 for k, metrics in enumerate(whole)]
        for name in factories
    }
    names = ("loss", *workload.metrics)
    return {name: [means[name][k] if k in left else None for k in range(count)] for name in names}, taken


def _of_mean(goal: Goal, workload: Workload) -> Goal:
    """The goal, or the same on the mean that its metric follows from."""
    metric = workload.of_means.get(goal.measure)
    if metric is None or not math.isfinite(threshold := metric.inverse(goal.threshold)):
        return goal
    return replace(goal, metric=f"{goal.data}/{metric.of}", threshold=threshold)


def is_due(seen: int, decided: int) -> bool:
    """Whether to decide after so many examples, the last time having been after ``decided`` of them."""
    return seen >= MORE_EXAMPLES * decided


def _is_near(goal: Goal, samples: Mapping[str, list[Sample]], k: int) -> bool:
    """Whether trial ``k`` may be beyond a goal, for all that is known."""
    own = samples.get(goal.measure)
    return own is None or not own[k].is_out_of_reach(goal)


class Sums:
    """Float64 sums of K trials' values over the examples so far.

    Attributes:
        first: Name to (K,) sums.
    """

    def __init__(self, trials: int, watched: Collection[str]) -> None:
        """Nothing is summed yet; of the ``watched`` metrics squares and cubes are summed too."""
        self.first: dict[str, Tensor] = {}
        self._trials, self._watched, self._count = trials, watched, 0
        self._powers: dict[str, Tensor] = {}  # (2, K)
        self._binary: dict[str, Tensor] = {}  # (K,)

    def add(self, values: Mapping[str, Tensor], fresh: int, held: Sequence[int]) -> None:
        """Add the ``fresh`` last values of the trials ``held``."""
        self._count += fresh
        for name, value in values.items():
            # Contiguous, so that a row is summed in the same order whatever the number of rows.
            own = value[:, -fresh:].double().contiguous()
            _add(self.first, name, own.sum(1), held, self._trials)
            if name in self._watched:
                square = own * own
                powers = torch.stack([square.sum(1), (square * own).sum(1)])
                _add(self._powers, name, powers, held, self._trials)
                _add(self._binary, name, ((own != 0) & (own != 1)).sum(1), held, self._trials)

    def samples(self, total: int) -> dict[str, list[Sample]]:
        """Name to a sample for each trial, of the watched metrics that are averages; none before the first part."""
        found = {}
        for name, powers in self._powers.items():
            columns = zip(self.first[name].tolist(), *powers.tolist(), self._binary[name].tolist(), strict=True)
            found[name] = [
                Sample(self._count, total, one, two, three, not others) for one, two, three, others in columns
            ]
        return found


def _add(sums: dict[str, Tensor], name: str, own: Tensor, held: Sequence[int], trials: int) -> None:
    if len(held) == trials:
        sums[name] = sums[name] + own if name in sums else own
    else:
        if name not in sums:
            sums[name] = own.new_zeros((*own.shape[:-1], trials))
        where = torch.tensor(held, device=own.device)
        sums[name] = sums[name].index_add(-1, where, own)
