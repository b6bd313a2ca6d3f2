"""How much memory a run will take, found before it begins.

Legend: K trials of a pack, B examples of a batch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.data import Subset

from batchscope.engine.calling import called
from batchscope.engine.evaluate import LATER_PART
from batchscope.engine.pack import initial_state
from batchscope.engine.training import Loaded, Training, losses
from batchscope.plan.sampling import first_trials
from batchscope.plan.timeline import Timeline
from batchscope.seeds import seeded
from batchscope.spec.examples import Examples, Passes
from batchscope.spec.study import Study
from batchscope.spec.trial import by_optimizer
from batchscope.spec.workload import Workload
from batchscope.tensors import Tree, leaves, map_tree, size_of

MiB = 2**20
# What torch loads when a pack is traced for the first time: measured as 150 to 160 MiB with torch 2.13.
TRACING = 150 * MiB
# For every training example its place in the orders of two epochs.
ORDERS = 16
# A pack's state, what a step makes of it, and the stack of the results.
STATES = 3
# The live tensors of one step and one evaluation are measured on so many examples; memory grows linearly with them.
PROBED = (4, 8)


def resident() -> int:
    """Bytes of this process in memory; where that cannot be read, about what the libraries take."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 400 * MiB


@dataclass(frozen=True)
class Demand:
    """What computing a study takes, in bytes.

    Attributes:
        libraries: Of a process before it computes.
        data: The examples in the dtype of the training.
        state: Parameters, buffers and optimizer state of one trial.
        step: For every batch size, what is live within a step of one trial beside its state.
        evaluation: Likewise within an evaluation.
        trials: At every batch size.
        loops: Whether trials are known to be trained one after the other, whatever the pack.
        own: Of a worker's data, what it shares with no other.
    """

    libraries: int
    data: int
    state: int
    step: Mapping[int, int]
    evaluation: int
    trials: int
    loops: bool
    own: int = 0

    def worker(self, batch_size: int, pack_size: int) -> int:
        """The peak of a worker while it advances a pack, without libraries and the data that workers share."""
        at_once = 1 if self.loops else pack_size
        return self.own + STATES * pack_size * self.state + at_once * max(self.step[batch_size], self.evaluation)

    @property
    def held(self) -> int:
        """The states of all trials: all batch sizes advance beside each other."""
        return self.state * self.trials * len(self.step)


def demand(study: Study, workload: Workload, timelines: Mapping[int, Timeline], device: str) -> Demand:
    """Measure the live tensors of one step of a few examples, which takes milliseconds and no memory to speak of."""
    few = _few(workload)
    loaded = Loaded(few, study, torch.device("cpu"))
    trials = first_trials(study.search, study.batch_sizes[0], study.seed, len(study.search.spaces))
    each = [
        (Training(loaded.of(optimizer), study.batch_sizes[0]), trial)
        for optimizer, (trial, *_) in by_optimizer(trials).items()
    ]
    state = max(sum(value.nbytes for value in initial_state(*one).values()) for one in each)
    scale = torch.empty(0, dtype=loaded.dtype).element_size()
    pairs = [pair for pair in (workload.train, workload.validation, workload.test) if isinstance(pair, tuple)]
    tensors = [tensor for pair in pairs for tensor in leaves(pair)]
    data = sum(t.numel() * (scale if t.is_floating_point() else t.element_size()) for t in tensors)
    data += _read_once(loaded, workload)
    raw = sum(tensor.nbytes for tensor in tensors)
    graph = any(training.rule.needs_hessian_diagonal for training, _ in each)
    step, evaluation = _measured(loaded, workload, graph) if device == "cpu" else ((0.0, 0.0), 0)
    largest = {size: _largest_batch(timeline) for size, timeline in timelines.items()}
    loops = study.engine.program == "loop" or loaded.needs_loop is not None
    return Demand(
        libraries=max(resident() - raw, 200 * MiB) + (0 if loops else TRACING),
        data=data,
        state=state if device == "cpu" else 0,
        step={size: int(step[0] + step[1] * batch) for size, batch in largest.items()},
        evaluation=evaluation,
        trials=study.search.count,
        loops=loops,
        own=_own(loaded, workload),
    )


