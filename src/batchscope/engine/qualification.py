"""Whether a program does all that a run will ask of it, and gives the loop's numbers wherever it does.

A program is taken through updates and evaluations from the loop's own states: with every batch size that a trial sees,
with a whole pack and with one whose members have ended, in training and evaluation by turns, on every size of a part
of the validation examples. What the loop makes of the same is the reference.

How far two programs may differ is no constant: rounding alone decides the sign of a gradient that is zero in exact
arithmetic, as that of a bias before batch norm, and Adam makes a full step of it. So what differs by more than the root
of the machine's precision is measured against the loop itself: parameters and buffers are moved in their last bits, and
what that changes is what rounding explains.

Legend: K trials of a pack, of which the first and the last are compared; B examples.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import cached_property
from itertools import chain

import torch
from torch import Tensor

from batchscope.amounts import number
from batchscope.engine.evaluate import Part, parts
from batchscope.engine.loop import Loop
from batchscope.engine.pack import Pack, State
from batchscope.engine.program import Program
from batchscope.engine.training import Settings, Training
from batchscope.errors import WorkloadError
from batchscope.seeds import torch_generator
from batchscope.spec.trial import Trial
from batchscope.tensors import leaves

# Times what moving the last bits changes, a difference may be: the errors of all operations add up on the way, and one
# move is one draw of them.
AMPLIFIED = 32.0

# Of values that are 0 or 1, the share that may differ: an argmax turns where two outputs are equal to rounding.
TURNED = 0.02

Range = tuple[int, int]
Shapes = tuple[tuple[int, ...], ...]


class Reference:
    """What the loop makes of some trials at a batch size, computed once for all programs that are compared to it."""

    def __init__(self, training: Training, trials: Sequence[Trial]) -> None:
        """Nothing is computed yet; ``trials`` are as many as the largest pack has."""
        self.training, self.trials, self.loop = training, tuple(trials), Loop(training)
        bits = torch.bfloat16 if training.loaded.study.engine.dtype == "bfloat16" else training.loaded.dtype
        self._precision, self._stored = torch.finfo(bits).eps, torch.finfo(training.loaded.dtype).eps
        self._steps: dict[tuple[int, Range, bool], tuple[State, State, Tensor]] = {}
        self._values: dict[tuple[int, Shapes, bool], dict[str, Tensor]] = {}

    @cached_property
    def ranges(self) -> list[Range]:
        """Steps that are compared: the first, two at once, and the first one of every other size of a batch."""
        timeline, last = self.training.timeline, self.training.timeline.last
        ranges = [(0, 1), *([(1, min(3, last))] if last > 1 else [])]
        known = {timeline.examples(1)}
        for phase in timeline.batches.phases if timeline.batches else ():
            if phase.batch_size not in known and phase.step_start < last:
                known.add(phase.batch_size)
                ranges.append((phase.step_start, phase.step_start + 1))
        return ranges

    @cached_property
    def parts(self) -> list[Part]:
        """One part of the examples that are evaluated of every size, and other shape, that there is."""
        found: dict[Shapes, Part] = {}
        sample = self.training.loaded.train_sample
        for part in chain(parts(self.training), parts(self.training, sample) if sample else ()):
            found.setdefault(_shapes(part), part)
        return list(found.values())

    def after(self, trial: int, steps: Range, *, moved: bool = False) -> tuple[State, State, Tensor]:
        """One trial's state before and after some steps, and the sum of its losses; ``moved``: in its last bits."""
        if (trial, steps, moved) not in self._steps:
            before = self.before(trial, steps)
            before = self._move(before) if moved else before
            settings = Settings.of(self.training, self.trials[trial : trial + 1])
            self._steps[trial, steps, moved] = before, *self.loop.train(before, settings, *steps)
        return self._steps[trial, steps, moved]

    def seconds(self) -> float:
        """Of one more of the loop's second steps."""
        steps = self.ranges[:2][-1]
        before, settings = self.before(0, steps), Settings.of(self.training, self.trials[:1])
        started = time.perf_counter()
        self.loop.train(before, settings, *steps)
        return (time.perf_counter() - started) / (steps[1] - steps[0])

    def before(self, trial: int, steps: Range) -> State:
        """One trial's state that some steps begin from: the loop's own, a few steps into the training."""
        if steps[0] == 0:
            return Pack.fresh(self.training, self.trials[trial : trial + 1]).state
        known = self.ranges[:2]
        return self.after(trial, known[0] if steps == known[1] else known[-1])[1]

    def check_steps(self, trial: int, steps: Range, found: State, total: Tensor) -> None:
        """Compare a program's state after some steps, without K, and the sum of its losses.

        Raises:
            WorkloadError: If they differ by more than rounding explains.
        """
        before, after, sums = self.after(trial, steps)
        where = f"{'step' if steps[1] - steps[0] == 1 else 'steps'} {'-'.join(map(str, range(*steps)))}"
        self._check(f"the loss of {where}", total, sums[0], sums[0], lambda: self.after(trial, steps, moved=True)[2][0])
        for name, wanted in after.items():
            start, end = before[name][0], wanted[0]
            words = f"{name.replace('/', ' ', 1)} after {where}"
            if not end.is_floating_point():
                if not torch.equal(found[name], end):
                    raise WorkloadError(f"its numbers are not the loop's: {words}")
                continue

            def update(name: str = name) -> Tensor:
                other, result, _ = self.after(trial, steps, moved=True)
                return result[name][0] - other[name][0]

            changes = name.startswith("parameter/")
            scale = end - start if changes else end
            self._check(words, found[name] - start, end - start, scale, update, stored=end)

    def check_values(self, trial: int, part: Part, found: dict[str, Tensor]) -> None:
        """Compare a program's (B,) values of validation examples; errors are those of ``check_steps``."""
        for name, wanted in self.values(trial, part).items():
            value = found[name]
            if ((wanted == 0) | (wanted == 1)).all() and ((value == 0) | (value == 1)).all():
                if int((wanted != value).sum()) > math.ceil(TURNED * wanted.numel()):
                    raise WorkloadError(f"its numbers are not the loop's: validation/{name}")
                continue
            moved = lambda name=name: self.values(trial, part, moved=True)[name]  # noqa: E731
            self._check(f"validation/{name}", value, wanted, wanted, moved)

    def values(self, trial: int, part: Part, *, moved: bool = False) -> dict[str, Tensor]:
        """(B,) values of validation examples after the first steps; ``moved`` as for ``after``."""
        key = trial, _shapes(part), moved
        if key not in self._values:
            state = self.after(trial, self.ranges[:2][-1])[1]
            state = self._move(state) if moved else state
            found = self.loop.evaluate(state, part.examples, (), part.end - part.fresh)
            self._values[key] = {name: value[0] for name, value in found.items()}
        return self._values[key]

    def _move(self, state: State) -> State:
        """Every parameter and buffer changed in its last bits."""
        moved = {}
        for name, value in state.items():
            if value.is_floating_point() and not name.startswith("slot/"):
                generator = torch_generator("last bits", name, device=value.device)
                noise = torch.rand(value.shape, generator=generator, dtype=value.dtype, device=value.device)
                value = value * (1 + 2 * self._precision * (2 * noise - 1))
            moved[name] = value
        return moved

    def _check(
        self, words: str, found: Tensor, wanted: Tensor, scale: Tensor, moved: object, stored: Tensor | None = None
    ) -> None:
        if not wanted.isfinite().all():
            return  # diverged: what comes after is not compared by anyone
        difference = _norm(found - wanted)
        rounded = 0.0 if stored is None else 4 * self._stored * _norm(stored)
        if difference <= math.sqrt(self._precision) * _norm(scale) + rounded:
            return
        assert callable(moved)
        explained = _norm(moved() - wanted)
        if not difference <= AMPLIFIED * explained + rounded:
            share = difference / _norm(scale) if _norm(scale) else math.inf
            raise WorkloadError(
                f"its numbers are not the loop's: {words} differs by {number(share, 2)} of its size, "
                f"of which rounding explains {number(explained / _norm(scale) if _norm(scale) else 0.0, 2)}"
            )


