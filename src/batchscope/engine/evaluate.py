"""What a look measures: means of the loss and the metrics over the validation examples, taken part by part.

The examples lie in a random order that is keyed by the study's seed, so the first n of them are a random sample. Parts
are the same for every pack, program and look: whether all of them are needed changes no bit of a mean.

Legend: K trials of a pack, N validation examples, B examples of a part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from batchscope.engine.sequential import Sample
from batchscope.engine.training import Cell
from batchscope.errors import WorkloadError
from batchscope.spec.goal import Goal
from batchscope.spec.workload import Workload
from batchscope.tensors import Pair, Tree, leaves, map_pair

State = dict[str, Tensor]
Accumulators = Mapping[str, Any]
Forward = Callable[[State, Pair, Sequence[Accumulators], int], dict[str, Tensor]]

# Examples in a part. Most looks end in one of the first, so they are small.
FIRST_PART, FIRST_PARTS = 64, 2

# On a CPU the activations of a pack should stay near the caches; a GPU wants to be filled.
LATER_PART = {"cpu": 256}
LATER_PART_ELSEWHERE = 1024

# So few examples are taken at once: the calls for parts would cost more than the examples that they might save.
FEW = 1000

# A look may end once so many times the examples of the last decision are there: what many decisions one after the
# other add to the chance of a wrong one is bounded for any number of examples.
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
    """

    examples: Pair
    fresh: int
    end: int


def parts(cell: Cell) -> Iterator[Part]:
    """The validation examples, part by part."""
    examples = cell.loaded.validation
    count = int(next(leaves(examples)).shape[0])
    whole = not all(map(is_average, cell.loaded.workload.metrics.values()))
    for start, end, size in _bounds(count, LATER_PART.get(cell.loaded.device.type, LATER_PART_ELSEWHERE)):
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


def validation_size(cell: Cell) -> int:
    """N."""
    return int(next(leaves(cell.loaded.validation)).shape[0])


def ends_looks_early(cell: Cell) -> bool:
    """Whether looks may end before all examples: where the study lets them, and there are not just a few."""
    return cell.loaded.study.ends_looks_early and validation_size(cell) >= FEW


def per_example(workload: Workload, outputs: Any, targets: Tree) -> dict[str, Tensor]:
    """Name to (B,) values: ``loss`` and every metric that is an average over examples.

    Raises:
        WorkloadError: If a metric does not give one value per example.
    """
    count = int(next(leaves(targets)).shape[0])
    values = {"loss": workload.loss(outputs, targets)}
    for name, metric in workload.metrics.items():
        if is_average(metric):
            values[name] = metric(outputs, targets)
    for name, value in values.items():
        if tuple(value.shape) != (count,):
            raise WorkloadError(
                f"the metric {name} must give one value per example, shape ({count},), got {tuple(value.shape)}"
            )
    return values


def is_average(metric: Any) -> bool:
    """Whether a metric is a function of one value per example, not a factory of torchmetrics metrics."""
    return not isinstance(metric, type) and not hasattr(metric, "compute") and not hasattr(metric, "func")


def evaluate(
    forward: Forward,
    cell: Cell,
    state: State,
    trials: Sequence[int] | None = None,
    goals: Mapping[int, Sequence[Goal]] | None = None,
) -> tuple[dict[str, list[float | None]], list[int]]:
    """Means over all validation examples: of ``loss`` and every metric, for the trials that need them.

    Args:
        forward: ``Program.evaluate``.
        cell: Whose examples.
        state: Of K trials.
        trials: Those to be evaluated; all if not given.
        goals: For each of them the goals on validation metrics that it is watched for: its evaluation ends once it is
            out of reach of them all. If not given, none ends.

    Returns:
        Name to K means, None for a trial whose evaluation ended early; and for each trial the examples that it took.
    """
    count, total = next(iter(state.values())).shape[0], validation_size(cell)
    needed = {name: value for name, value in state.items() if not name.startswith("slot/")}
    held, left = list(range(count)), list(range(count) if trials is None else trials)
    factories = {name: factory for name, factory in cell.loaded.workload.metrics.items() if not is_average(factory)}
    whole = [{name: factory() for name, factory in factories.items()} for _ in range(count)]
    watched = {goal.metric.removeprefix("validation/") for own in (goals or {}).values() for goal in own}
    sums = Sums(count, watched)
    taken = [0] * count
    own, decided = needed, 0
    for part in parts(cell):
        if goals is not None and is_due(part.end - part.fresh, decided):
            decided = part.end - part.fresh
            samples = sums.samples(total)
            left = [k for k in left if any(_is_near(goal, samples, k) for goal in goals[k])]
        if not left:
            break
        if SPARE * len(left) < len(held):
            held = left
            where = torch.tensor(held, device=cell.loaded.device)
            own = {name: value.index_select(0, where) for name, value in needed.items()}
        accumulators = [whole[k] for k in held] if factories else ()
        sums.add(forward(own, part.examples, accumulators, part.end - part.fresh), part.fresh, held)
        for k in left:
            taken[k] = part.end
    means = {name: (value / total).tolist() for name, value in sums.first.items()}
    means |= {
        name: [float(metrics[name].compute()) if k in left else 0.0 for k, metrics in enumerate(whole)]
        for name in factories
    }
    names = ("loss", *cell.loaded.workload.metrics)
    return {name: [means[name][k] if k in left else None for k in range(count)] for name in names}, taken


def is_due(seen: int, decided: int) -> bool:
    """Whether to decide after so many examples, the last time having been after ``decided`` of them."""
    return seen >= MORE_EXAMPLES * decided


def _is_near(goal: Goal, samples: Mapping[str, list[Sample]], k: int) -> bool:
    """Whether trial ``k`` may be beyond a goal, for all that is known."""
    own = samples.get(goal.metric.removeprefix("validation/"))
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
