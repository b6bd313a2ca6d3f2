"""Means of the loss and the metrics over the validation examples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from batchscope.engine.training import Cell
from batchscope.errors import WorkloadError
from batchscope.spec.workload import Workload
from batchscope.tensors import Pair, Tree, leaves, map_pair

# Examples in one forward pass of an evaluation: the activations of a pack stay near the caches.
CHUNK = 1000


def validation_chunks(cell: Cell) -> Iterator[Pair]:
    """The validation examples, ``CHUNK`` at a time."""
    examples = cell.loaded.validation
    for start in range(0, int(next(leaves(examples)).shape[0]), CHUNK):
        yield map_pair(itemgetter(slice(start, start + CHUNK)), examples)


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


def means_of(cell: Cell, model: Callable[[Tree], Any], chunks: Iterable[Pair]) -> dict[str, Tensor]:
    """Name to a 0-dim float64 mean over all examples of the chunks."""
    workload = cell.loaded.workload
    sums: dict[str, Tensor] = {}
    count = 0
    whole = {name: factory() for name, factory in workload.metrics.items() if not is_average(factory)}
    for inputs, targets in chunks:
        outputs = model(inputs)
        count += int(next(leaves(targets)).shape[0])
        for name, values in per_example(workload, outputs, targets).items():
            sums[name] = (
                sums.get(name, torch.zeros((), dtype=torch.float64, device=values.device)) + values.double().sum()
            )
        for metric in whole.values():
            metric.update(outputs, targets)
    means = {name: value / count for name, value in sums.items()}
    return means | {name: torch.as_tensor(metric.compute()).double() for name, metric in whole.items()}
