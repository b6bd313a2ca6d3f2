"""What a look measures: means of the loss and the metrics over the validation examples, taken part by part.

The examples lie in a random order that is keyed by the study's seed, so the first n of them are a random sample. Parts
are the same for every pack, program and look: whether all of them are needed changes no bit of a mean.

Legend: K trials of a pack, N validation examples, B examples of a part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from batchscope.engine.training import Cell
from batchscope.errors import WorkloadError
from batchscope.spec.workload import Workload
from batchscope.tensors import Pair, Tree, leaves, map_pair

State = dict[str, Tensor]
Accumulators = Mapping[str, Any]
Forward = Callable[[State, Pair, Sequence[Accumulators]], dict[str, Tensor]]

# Ends of the first parts. Most looks end in one of them, so they are small.
FIRST_PARTS = (64, 128, 256)

# Examples in a later part. On a CPU the activations of a pack should stay near the caches; a GPU wants to be filled.
LATER_PART = {"cpu": 256}
LATER_PART_ELSEWHERE = 1024

# How many times as large as needed a state may be before the trials that are left are gathered.
SPARE = 1.5


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
    """(start, end, examples to compute) of every part."""
    start = 0
    for end in FIRST_PARTS:
        if start < count:
            size = min(end - start, count)
            yield start, min(end, count), size
            start = min(end, count)
    rest = count - start
    size = math.ceil(rest / math.ceil(rest / later)) if rest else 1
    for begin in range(start, count, size):
        end = min(begin + size, count)
        yield begin, end, max(size, FIRST_PARTS[0])


def validation_size(cell: Cell) -> int:
    """N."""
    return int(next(leaves(cell.loaded.validation)).shape[0])


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


def evaluate(forward: Forward, cell: Cell, state: State) -> dict[str, Tensor]:
    """Name to (K,) float64 means over all validation examples: ``loss`` and every metric.

    Args:
        forward: ``Program.evaluate``.
        cell: Whose examples.
        state: Of K trials.
    """
    trials = next(iter(state.values())).shape[0]
    factories = {name: factory for name, factory in cell.loaded.workload.metrics.items() if not is_average(factory)}
    whole = [{name: factory() for name, factory in factories.items()} for _ in range(trials)]
    sums: dict[str, Tensor] = {}
    for part in parts(cell):
        for name, values in forward(state, part.examples, whole).items():
            # Contiguous, so that a row is summed in the same order whatever the number of rows.
            own = values[:, -part.fresh :].double().contiguous().sum(1)
            sums[name] = sums[name] + own if name in sums else own
    means = {name: value / validation_size(cell) for name, value in sums.items()}
    return means | {
        name: torch.stack([torch.as_tensor(own[name].compute()).double() for own in whole]) for name in factories
    }
