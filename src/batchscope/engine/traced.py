"""One trial's step and evaluation as functions of tensors, which graphs are traced from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, grad
from torch.fx import GraphModule

from batchscope.engine.calling import arguments
from batchscope.engine.evaluate import per_example
from batchscope.engine.graphs import Graph, captured_in_place, traced
from batchscope.engine.habits import habits
from batchscope.engine.pack import State
from batchscope.engine.program import Program
from batchscope.engine.training import Training, batch_loss, clipped
from batchscope.errors import WorkloadError
from batchscope.hutchinson import gradient_and_hessian_diagonal
from batchscope.tensors import Tree, leaves

InPlace = Callable[[GraphModule, tuple[Any, ...], Sequence[int]], Graph]
Objective = Callable[[State], tuple[Tensor, tuple[Tensor, State]]]


class Traced(Program):
    """A program that runs flat graphs of tensor operations, one for every combination of shapes.

    Where torch has one kernel for the rule's update, the graph ends with the gradients and each trial's numbers are
    updated in place; else the update is part of the graph. As machine code, or a CUDA graph, the whole step is one.
    """

    def __init__(self, training: Training, *, in_place: InPlace | None = None) -> None:
        """Build the module whose structure is called with the trials' values.

        Args:
            training: What is trained.
            in_place: What makes one piece of a whole step, ``compiled_in_place`` or ``captured_in_place``; None runs
                the graph operation by operation.

        Raises:
            WorkloadError: If the workload needs the loop, or its code does what no graph can hold; or if the device is
                wrong.
        """
        super().__init__(training)
        if reason := training.loaded.needs_loop:
            raise WorkloadError(f"{reason}, which needs engine.program: loop")
        if unfit := habits(training.loaded).unfit:
            raise WorkloadError(unfit)
        self._module = training.loaded.module()
        if in_place is captured_in_place and training.loaded.device.type != "cuda":
            raise WorkloadError("captured needs a CUDA device; write engine.program: vmap, or compiled")
        self._in_place = in_place
        self._kernel = in_place is None and training.rule.has_kernel(training.loaded.device)
        self._graphs: dict[tuple[object, ...], Graph] = {}

    def _set_training(self, mode: bool) -> None:
        if self._module.training != mode:  # the walk through its parts costs as much as some operations
            self._module.train(mode)

    def _clocks(self, steps: Sequence[int]) -> Tensor:
        """(T, 2) in float64: updates counted from 1, and epochs seen before."""
        rows = [[step + 1, self.training.timeline.epoch(step)] for step in steps]
        return torch.tensor(rows, dtype=torch.float64).to(self.training.loaded.device)

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

    def _graph(
        self,
        kind: str,
        function: Graph,
        arguments: tuple[Any, ...],
        graphs: dict[tuple[object, ...], Graph] | None = None,
    ) -> Graph:
        """The traced form of a function for arguments of these shapes; that of a step is in one piece where asked."""
        graphs = self._graphs if graphs is None else graphs
        shapes = tuple(tuple(tensor.shape) for tensor in leaves(arguments))
        if (kind, shapes) not in graphs:
            graph = traced(function, arguments)
            whole = self._in_place if kind == "train" else None
            graphs[kind, shapes] = whole(graph, arguments, (0, 1, 2)) if whole else graph
        return graphs[kind, shapes]