def qualify(program: Program, reference: Reference, count: int, fewest: int = 1) -> None:
    """Take a program through all that a run will ask of it.

    Whatever the user's code raises under the program is raised here too.

    Args:
        program: Of the reference's training.
        reference: What it is compared with.
        count: Trials to a pack, no more than the reference has.
        fewest: Trials that are left in a pack when most have ended.

    A program whose numbers are not the loop's is a ``WorkloadError``.
    """
    training, trials = program.training, reference.trials[:count]
    settings, compared = Settings.of(training, trials), sorted({0, count - 1})
    state = Pack.fresh(training, trials).state
    start, *others = reference.ranges
    for steps in (start, *others[:1]):
        state, sums = program.train(state, settings, *steps)
        for trial in compared:
            reference.check_steps(trial, steps, _row(state, trial), sums[trial])
            for name, value in reference.after(trial, steps)[1].items():
                state[name] = state[name].index_copy(0, torch.tensor([trial], device=value.device), value)
    for size in sorted({count, fewest}, reverse=True):
        first = {name: value[:size] for name, value in state.items() if not name.startswith("slot/")}
        for part in reference.parts:
            values = program.evaluate(first, part.examples, (), part.end - part.fresh)
            for trial in (trial for trial in compared if trial < size):
                reference.check_values(trial, part, {name: value[trial] for name, value in values.items()})
    for steps in others[1:]:
        found, sums = program.train(state, settings, *steps)
        for trial in compared:
            reference.check_steps(trial, steps, _row(found, trial), sums[trial])
    if fewest < count:
        steps = (3, 4) if training.timeline.last > 3 else (0, 1)
        full = state if steps[0] else Pack.fresh(training, trials).state
        first, few = {name: value[:fewest] for name, value in full.items()}, Settings.of(training, trials[:fewest])
        found, sums = program.train(first, few, *steps)
        reference.check_steps(0, steps, _row(found, 0), sums[0])


def _shapes(part: Part) -> Shapes:
    return tuple(tuple(tensor.shape) for tensor in leaves(part.examples))


def _row(state: State, k: int) -> State:
    return {name: value[k] for name, value in state.items()}


def _norm(values: Tensor) -> float:
    return float(torch.linalg.vector_norm(values.double()))
