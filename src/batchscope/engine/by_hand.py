"""A workload for a training loop of one's own: its model, batches and loss, and what a study measures of it.

What ``recommend --snippet pytorch`` writes trains with it: data, order of examples, loss and metrics are those of a
study; the loop and the optimizer are the script's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from functools import cached_property
from itertools import count
from operator import itemgetter
from pathlib import Path

import torch
from torch import Tensor, nn

from batchscope.engine.batches import Batches, placed, train_sample
from batchscope.engine.calling import called
from batchscope.engine.evaluate import LATER_PART_ELSEWHERE, per_example
from batchscope.engine.training import DTYPES, for_any_loop, losses, smoothed
from batchscope.machine.devices import resolve_device
from batchscope.schedules import SmallLossDiscard
from batchscope.seeds import seeded
from batchscope.spec.examples import as_tensors
from batchscope.spec.goal import Goal
from batchscope.spec.workload import Workload
from batchscope.tensors import Pair, map_pair, size_of
from batchscope.workloads import load


class ByHand:
    """A workload on a device.

    Attributes:
        workload: As it was loaded.
        device: Where it is.
        train_size: Examples in an epoch; None where the data has no end.
    """

    def __init__(
        self,
        workload: Workload | str,
        *,
        seed: int = 0,
        device: str = "auto",
        dtype: str = "float32",
        data_dir: str | Path | None = None,
        metrics: tuple[str, ...] = (),
        train_examples: int | None = None,
    ) -> None:
        """Load the data and place it; a workload that is not there, or fails, is a ``WorkloadError``.

        Args:
            workload: The workload, or its name in a study: ``digits/mlp-64``, ``path/to/file.py:make``.
            seed: Of initial values and of the order of the examples.
            device: ``cpu``, ``cuda``, ``cuda:1``, ...; ``auto`` takes a GPU if there is one.
            dtype: ``float32``, ``float64`` or ``bfloat16``, as in a study.
            data_dir: Where data sets lie; None for ``BATCHSCOPE_DATA`` or the user's cache directory.
            metrics: Further ones by name.
            train_examples: How many goals on training examples are measured on, ``evaluation.train_examples`` of a
                study; None for as many as there are validation examples.
        """
        given = load(workload, data_dir) if isinstance(workload, str) else workload
        self.workload, self._seed = given.measuring(metrics), seed
        self.device, self._dtype, self._low = torch.device(resolve_device(device)), DTYPES[dtype], dtype == "bfloat16"
        validation = as_tensors(self.workload.validation, self.workload.target)
        self._validation: Pair = placed(validation, self._dtype, self.device)
        self._train_examples = train_examples or size_of(self._validation)

    @property
    def train_size(self) -> int | None:
        """Examples in an epoch; None where the data has no end."""
        return self.workload.train_size

    def model(self) -> nn.Module:
        """A fresh model, with the initial values of the seed."""
        with seeded(self._seed):
            module = self.workload.fresh_module()
        return for_any_loop(module, self.device, self._dtype)

    def batches(self, batch_size: int, *, rank: int = 0, ranks: int = 1) -> Iterator[Pair]:
        """Batches of inputs and targets without an end, every example once an epoch.

        Args:
            batch_size: Examples of one process.
            rank: Of this process.
            ranks: Processes that share the examples of an update.
        """
        stream = Batches(self.workload, self._seed, 0, self._dtype, self.device)
        for update in count():
            yield stream.take((update * ranks + rank) * batch_size, batch_size)

    def loss(
        self,
        model: nn.Module,
        batch: Pair,
        *,
        label_smoothing: float = 0.0,
        discard: SmallLossDiscard | None = None,
        epoch: float = 0.0,
    ) -> Tensor:
        """The mean loss of a batch, 0-dim, as a study with these extras computes it at an ``epoch``."""
        inputs, targets = batch
        with self._precision():
            outputs = called(model, inputs)
            found = losses(self.workload, outputs, targets)
            if label_smoothing:
                assert isinstance(targets, Tensor)
                found = smoothed(self.workload.loss, outputs, targets, found, label_smoothing)
        return found.mean() if discard is None else discard.mean(found, torch.tensor(epoch))

    def measure(self, model: nn.Module) -> dict[str, float]:
        """Means over all validation examples, ``{"validation/loss": 0.21, ...}``; the model stays in its mode."""
        return {f"validation/{name}": value for name, value in self._means(model, self._validation).items()}

    def _means(self, model: nn.Module, examples: Pair) -> dict[str, float]:
        was_training, total = model.training, size_of(examples)
        own = self.workload.loss_per == "batch"
        size = min(self.workload.evaluation_batch_size if own else LATER_PART_ELSEWHERE, total)
        whole = {name: factory() for name, factory in self.workload.whole_metrics.items()}
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}
        model.eval()
        with torch.no_grad(), self._precision():
            for start in range(0, total, size):
                inputs, targets = map_pair(itemgetter(slice(start, start + size)), examples)
                outputs = called(model, inputs)
                for name, values in per_example(self.workload, outputs, targets).items():
                    if name != "loss" or not own or len(values) == size:  # a loss of fewer examples is another
                        sums[name] = sums.get(name, 0.0) + float(values.double().sum())
                        counts[name] = counts.get(name, 0) + len(values)
                for metric in whole.values():
                    metric.update(outputs, targets)
        model.train(was_training)
        means = {name: value / counts[name] for name, value in sums.items()}
        means |= {name: metric.value(means[metric.of]) for name, metric in self.workload.of_means.items()}
        return means | {name: float(metric.compute()) for name, metric in whole.items()}

    def reached(self, model: nn.Module, goal: str | Goal) -> bool:
        """Whether a model is beyond a goal, on the validation examples or on a study's sample of the training ones."""
        goal = Goal.parse(goal) if isinstance(goal, str) else goal
        examples = self._train_sample if goal.data == "train" else self._validation
        return goal.is_reached(self._means(model, examples)[goal.measure])

    @cached_property
    def _train_sample(self) -> Pair:
        return train_sample(self.workload, self._train_examples, self._dtype, self.device)

    def _precision(self) -> nullcontext[None] | torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16) if self._low else nullcontext()