def _read_once(loaded: Loaded, workload: Workload) -> int:
    """Of held-out data sets that are no tensors yet: their examples, beside the tensors that these become."""
    one = sum(tensor.nbytes for tensor in leaves(loaded.validation)) / size_of(loaded.validation)
    sets: list[Any] = [data for data in (workload.validation, workload.test) if not isinstance(data, tuple)]
    return int(2 * one * sum(len(data) for data in sets if hasattr(data, "__len__")))


def _own(loaded: Loaded, workload: Workload) -> int:
    """Of each worker: the orders of epochs, of every replicate, and the training examples that evaluations measure."""
    study, size, sample = loaded.study, workload.train_size, loaded.train_sample
    orders = ORDERS * (1 + study.search.confirm.seeds) * (size or 0)
    if sample is None:
        return orders
    held_out: Any = workload.validation
    known = size_of(held_out) if isinstance(held_out, tuple) else len(held_out) if hasattr(held_out, "__len__") else 0
    count = study.evaluation.train_examples or known
    one = sum(tensor.nbytes for tensor in leaves(sample)) / size_of(sample)
    return orders + int(one * (count if size is None else min(count, size)))


def _measured(loaded: Loaded, workload: Workload, graph: bool) -> tuple[tuple[float, float], int]:
    """Of one trial: bytes live within a step, as (constant, per example), and within an evaluation.

    With ``graph`` the step keeps what a Hessian's diagonal is computed from.
    """
    steps, evaluations = [], []
    with seeded(0):
        for count in PROBED:
            module = loaded.module()
            inputs, targets = loaded.batches(0).take(0, count)
            own = sum(tensor.nbytes for tensor in leaves((inputs, targets)))
            with _LiveBytes() as live:
                loss = losses(loaded.workload, called(module.train(), inputs), targets).mean()
                if graph:
                    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
                    torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
                else:
                    loss.backward()  # type: ignore[no-untyped-call]
                    module.zero_grad()
                del loss
            steps.append(live.peak * (2 if graph else 1) + own)
            with _LiveBytes() as live, torch.no_grad():
                called(module.eval(), inputs)
            evaluations.append(live.peak)
    slope, evaluation = (max(0.0, (values[1] - values[0]) / (PROBED[1] - PROBED[0])) for values in (steps, evaluations))
    data = workload.validation
    part = LATER_PART["cpu"] if workload.loss_per == "example" else workload.evaluation_batch_size
    if isinstance(data, tuple):
        part = min(part, size_of(data))
    return (max(0.0, steps[0] - PROBED[0] * slope), slope), int(evaluations[0] + evaluation * part)


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The most bytes that were live at once, of the tensors that operations inside have made."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch's compiler is imported, which takes a second, to be kept away from the method below

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            for part in _strided(tensor) if isinstance(tensor, torch.Tensor) else ():
                storage = part.untyped_storage()
                self._live[storage._cdata] = StorageWeakRef(storage), storage.nbytes()  # type: ignore[no-untyped-call]
        gone = [place for place, (storage, _) in self._live.items() if storage.expired()]  # type: ignore[no-untyped-call]
        for place in gone:
            del self._live[place]
        self.peak = max(self.peak, sum(size for _, size in self._live.values()))
        return result


def _strided(tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """What holds a tensor's values: itself, or the parts of a sparse one, as the gradient of an embedding may be."""
    if tensor.is_sparse:
        return tensor._indices(), tensor._values()
    return (tensor,) if tensor.layout is torch.strided else ()


def _few(workload: Workload) -> Workload:
    """The workload with as many examples as are measured."""

    def first(tree: Tree) -> Tree:
        return map_tree(lambda tensor: tensor[: PROBED[1]], tree)

    def cut(data: Any) -> Any:
        if isinstance(data, tuple):
            return first(data[0]), first(data[1])
        if isinstance(data, Examples | Passes):
            return data.first(PROBED[1])
        if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
            return Subset(data, range(min(PROBED[1], len(data))))
        return data

    return replace(workload, train=cut(workload.train), validation=cut(workload.validation), test=None)


def _largest_batch(timeline: Timeline) -> int:
    """A batch schedule may end with larger batches than it begins with."""
    last = timeline.last
    return max(timeline.examples(1), timeline.examples(last) - timeline.examples(last - 1))
