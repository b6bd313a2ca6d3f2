"""Batch-size schedules as frozen values: what batch size and learning rate apply where in the training.

Positions are counted in examples seen, the one clock that a change of batch size leaves running evenly: an
epoch is N examples, and an update comes where a batch is complete.
Legend: N training examples, B batch size, eta learning rate, gamma momentum, g noise scale.
"""

from __future__ import annotations

import bisect
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

from batchscope.schedules.learning_rate import Schedule


def noise_scale(
    learning_rate: float, batch_size: int, train_size: int, momentum: float = 0.0, *, exact: bool = False
) -> float:
    """S18's scale of the random fluctuations, g = eta N / (B (1 - gamma)) (its equation 5).

    ``exact`` gives equation 4, g = eta (N/B - 1) / (1 - gamma), of which equation 5 is the limit B << N.
    """
    return learning_rate * (train_size / batch_size - exact) / complement(momentum)


def lost_epochs(batch_size: int, train_size: int, momentum: float) -> float:
    """Epochs lost while the momentum grows in: B / (N (1 - gamma)) (S18 equation 13)."""
    return batch_size / (train_size * complement(momentum))


def complement(momentum: float) -> float:
    """1 - gamma of the decimal that was written: 0.02 for 0.98, where binary subtraction gives 0.02000...0018."""
    return float(1 - Fraction(str(momentum)))


@dataclass(frozen=True)
class Phase:
    """A stretch of training at one batch size.

    ``example_start`` is the example at which its first update begins: less than one batch before
    ``epoch_start``, because the batch that straddles the boundary is the first of the new phase.
    ``learning_rate_end`` differs from ``learning_rate`` where the rate moves on inside the phase, as
    ``rate_ratio`` times the original rate.
    """

    epoch_start: float
    epoch_end: float
    example_start: int
    step_start: int
    updates: int
    batch_size: int
    learning_rate: float
    learning_rate_end: float
    momentum: float
    noise_scale: float
    original_noise_scale: float
    lost_epochs: float
    rate_ratio: float
    constant: bool


