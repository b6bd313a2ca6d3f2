"""One trial after the other, each step as a flat graph: no autograd and no module between the operations.

A trial's numbers stay in the caches for as many steps as the batches that are ready, which a pack's do not; images and
the weights of convolutions lie in memory pixel by pixel; and as machine code the gradients of a layer go straight into
its update.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from batchscope.engine.evaluate import Accumulators
from batchscope.engine.graphs import Graph, tensors
from batchscope.engine.loop import channels_last
from batchscope.engine.pack import State, slots_of
from batchscope.engine.randomness import seed_part, seed_step
from batchscope.engine.traced import InPlace, Traced
from batchscope.engine.training import Settings, Training
from batchscope.optim.rule import laid_out_as
from batchscope.tensors import Pair, leaves, map_tree, under_prefix

# Batches that are ready at once: beside a trial's numbers, they should not take the caches.
READY_BYTES = 8 << 20


class Alone(Traced):
    """Every trial by itself: what it computes cannot depend on its pack, which only shares the batches."""

    def __init__(self, training: Training, *, in_place: InPlace | None = None) -> None:
        """Nothing is traced yet; arguments and errors are those of ``Traced``."""
        super().__init__(training, in_place=in_place)
        self._pieces: dict[tuple[torch.Size, ...], Graph] = {}

    def train(self, state: State, settings: Settings, start: int, until: int) -> tuple[State, Tensor]:
        """Advance the trials one after the other, some steps at a time."""
        # What follows happens in place, in memory that no one else has.
        state = {name: _by_pixel(value) for name, value in state.items()}
        rates, clocks = settings.learning_rates(start, until), self._clocks(range(start, until))
        trials = [_Trial.of(state, settings, k) for k in range(rates.shape[1])]
        total = torch.zeros(rates.shape[1], dtype=torch.float64, device=rates.device)
        advance = self._advance_in_one_piece if self._in_place else self._advance
        self._set_training(True)
        with torch.no_grad():
            for block in self._blocks(start, until):
                for k, trial in enumerate(trials):
                    for step, batch in block:
                        trial.rate.copy_(rates[step - start, k])
                        trial.clock.copy_(clocks[step - start])
                        total[k] += advance(trial, step, batch)
        return {name: value.contiguous() for name, value in state.items()}, total

    def evaluate(
        self, state: State, examples: Pair, whole: Sequence[Accumulators] = (), place: int = 0
    ) -> dict[str, Tensor]:
        """One forward pass for every trial."""
        self._set_training(False)
        rows: list[State] = []
        inputs, targets = map_tree(channels_last, examples[0]), examples[1]
        with torch.no_grad():
            for k in range(next(iter(state.values())).shape[0]):
                own = {name: value[k] for name, value in state.items()}
                arguments = (under_prefix("parameter", own), under_prefix("buffer", own), inputs, targets)
                graph = self._graph("evaluate alone", self._measure, arguments, self.training.loaded.graphs)
                seed_part(self.training, place)
                rows.append(graph(*arguments))
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def _advance(self, trial: _Trial, step: int, batch: Pair) -> Tensor:
        """One update; returns the loss."""
        parameters, slots = trial.parameters, trial.slots
        if self._kernel:
            differentiated = (parameters, trial.buffers, trial.hyper, trial.clock, *batch)
            graph = self._graph("gradients", self._gradients, differentiated)
            seed_step(self.training, step)  # after tracing, which draws random numbers too
            gradients, buffers, loss = graph(*differentiated)
            rule = self.training.rule
            kept = {slot: [slots[name][slot] for name in parameters] for slot in rule.slots}
            along = [laid_out_as(parameter, gradients[name]) for name, parameter in parameters.items()]
            numbers = {**trial.numbers, "learning_rate": float(trial.rate)}
            rule.update_in_place(list(parameters.values()), along, kept, step + 1, numbers)
            _overwrite(trial.buffers, buffers)
            return loss  # type: ignore[no-any-return]
        arguments = (*trial.arguments, *batch, self.training.probes(step, parameters))
        graph = self._graph("train", self._step, arguments)
        seed_step(self.training, step)
        moved, buffers, changed, loss = graph(*arguments)
        _overwrite(parameters, moved)
        _overwrite(trial.buffers, buffers)
        for name, own in slots.items():
            _overwrite(own, changed[name])
        return loss  # type: ignore[no-any-return]

    def _advance_in_one_piece(self, trial: _Trial, step: int, batch: Pair) -> Tensor:
        """The same; a small step is so short that looking at every tensor each time would take as long."""
        changing = (*batch, self.training.probes(step, trial.parameters))
        flat = tensors(changing)
        shapes = tuple(tensor.shape for tensor in flat)
        if shapes not in self._pieces:
            self._pieces[shapes] = self._graph("train", self._step, (*trial.arguments, *changing))
        seed_step(self.training, step)
        (loss,) = self._pieces[shapes](*trial.fixed, *flat)
        return loss  # type: ignore[no-any-return]

    def _blocks(self, start: int, until: int) -> Iterator[list[tuple[int, Pair]]]:
        """Steps with their batches, as many as may be ready at once."""
        block: list[tuple[int, Pair]] = []
        held = 0
        for step in range(start, until):
            inputs, targets = self.training.batch(step)
            batch = map_tree(channels_last, inputs), targets
            held += sum(tensor.nbytes for tensor in leaves(batch))
            block.append((step, batch))
            if held > READY_BYTES:
                yield block
                block, held = [], 0
        if block:
            yield block


@dataclass(frozen=True)
class _Trial:
    """One trial of a pack: views into its tensors, which are overwritten, and its hyperparameters."""

    parameters: State
    buffers: State
    slots: dict[str, State]
    hyper: State
    clock: Tensor

    @classmethod
    def of(cls, state: State, settings: Settings, k: int) -> _Trial:
        """The ``k``-th of a pack; learning rate and clock have no value yet."""
        own = {name: value[k] for name, value in state.items()}
        hyper = {name: value[k] for name, value in settings.hyper.items()}
        hyper["learning_rate"] = torch.empty_like(hyper["learning_rate"])
        clock = torch.empty(2, dtype=torch.float64, device=hyper["learning_rate"].device)
        return cls(under_prefix("parameter", own), under_prefix("buffer", own), slots_of(own), hyper, clock)

    @property
    def rate(self) -> Tensor:
        """Of the step at hand."""
        return self.hyper["learning_rate"]

    @property
    def arguments(self) -> tuple[State, State, dict[str, State], State, Tensor]:
        """The first of a step."""
        return self.parameters, self.buffers, self.slots, self.hyper, self.clock

    @cached_property
    def fixed(self) -> list[Tensor]:
        """The tensors of ``arguments``, which stay the same, whatever their values."""
        return tensors(self.arguments)

    @cached_property
    def numbers(self) -> dict[str, float]:
        """The hyperparameters as numbers."""
        return {name: float(value) for name, value in self.hyper.items()}


def _by_pixel(stacked: Tensor) -> Tensor:
    """A copy in which every trial's weights of a convolution lie in memory pixel by pixel."""
    if stacked.ndim != 5:
        return stacked.clone(memory_format=torch.contiguous_format)
    return stacked.permute(0, 1, 3, 4, 2).clone(memory_format=torch.contiguous_format).permute(0, 1, 4, 2, 3)


def _overwrite(values: State, new: State) -> None:
    for name, value in values.items():
        value.copy_(new[name])
