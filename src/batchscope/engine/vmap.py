"""The pack program: K trials in one graph of batched operations.

``torch.func.vmap`` makes one trial's step a step of K trials, and tracing takes the transformed step apart into a flat
graph of tensor operations. Running that graph gives the same bits as running vmap, without the Python between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.func import vmap

from batchscope.engine.evaluate import Accumulators
from batchscope.engine.graphs import Graph, tensors
from batchscope.engine.pack import State, slots_of
from batchscope.engine.randomness import seed_part, seed_step
from batchscope.engine.traced import InPlace, Traced
from batchscope.engine.training import Settings, Training
from batchscope.optim import Rule
from batchscope.optim.rule import laid_out_as
from batchscope.tensors import Pair, under_prefix

# How many times as large as needed a pack may be before whole steps of its own size are worth making.
SPARE_IN_PLACE = 4.0

# The compiler has ways of its own for one trial, which round otherwise than those for several.
SMALLEST_IN_PLACE = 2

# How many times as large as needed a pack may be before a graph of its own size is worth making.
SPARE = 1.5


class Vmap(Traced):
    """All trials of a pack at once."""

    def __init__(self, training: Training, *, in_place: InPlace | None = None) -> None:
        """Nothing is traced yet; arguments and errors are those of ``Traced``."""
        super().__init__(training, in_place=in_place)
        self._gradients_of_each = of_each(self._gradients, 3, 3)
        self._step_of_each = of_each(self._step, 4, 4)
        self._measure_of_each = of_each(self._measure, 2, 2)
        self._sizes: set[int] = set()
        self._counts: set[int] = set()

    def train(self, state: State, settings: Settings, start: int, until: int) -> tuple[State, Tensor]:
        """Advance all trials at once, step by step."""
        training, rule = self.training, self.training.rule
        least, spare = (SMALLEST_IN_PLACE, SPARE_IN_PLACE) if self._in_place else (1, SPARE)
        count, fill = self._fill(state, self._filled_size(state, least, spare))
        state, rates = fill(state), fill({"": settings.learning_rates(start, until).T})[""].T.contiguous()
        if self._in_place or self._kernel:
            # What follows happens in place, in memory that no one else has.
            state = {name: value.clone(memory_format=torch.contiguous_format) for name, value in state.items()}
        settled = fill(settings.hyper)
        steps = range(start, until)
        clocks = self._clocks(steps)
        parameters, buffers = under_prefix("parameter", state), under_prefix("buffer", state)
        one = {name: value[0] for name, value in parameters.items()}
        slots = slots_of(state)
        members = Members(rule, parameters, slots, settings, rates[:, :count]) if self._kernel else None
        total = torch.zeros(rates.shape[1], dtype=torch.float64, device=rates.device)
        self._set_training(True)
        with torch.no_grad():
            for i, step in enumerate(steps):
                inputs, targets = training.batch(step)
                hyper = {**settled, "learning_rate": rates[i]}
                if members:
                    differentiated = (parameters, buffers, hyper, clocks[i], inputs, targets)
                    graph = self._graph("gradients", self._gradients_of_each, differentiated)
                    seed_step(training, step)
                    gradients, buffers, loss = graph(*differentiated)
                    members.update(i, step + 1, gradients)
                else:
                    arguments = (
                        parameters,
                        buffers,
                        slots,
                        hyper,
                        clocks[i],
                        inputs,
                        targets,
                        training.probes(step, one),
                    )
                    graph = self._graph("train", self._step_of_each, arguments)
                    seed_step(training, step)
                    if self._in_place:
                        (loss,) = graph(*tensors(arguments))
                    else:
                        parameters, buffers, slots, loss = graph(*arguments)
                total += loss
        flat = {f"parameter/{name}": value for name, value in parameters.items()}
        flat |= {f"slot/{slot}/{name}": value for name, own in slots.items() for slot, value in own.items()}
        flat |= {f"buffer/{name}": value for name, value in buffers.items()}
        return {name: value[:count] for name, value in flat.items()}, total[:count]

    def evaluate(
        self, state: State, examples: Pair, whole: Sequence[Accumulators] = (), place: int = 0
    ) -> dict[str, Tensor]:
        """One forward pass for the whole pack."""
        trials, fill = self._fill(state, self._evaluated_size(next(iter(state.values())).shape[0]))
        state = fill(state)
        inputs, targets = examples
        arguments = (under_prefix("parameter", state), under_prefix("buffer", state), inputs, targets)
        self._set_training(False)
        with torch.no_grad():
            graph = self._graph("evaluate", self._measure_of_each, arguments, self.training.loaded.graphs)
            seed_part(self.training, place)
            found: State = graph(*arguments)
        return {name: values[:trials] for name, values in found.items()}

    def _filled_size(self, state: State, least: int, spare: float) -> int:
        """A size that was traced before, if the pack is not much smaller, else the pack's own.

        Packs shrink as trials end. A graph is made for one size, and making one takes as long as many steps.
        """
        count = next(iter(state.values())).shape[0]
        size = min((size for size in self._sizes if count <= size <= spare * count), default=max(count, least))
        self._sizes.add(size)
        return size

    def _evaluated_size(self, count: int) -> int:
        """1, 2, 3, 4, 6, 8, 12, ... or the whole pack: few trials are near their goals, and another few each time."""
        self._counts.add(count)
        power = 1 << (count - 1).bit_length()
        return min(3 * power // 4 if count <= 3 * power // 4 else power, max(self._counts))

    def _fill(self, state: State, size: int) -> tuple[int, Callable[[State], State]]:
        """The number of trials, and what fills them up with copies of the last one to a size."""
        count = next(iter(state.values())).shape[0]
        if size == count:
            return count, lambda values: values
        where = torch.arange(size, device=self.training.loaded.device).clamp_max(count - 1)
        return count, lambda values: {name: value.index_select(0, where) for name, value in values.items()}


def of_each(function: Graph, own: int, shared: int) -> Graph:
    """A function of one trial as one of a pack: the first arguments are each trial's own, the last are shared."""
    return vmap(function, in_dims=(0,) * own + (None,) * shared, randomness="same")


