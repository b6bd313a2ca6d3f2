"""The pack program: K trials in one graph of batched operations.

``torch.func.vmap`` makes one trial's step a step of K trials, and tracing takes the transformed step apart into a flat
graph of tensor operations. Running that graph gives the same bits as running vmap, without the Python between.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.fx import Graph as FxGraph
from torch.fx.experimental.proxy_tensor import make_fx

from batchscope.engine.evaluate import is_average, per_example, validation_chunks
from batchscope.engine.pack import State, slots_of
from batchscope.engine.program import Program
from batchscope.engine.randomness import seed_step
from batchscope.engine.training import Cell, Settings, batch_loss
from batchscope.errors import WorkloadError
from batchscope.optim.hutchinson import gradient_and_hessian_diagonal
from batchscope.tensors import Tree, leaves, under_prefix

Graph = Callable[..., Any]

# How many times as large as needed a pack may be before a graph of its own size is worth making.
SPARE = 1.5


class Vmap(Program):
    """All trials of a pack at once."""

    name = "vmap"

    def __init__(self, cell: Cell) -> None:
        """Build the module whose structure is called with stacked values.

        Raises:
            WorkloadError: If a metric is no average over examples; such metrics need the loop.
        """
        super().__init__(cell)
        for name, metric in cell.loaded.workload.metrics.items():
            if not is_average(metric):
                raise WorkloadError(f"the metric {name} is no average over examples, which a pack needs")
        self._module = cell.loaded.module()
        self._graphs: dict[tuple[object, ...], Graph] = {}
        self._sizes: set[int] = set()

    def train(self, state: State, settings: Settings, start: int, until: int) -> tuple[State, Tensor]:
        """Advance all trials at once, step by step."""
        cell, rule = self.cell, self.cell.rule
        count, fill = self._fill(state)
        state, rates = fill(state), fill({"": settings.learning_rates(start, until).T})[""].T
        settled = fill(settings.hyper)
        steps = range(start, until)
        clock = [[step + 1, cell.timeline.epoch(step)] for step in steps]
        clocks = torch.tensor(clock, dtype=torch.float64).to(rates.device)
        parameters, buffers = under_prefix("parameter", state), under_prefix("buffer", state)
        one = {name: value[0] for name, value in parameters.items()}
        slots = slots_of(state, rule.slots)
        total = torch.zeros(rates.shape[1], dtype=torch.float64, device=rates.device)
        self._module.train()
        with torch.no_grad():
            for i, step in enumerate(steps):
                inputs, targets = cell.batch(step)
                hyper = {**settled, "learning_rate": rates[i]}
                probes = cell.probes(step, one)
                arguments = (parameters, buffers, slots, hyper, clocks[i], inputs, targets, probes)
                graph = self._graph("train", self._step, (0, 0, 0, 0, None, None, None, None), arguments)
                seed_step(cell, step)
                parameters, buffers, slots, loss = graph(*arguments)
                total += loss
        flat = {f"parameter/{name}": value for name, value in parameters.items()}
        flat |= {f"slot/{slot}/{name}": value for name, own in slots.items() for slot, value in own.items()}
        flat |= {f"buffer/{name}": value for name, value in buffers.items()}
        return {name: value[:count] for name, value in flat.items()}, total[:count]

    def evaluate(self, state: State) -> dict[str, Tensor]:
        """One forward pass for the whole pack and a chunk of the validation examples."""
        trials, fill = self._fill(state)
        state = fill(state)
        parameters, buffers = under_prefix("parameter", state), under_prefix("buffer", state)
        self._module.eval()
        sums: dict[str, Tensor] = {}
        count = 0
        with torch.no_grad():
            for inputs, targets in validation_chunks(self.cell):
                arguments = (parameters, buffers, inputs, targets)
                graph = self._graph("evaluate", self._measure, (0, 0, None, None), arguments)
                for name, value in graph(*arguments).items():
                    sums[name] = sums[name] + value if name in sums else value
                count += int(next(leaves(targets)).shape[0])
        return {name: value[:trials] / count for name, value in sums.items()}

    def _fill(self, state: State) -> tuple[int, Callable[[State], State]]:
        """The number of trials, and what fills them up with copies of the last one to a size that was traced before.

        Packs shrink as trials end. A graph is made for one size, and making one takes as long as many steps.
        """
        count = next(iter(state.values())).shape[0]
        size = min((size for size in self._sizes if count <= size <= SPARE * count), default=count)
        self._sizes.add(size)
        if size == count:
            return count, lambda values: values
        where = torch.arange(size, device=self.cell.loaded.device).clamp_max(count - 1)
        return count, lambda values: {name: value.index_select(0, where) for name, value in values.items()}

    def _step(
        self,
        parameters: State,
        buffers: State,
        slots: dict[str, State],
        hyper: State,
        clock: Tensor,
        inputs: Tree,
        targets: Tree,
        probes: State,
    ) -> tuple[State, State, dict[str, State], Tensor]:
        """One step of one trial."""
        rule = self.cell.rule

        def objective(parameters: State) -> tuple[Tensor, tuple[Tensor, State]]:
            # Buffers that the module changes in place must belong to the transform that differentiates.
            changed = {name: value.clone() for name, value in buffers.items()}
            outputs = functional_call(self._module, (parameters, changed), (inputs,))
            loss = batch_loss(self.cell, outputs, targets, hyper, clock[1])
            return loss, (loss, changed)

        differentiate = grad(objective, has_aux=True)
        diagonal: State = {}
        if rule.needs_hessian_diagonal:
            gradients, diagonal, (loss, buffers) = gradient_and_hessian_diagonal(differentiate, parameters, probes)
        else:
            gradients, (loss, buffers) = differentiate(parameters)
        moved, kept = {}, {}
        for name, value in parameters.items():
            curvature = (diagonal[name],) if diagonal else ()
            count = clock[0].to(value.dtype)
            moved[name], kept[name] = rule.update(value, gradients[name], slots[name], count, hyper, *curvature)
        return moved, buffers, kept, loss

    def _measure(self, parameters: State, buffers: State, inputs: Tree, targets: Tree) -> dict[str, Tensor]:
        outputs = functional_call(self._module, (parameters, buffers), (inputs,))
        values = per_example(self.cell.loaded.workload, outputs, targets)
        return {name: value.double().sum() for name, value in values.items()}

    def _graph(self, kind: str, function: Graph, in_dims: tuple[int | None, ...], arguments: tuple[Any, ...]) -> Graph:
        """The traced form of a vmapped function for arguments of these shapes."""
        shapes = tuple(tuple(tensor.shape) for tensor in leaves(arguments))
        if (kind, shapes) not in self._graphs:
            batched = vmap(function, in_dims=in_dims, randomness="same")
            self._graphs[kind, shapes] = _traced(batched, arguments)
        return self._graphs[kind, shapes]


def _traced(function: Graph, arguments: tuple[Any, ...]) -> Graph:
    """The flat graph of a function's tensor operations.

    Raises:
        WorkloadError: If the function draws from Python's or numpy's random numbers, which a graph would freeze.
    """
    before = random.getstate(), repr(np.random.get_state())
    graph = make_fx(lambda *given: function(*given))(*arguments)
    if (random.getstate(), repr(np.random.get_state())) != before:
        raise WorkloadError("the model draws from Python's or numpy's random numbers, which a pack would freeze")
    _keep_trials_apart(graph.graph)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _keep_trials_apart(graph: FxGraph) -> None:
    """Turn products of all trials' rows with a shared matrix into one product for each trial.

    vmap folds (K, H, B) @ (B, D) to one product of K H rows, and how a library rounds a row can depend on how many
    rows there are: a trial's result would depend on its pack. A batched product treats every trial alike.
    """
    aten = torch.ops.aten
    for node in list(graph.nodes):
        if node.target is not aten.mm.default:
            continue
        left, right = node.args
        apart = left.args[0] if left.target in (aten.view.default, aten._unsafe_view.default) else None
        if apart is None or apart.meta["tensor_meta"].shape[:-2] == () or len(apart.meta["tensor_meta"].shape) != 3:
            continue
        trials, rows, _ = apart.meta["tensor_meta"].shape
        columns = node.meta["tensor_meta"].shape[1]
        with graph.inserting_before(node):
            shared = graph.call_function(aten.unsqueeze.default, (right, 0))
            copies = graph.call_function(aten.expand.default, (shared, [trials, -1, -1]))
            product = graph.call_function(aten.bmm.default, (apart, copies))
            flat = graph.call_function(aten.reshape.default, (product, [trials * rows, columns]))
        node.replace_all_uses_with(flat)
