"""One trial after the other, each step as a flat graph: no autograd and no module between the operations.

A trial's numbers stay in the caches for as many steps as the batches that are ready, which a pack's do not; images and
the weights of convolutions lie in memory pixel by pixel; and as machine code the gradients of a layer go straight into
its update.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from batchscope.engine.evaluate import Accumulators
from batchscope.engine.pack import State
from batchscope.engine.program import Program
from batchscope.engine.traced import Traced
from batchscope.engine.training import Settings, Training
from batchscope.tensors import Pair, leaves, map_tree

# Batches that are ready at once: beside a trial's numbers, they should not take the caches.
READY_BYTES = 8 << 20


class Alone(Program):
    """Every trial by itself: what it computes cannot depend on its pack, which only shares the batches."""

    def __init__(self, training: Training, *, compiled: bool = False) -> None:
        """Nothing is traced yet; arguments and errors are those of ``Traced``."""
        self.training = training
        self._traced = Traced(training, packed=False, compiled=compiled)

    def train(self, state: State, settings: Settings, start: int, until: int) -> tuple[State, Tensor]:
        """Advance the trials one after the other, some steps at a time."""
        # What follows happens in place, in memory that no one else has.
        state = {name: _by_pixel(value) for name, value in state.items()}
        rates, clocks = settings.learning_rates(start, until), self._traced.clocks(start, until)
        count = rates.shape[1]
        trials = [self._traced.values(_only(state, k), _only(settings.hyper, k)) for k in range(count)]
        total = torch.zeros(count, dtype=torch.float64, device=rates.device)
        with torch.no_grad():
            for block in _blocks(settings.training, start, until):
                for k, values in enumerate(trials):
                    for step, batch in block:
                        at = step - start
                        total[k] += self._traced.advance(
                            values, settings.training, step, batch, rates[at, k], clocks[at]
                        )
        return {name: value.contiguous() for name, value in state.items()}, total

    def evaluate(
        self, state: State, examples: Pair, whole: Sequence[Accumulators] = (), place: int = 0
    ) -> dict[str, Tensor]:
        """One forward pass for every trial."""
        examples = map_tree(_images_by_pixel, examples[0]), examples[1]
        count = next(iter(state.values())).shape[0]
        with torch.no_grad():
            rows = [self._traced.measure(_only(state, k), examples, place) for k in range(count)]
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def _only(stacked: State, k: int) -> State:
    return {name: value[k] for name, value in stacked.items()}


def _blocks(training: Training, start: int, until: int) -> Iterator[list[tuple[int, Pair]]]:
    """Steps with their batches, as many as may be ready at once."""
    block: list[tuple[int, Pair]] = []
    held = 0
    for step in range(start, until):
        inputs, targets = training.batch(step)
        batch = map_tree(_images_by_pixel, inputs), targets
        held += sum(tensor.nbytes for tensor in leaves(batch))
        block.append((step, batch))
        if held > READY_BYTES:
            yield block
            block, held = [], 0
    if block:
        yield block


def _images_by_pixel(values: Tensor) -> Tensor:
    return values.contiguous(memory_format=torch.channels_last) if values.ndim == 4 else values


def _by_pixel(stacked: Tensor) -> Tensor:
    """A copy in which every trial's weights of a convolution lie in memory pixel by pixel."""
    if stacked.ndim != 5:
        return stacked.clone(memory_format=torch.contiguous_format)
    return stacked.permute(0, 1, 3, 4, 2).clone(memory_format=torch.contiguous_format).permute(0, 1, 4, 2, 3)