class Members:
    """The trials of a pack one by one, as views into its tensors, for updates in place."""

    def __init__(
        self, rule: Rule, parameters: State, slots: dict[str, State], settings: Settings, rates: Tensor
    ) -> None:
        """Take the stacked tensors apart; ``rates`` is (T, K)."""
        names = list(parameters)
        self._rule, self._names = rule, names
        self._parameters = _by_trial([parameters[name] for name in names])
        self._slots = {slot: _by_trial([slots[name][slot] for name in names]) for slot in rule.slots}
        self._rates: list[list[float]] = rates.tolist()
        columns = {name: settings.hyper[name].tolist() for name in settings.hyper}
        self._hyper = [{name: column[k] for name, column in columns.items()} for k in range(rates.shape[1])]

    def update(self, i: int, step: int, gradients: State) -> None:
        """Update every trial with its gradients, at the ``i``-th rates; ``step`` counts from 1."""
        apart = _by_trial([gradients[name] for name in self._names])
        for k, (hyper, rate) in enumerate(zip(self._hyper, self._rates[i], strict=True)):
            parameters, now = self._parameters[k], {**hyper, "learning_rate": rate}
            along = [laid_out_as(p, g) for p, g in zip(parameters, apart[k], strict=True)]
            kept = {slot: trials[k] for slot, trials in self._slots.items()}
            self._rule.update_in_place(parameters, along, kept, step, now)


def _by_trial(stacked: list[Tensor]) -> list[list[Tensor]]:
    """From tensors of K trials to K lists of one trial's tensors."""
    return [list(own) for own in zip(*(tensor.unbind() for tensor in stacked), strict=True)]
