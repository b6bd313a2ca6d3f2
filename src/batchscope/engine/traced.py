"""One trial's step and evaluation as functions of tensors, and the flat graphs that are traced from them.

The graphs are those of a single trial, or of a pack: ``torch.func.vmap`` makes one trial's step a step of K trials, and
tracing takes the transformed step apart into batched operations. Running a graph gives the same bits as running what it
was traced from, without the Python between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from batchscope.engine.calling import arguments
from batchscope.engine.evaluate import per_example
from batchscope.engine.graphs import Graph, compiled_in_place, tensors, traced
from batchscope.engine.habits import habits
from batchscope.engine.pack import State, kept, slots_of, trained
from batchscope.engine.randomness import seed_part, seed_step
from batchscope.engine.training import Training, batch_loss, clipped
from batchscope.errors import WorkloadError
from batchscope.hutchinson import gradient_and_hessian_diagonal
from batchscope.optim.rule import laid_out_as
from batchscope.tensors import Pair, Tree, leaves, under_prefix

Objective = Callable[[State], tuple[Tensor, tuple[Tensor, State]]]


@dataclass(frozen=True)
class Values:
    """What steps overwrite and read: of one trial, or, with a leading K on every tensor, of a pack.

    Attributes:
        parameters: By name, in the module's order, in memory that no one else has, as buffers and slots.
        buffers: Likewise.
        slots: Parameter name to the rule's state.
        hyper: The hyperparameters, of which ``learning_rate`` is that of the step at hand.
        clock: (2,) in float64: updates counted from 1, and epochs seen before.
        members: In a pack, how many of its first trials count, where it is filled up; None for one trial.
    """

    parameters: State
    buffers: State
    slots: dict[str, State]
    hyper: State
    clock: Tensor
    members: int | None = None
    _graphs: dict[tuple[torch.Size, ...], Graph] = field(default_factory=dict)

    @property
    def arguments(self) -> tuple[State, State, dict[str, State], State, Tensor]:
        """The first of a step."""
        return self.parameters, self.buffers, self.slots, self.hyper, self.clock

    @cached_property
    def fixed(self) -> list[Tensor]:
        """The tensors of ``arguments``, which stay the same, whatever their values."""
        return tensors(self.arguments)

    @cached_property
    def single(self) -> State:
        """The parameters of one trial."""
        return self.parameters if self.members is None else {name: own[0] for name, own in self.parameters.items()}

    @cached_property
    def trials(self) -> list[tuple[list[Tensor], dict[str, list[Tensor]], dict[str, float]]]:
        """Parameters, slots and hyperparameters of every trial that counts, as views and numbers."""
        parameters = self.apart(list(self.parameters.values()))
        names = next(iter(self.slots.values()), {})
        slots = {name: self.apart([own[name] for own in self.slots.values()]) for name in names}
        columns = {name: value.reshape(-1).tolist() for name, value in self.hyper.items()}
        return [
            (
                own,
                {name: slot[k] for name, slot in slots.items()},
                {name: column[k] for name, column in columns.items()},
            )
            for k, own in enumerate(parameters)
        ]

    def apart(self, stacked: list[Tensor]) -> list[list[Tensor]]:
        """Tensors like the parameters as one list for every trial that counts."""
        if self.members is None:
            return [stacked]
        return [list(own) for own in zip(*(tensor.unbind() for tensor in stacked), strict=True)][: self.members]


class Traced:
    """Flat graphs of a workload's step and evaluation, one for every combination of shapes.

    Where torch has one kernel for the rule's update, the graph ends with the gradients and each trial's numbers are
    updated by it; else the update is part of the graph. As machine code the whole step is one piece.
    """

    def __init__(self, training: Training, *, packed: bool, compiled: bool) -> None:
        """Build the module whose structure is called with the trials' values; nothing is traced yet.

        Args:
            training: What is trained.
            packed: Whether graphs are those of packs; of single trials otherwise.
            compiled: Whether a step is machine code.

        Raises:
            WorkloadError: If the workload needs the loop, or its code does what no graph can hold.
        """
        if reason := training.loaded.needs_loop:
            raise WorkloadError(f"{reason}, which needs engine.program: loop")
        if unfit := habits(training.loaded).unfit:
            raise WorkloadError(unfit)
        self.training, self._packed, self._compiled = training, packed, compiled
        self._module = training.loaded.module()
        self._kernel = not compiled and training.rule.has_kernel(training.loaded.device)
        self._order = {name: i for i, name in enumerate([*trained(self._module), *kept(self._module)])}
        self._graphs: dict[tuple[object, ...], Graph] = {}
        each = of_each if packed else lambda function, own, shared: function
        self._gradients_of_each = each(self._gradients, 3, 3)
        self._step_of_each = each(self._step, 4, 4)
        self._measure_of_each = each(self._measure, 2, 2)

    def values(self, state: State, hyper: State, members: int | None = None) -> Values:
        """What steps work on, from a state that they may overwrite.

        A file of a checkpoint gives tensors back in an order of its own, and a norm over them would round otherwise.
        """
        parameters, buffers, slots = self._ordered(state, "parameter"), self._ordered(state, "buffer"), slots_of(state)
        slots = {name: dict(sorted(slots[name].items())) for name in parameters}
        hyper = {**hyper, "learning_rate": torch.empty_like(hyper["learning_rate"])}
        clock = torch.empty(2, dtype=torch.float64, device=hyper["learning_rate"].device)
        return Values(parameters, buffers, slots, hyper, clock, members)

    def clocks(self, start: int, until: int) -> Tensor:
        """(T, 2) in float64: updates counted from 1, and epochs seen before."""
        rows = [[step + 1, self.training.timeline.epoch(step)] for step in range(start, until)]
        return torch.tensor(rows, dtype=torch.float64).to(self.training.loaded.device)

    def advance(
        self, values: Values, training: Training, step: int, batch: Pair, rate: Tensor, clock: Tensor
    ) -> Tensor:
        """Make one update in place.

        Args:
            values: Of a trial or a pack.
            training: Of the trials' replicate.
            step: 0-based.
            batch: Of the step.
            rate: 0-dim, of a pack (K,): learning rates.
            clock: The step's row of ``clocks``.

        Returns:
            The batch's mean loss, 0-dim, of a pack (K,).
        """
        self._set_training(True)
        values.hyper["learning_rate"].copy_(rate)
        values.clock.copy_(clock)
        loss: Tensor
        if self._kernel:
            given = (values.parameters, values.buffers, values.hyper, values.clock, *batch)
            graph = self._graph(self._gradients_of_each, given, values, batch)
            seed_step(training, step)  # after tracing, which draws random numbers too
            gradients, buffers, loss = graph(*given)
            _overwrite(values.buffers, buffers)
            self._update(values, gradients, step + 1)
            return loss
        changing = (*batch, training.probes(step, values.single))
        graph = self._graph(self._step_of_each, (*values.arguments, *changing), values, changing)
        seed_step(training, step)
        if self._compiled:  # a small step is so short that a walk through nested arguments would take as long
            (loss,) = graph(*values.fixed, *tensors(changing))
            return loss
        parameters, buffers, slots, loss = graph(*values.arguments, *changing)
        _overwrite(values.parameters, parameters)
        _overwrite(values.buffers, buffers)
        for name, own in values.slots.items():
            _overwrite(own, slots[name])
        return loss

    def measure(self, state: State, examples: Pair, place: int) -> State:
        """Name to (B,) values of validation examples, of a pack (K, B); arguments as for ``Program.evaluate``."""
        given = (self._ordered(state, "parameter"), self._ordered(state, "buffer"), *examples)
        self._set_training(False)
        # An evaluation is the same at every batch size: its graphs are the workload's.
        graphs, key = self.training.loaded.graphs, (self._packed, *_shapes(given))
        if key not in graphs:
            graphs[key] = traced(self._measure_of_each, given)
        seed_part(self.training, place)
        found: State = graphs[key](*given)
        return found

    def _set_training(self, mode: bool) -> None:
        if self._module.training != mode:  # the walk through its parts costs as much as some operations
            self._module.train(mode)

    def _graph(self, function: Graph, given: tuple[Any, ...], values: Values, changing: Any) -> Graph:
        """The traced form of an update; of its arguments only the last change their shapes from step to step."""
        near = tuple(tensor.shape for tensor in tensors(changing))
        if near not in values._graphs:
            shapes = _shapes(given)
            if shapes not in self._graphs:
                graph = traced(function, given)
                self._graphs[shapes] = compiled_in_place(graph, given, (0, 1, 2)) if self._compiled else graph
            values._graphs[near] = self._graphs[shapes]
        return values._graphs[near]

    def _update(self, values: Values, gradients: State, step: int) -> None:
        """Let the rule's kernel update every trial; ``step`` counts from 1."""
        apart = values.apart([gradients[name] for name in values.parameters])
        rates: list[float] = values.hyper["learning_rate"].reshape(-1).tolist()
        for (parameters, slots, hyper), own, rate in zip(values.trials, apart, rates, strict=False):
            along = list(map(laid_out_as, parameters, own))
            self.training.rule.update_in_place(parameters, along, slots, step, {**hyper, "learning_rate": rate})

    def _ordered(self, state: State, kind: str) -> State:
        found = under_prefix(kind, state)
        return {name: found[name] for name in sorted(found, key=self._order.__getitem__)}

    def _loss(self, buffers: State, hyper: State, clock: Tensor, inputs: Tree, targets: Tree) -> Objective:
        """The loss of one trial as a function of its parameters, with the loss and the new buffers beside it."""

        def objective(parameters: State) -> tuple[Tensor, tuple[Tensor, State]]:
            # Buffers that the module changes in place must belong to the transform that differentiates.
            changed = {name: value.clone() for name, value in buffers.items()}
            with self.training.loaded.precision():
                outputs = functional_call(self._module, (parameters, changed), *arguments(self._module, inputs))
                loss = batch_loss(self.training, outputs, targets, hyper, clock[1])
            return loss, (loss, changed)

        return objective

    def _gradients(
        self, parameters: State, buffers: State, hyper: State, clock: Tensor, inputs: Tree, targets: Tree
    ) -> tuple[State, State, Tensor]:
        """Gradients, new buffers and loss of one trial."""
        objective = self._loss(buffers, hyper, clock, inputs, targets)
        gradients, (loss, buffers) = grad(objective, has_aux=True)(parameters)
        return clipped(self.training, gradients, hyper), buffers, loss

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
        rule = self.training.rule
        differentiate = grad(self._loss(buffers, hyper, clock, inputs, targets), has_aux=True)
        diagonal: State = {}
        if rule.needs_hessian_diagonal:
            gradients, diagonal, (loss, buffers) = gradient_and_hessian_diagonal(differentiate, parameters, probes)
        else:
            gradients, (loss, buffers) = differentiate(parameters)
        gradients = clipped(self.training, gradients, hyper)
        moved, kept = {}, {}
        for name, value in parameters.items():
            curvature = (diagonal[name],) if diagonal else ()
            count = clock[0].to(value.dtype)
            moved[name], kept[name] = rule.update(value, gradients[name], slots[name], count, hyper, *curvature)
        return moved, buffers, kept, loss

    def _measure(self, parameters: State, buffers: State, inputs: Tree, targets: Tree) -> dict[str, Tensor]:
        with self.training.loaded.precision():
            outputs = functional_call(self._module, (parameters, buffers), *arguments(self._module, inputs))
            return per_example(self.training.loaded.workload, outputs, targets)


def of_each(function: Graph, own: int, shared: int) -> Graph:
    """A function of one trial as one of a pack: the first arguments are each trial's own, the last are shared."""
    return vmap(function, in_dims=(0,) * own + (None,) * shared, randomness="same")


def _shapes(given: tuple[Any, ...]) -> tuple[torch.Size, ...]:
    return tuple(tensor.shape for tensor in leaves(given))


def _overwrite(values: State, new: State) -> None:
    if values:
        torch._foreach_copy_(list(values.values()), [new[name] for name in values])
