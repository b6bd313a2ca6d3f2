"""The pack program: K trials in one graph of batched operations, or as machine code."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from batchscope.engine.evaluate import Accumulators
from batchscope.engine.pack import State
from batchscope.engine.program import Program
from batchscope.engine.traced import Traced
from batchscope.engine.training import Settings, Training
from batchscope.tensors import Pair

# How many times as large as needed a pack may be before a graph of its own size is worth making: machine code is
# dearer to make.
SPARE, SPARE_COMPILED = 1.5, 4.0

# The compiler has ways of its own for one trial, which round otherwise than those for several.
SMALLEST_COMPILED = 2


class Vmap(Program):
    """All trials of a pack at once."""

    def __init__(self, training: Training, *, compiled: bool = False) -> None:
        """Nothing is traced yet; arguments and errors are those of ``Traced``."""
        self.training = training
        self._traced = Traced(training, packed=True, compiled=compiled)
        self._least, self._spare = (SMALLEST_COMPILED, SPARE_COMPILED) if compiled else (1, SPARE)
        self._sizes: set[int] = set()
        self._counts: set[int] = set()

    def train(self, state: State, settings: Settings, start: int, until: int) -> tuple[State, Tensor]:
        """Advance all trials at once, step by step."""
        count = _count(state)
        size = self._filled_size(count)
        # What follows happens in place, in memory that no one else has.
        state = {
            name: value.clone(memory_format=torch.contiguous_format) for name, value in _filled(state, size).items()
        }
        values = self._traced.values(state, _filled(settings.hyper, size), count)
        rates = _filled({"": settings.learning_rates(start, until).T}, size)[""].T.contiguous()
        clocks = self._traced.clocks(start, until)
        total = torch.zeros(size, dtype=torch.float64, device=rates.device)
        with torch.no_grad():
            for i, step in enumerate(range(start, until)):
                batch = settings.training.batch(step)
                total += self._traced.advance(values, settings.training, step, batch, rates[i], clocks[i])
        return {name: value[:count] for name, value in state.items()}, total[:count]

    def evaluate(
        self, state: State, examples: Pair, whole: Sequence[Accumulators] = (), place: int = 0
    ) -> dict[str, Tensor]:
        """One forward pass for the whole pack."""
        count = _count(state)
        with torch.no_grad():
            found = self._traced.measure(_filled(state, self._evaluated_size(count)), examples, place)
        return {name: values[:count] for name, values in found.items()}

    def _filled_size(self, count: int) -> int:
        """A size that was traced before, if the pack is not much smaller, else the pack's own.

        Packs shrink as trials end. A graph is made for one size, and making one takes as long as many steps.
        """
        known = (size for size in self._sizes if count <= size <= self._spare * count)
        size = min(known, default=max(count, self._least))
        self._sizes.add(size)
        return size

    def _evaluated_size(self, count: int) -> int:
        """1, 2, 3, 4, 6, 8, 12, ... or the whole pack: few trials are near their goals, and another few each time."""
        self._counts.add(count)
        power = 1 << (count - 1).bit_length()
        return min(3 * power // 4 if count <= 3 * power // 4 else power, max(self._counts))


def _count(state: State) -> int:
    return next(iter(state.values())).shape[0]


def _filled(stacked: State, size: int) -> State:
    """As many trials as asked for, with copies of the last one."""
    count = _count(stacked)
    if size == count:
        return stacked
    where = torch.arange(size, device=next(iter(stacked.values())).device).clamp_max(count - 1)
    return {name: value.index_select(0, where) for name, value in stacked.items()}