@dataclass(frozen=True)
class BatchSchedule:
    """Batch size, learning rate and momentum over a whole training, and the schedule they were made from.

    ``rate`` is the original schedule in epochs, a multiple of ``base_learning_rate``, trained at
    ``base_batch_size`` and ``base_momentum``. ``exact`` says which form of the noise scale is kept (see
    `noise_scale`).
    """

    train_size: int
    epochs: float
    base_batch_size: int
    base_learning_rate: float
    base_momentum: float
    rate: Schedule
    phases: tuple[Phase, ...]
    exact: bool = False

    @property
    def total_updates(self) -> int:
        """Weight updates of the whole training."""
        return self.phases[-1].step_start + self.phases[-1].updates

    @property
    def total_examples(self) -> int:
        """Examples in all updates: the last that complete a batch within ``epochs``."""
        return self.phases[-1].example_start + self.phases[-1].updates * self.phases[-1].batch_size

    @property
    def original_updates(self) -> int:
        """Updates of the original schedule, at the base batch size throughout."""
        return math.floor(self.epochs * self.train_size / self.base_batch_size + 1e-9)

    def phase_at(self, examples: int) -> Phase:
        """The phase of the update that begins after ``examples``; the last one goes on after the end."""
        return self.phases[max(bisect.bisect_right(self._starts, examples) - 1, 0)]

    def batch_size_at(self, examples: int) -> int:
        """Batch size of the update that begins after ``examples``."""
        return self.phase_at(examples).batch_size

    def learning_rate_at(self, examples: int) -> float:
        """Learning rate of the update that begins after ``examples``."""
        phase = self.phase_at(examples)
        if phase.constant:
            return phase.learning_rate
        return phase.rate_ratio * self._original_rate(max(examples / self.train_size, phase.epoch_start))

    def learning_rate_multiplier(self, examples: int) -> float:
        """`learning_rate_at` over the original base rate: the multiple of a rate tuned trial by trial."""
        return self.learning_rate_at(examples) / self.base_learning_rate

    def noise_scale_at(self, examples: int) -> float:
        """Noise scale of the update that begins after ``examples``."""
        phase = self.phase_at(examples)
        return noise_scale(
            self.learning_rate_at(examples),
            phase.batch_size,
            self.train_size,
            phase.momentum,
            exact=self.exact,
        )

    def original_noise_scale_at(self, examples: int) -> float:
        """Noise scale of the original schedule there; a straddling batch counts to the phase it begins."""
        epoch = max(examples / self.train_size, self.phase_at(examples).epoch_start)
        return self.original_noise_scale(self._original_rate(epoch))

    def original_noise_scale(self, learning_rate: float, *, exact: bool | None = None) -> float:
        """Noise scale of the original batch size and momentum at a learning rate."""
        return noise_scale(
            learning_rate,
            self.base_batch_size,
            self.train_size,
            self.base_momentum,
            exact=self.exact if exact is None else exact,
        )

    def updates(self) -> Iterator[tuple[int, int]]:
        """Every update as (examples seen before it, its batch size)."""
        for phase in self.phases:
            for update in range(phase.updates):
                yield phase.example_start + update * phase.batch_size, phase.batch_size

    @property
    def largest_noise_scale_departure(self) -> float:
        """The largest abs(g / original g - 1), in the form of the noise scale that is kept."""
        return self._departure(self.exact)

    @property
    def largest_exact_noise_scale_departure(self) -> float:
        """The same in S18's equation 4, where B near N tells: what keeping equation 5 leaves open."""
        return self._departure(True)

    def document(self) -> dict[str, Any]:
        """The JSON document: schema, phases, totals."""
        return {
            "schema": 1,
            "phases": [
                {
                    "epoch_start": _whole(phase.epoch_start),
                    "epoch_end": _whole(phase.epoch_end),
                    "batch_size": phase.batch_size,
                    "learning_rate": phase.learning_rate,
                    "learning_rate_end": phase.learning_rate_end,
                    "momentum": phase.momentum,
                    "updates": phase.updates,
                    "step_start": phase.step_start,
                    "example_start": phase.example_start,
                    "noise_scale": phase.noise_scale,
                    "original_noise_scale": phase.original_noise_scale,
                    "lost_epochs": phase.lost_epochs,
                }
                for phase in self.phases
            ],
            "train_size": self.train_size,
            "epochs": _whole(self.epochs),
            "total_updates": self.total_updates,
            "original_updates": self.original_updates,
            "total_examples": self.total_examples,
            "total_lost_epochs": sum(phase.lost_epochs for phase in self.phases),
            "noise_scale_form": "exact" if self.exact else "approximate",
            "largest_noise_scale_departure": _finite(self.largest_noise_scale_departure),
            "largest_exact_noise_scale_departure": _finite(self.largest_exact_noise_scale_departure),
        }

    def to_json(self) -> str:
        """`document` as text."""
        return json.dumps(self.document(), indent=2, allow_nan=False)

    @cached_property
    def _starts(self) -> list[int]:
        return [phase.example_start for phase in self.phases]

    def _original_rate(self, epoch: float) -> float:
        return self.base_learning_rate * factor_after(self.rate, epoch)

    def _departure(self, exact: bool) -> float:
        largest = 0.0
        for phase in self.phases:
            for update in {0, phase.updates // 2, phase.updates - 1}:
                examples = phase.example_start + update * phase.batch_size
                rate = self._original_rate(max(examples / self.train_size, phase.epoch_start))
                original = self.original_noise_scale(rate, exact=exact)
                kept = noise_scale(
                    self.learning_rate_at(examples),
                    phase.batch_size,
                    self.train_size,
                    phase.momentum,
                    exact=exact,
                )
                if original != kept:
                    largest = max(largest, abs(kept / original - 1) if original else math.inf)
        return largest


def factor_after(rate: Schedule, epoch: float) -> float:
    """The factor from ``epoch`` on: the far side of a drop there, in spite of rounding in the units."""
    return float(rate.factor(epoch + 16 * math.ulp(epoch)))


def factor_before(rate: Schedule, epoch: float) -> float:
    """The factor up to ``epoch``: the near side of a drop there."""
    return float(rate.factor(epoch - 16 * math.ulp(epoch)))


def _whole(number: float) -> float:
    return int(number) if float(number).is_integer() else number


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
