"""The compiler: from any learning-rate schedule to the batch-size schedule with the same noise scale.

S18: what a falling learning rate does to the noise scale g = eta N / (B (1 - gamma)), a rising batch size
    does
as well, after the same number of epochs and with fewer updates.

1. Where the original rate is r(t) times its peak, the batch size that keeps g at the peak rate is
   B(t) = c B_0 (1 - gamma) / (1 - gamma') / r(t), for c times the rate and momentum gamma' instead of gamma.
2. B(t) is rounded down to what may be run: a multiple of the granularity, at most the largest batch size, and
   on smooth pieces by whole powers of a growth factor. Down, so that the rate is never above c times its
   peak.
3. The learning rate takes the remainder: eta'(t) = eta(t) n(B_0) (1 - gamma') / (n(B) (1 - gamma)) with
   n(B) = N/B (equation 5), or N/B - 1 (equation 4) where ``exact``. So g is kept to floating-point error,
   whatever was rounded in step 2.
4. Before the peak, that is during a warm-up, the batch size stays and the rate moves: batches that shrink
   as the rate warms up would have the full rate at the most fragile moment.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from batchscope.errors import ScheduleError
from batchscope.schedules.batch_schedule import BatchSchedule, complement, factor_after, factor_before
from batchscope.schedules.learning_rate import Schedule
from batchscope.schedules.original import Piece, Unit, in_epochs, inside, peak_of, pieces
from batchscope.schedules.whole_updates import Stretch, lay_out

Variant = Literal["increase", "hybrid", "decay"]

_SLACK = 1e-9  # so that 128 * 5 reached by division is 640, not 639


def compile_batch_schedule(
    lr_schedule: str | Schedule | LRScheduler,
    batch_size: int,
    max_batch_size: int | None = None,
    *,
    train_size: int,
    epochs: float,
    learning_rate: float | None = None,
    momentum: float = 0.9,
    granularity: int = 1,
    variant: Variant = "increase",
    learning_rate_factor: float = 1.0,
    momentum_to: float | None = None,
    unit: Unit | None = None,
    growth: float = 2.0,
    whole_factors: bool = False,
    exact: bool = False,
) -> BatchSchedule:
    """Compile a learning-rate schedule to a batch-size schedule of the same noise scale (S18 sections 3-5).

    Args:
        lr_schedule: A text (see `batchscope.schedules.rate_text`), a `Schedule`, or a torch scheduler at its
            beginning, which is read from a copy.
        batch_size: B_0, the batch size that the schedule was made for.
        max_batch_size: The largest batch size, taken as it is. Unless given, N/10 (S18 section 2), or
            ``batch_size`` where that is above it.
        train_size: N, in examples.
        epochs: Length of the training.
        learning_rate: The base rate of a `Schedule`; 1 unless given. Texts and torch schedulers bring their
            own.
        momentum: gamma of the original; Adam's beta1.
        granularity: Every batch size is a multiple of it: micro batch times devices.
        variant: "increase" raises the batch size throughout, "hybrid" at the first drop only, "decay" never.
        learning_rate_factor: c, the multiple of the rate, and of the batch size with it.
        momentum_to: gamma', the momentum to train with instead of ``momentum``.
        unit: What one count of the schedule means. Unless given, "step" for a `Schedule` (of ``batch_size``
            examples) and "epoch" for a torch scheduler; a text is in epochs.
        growth: The factor between batch sizes along a smooth schedule.
        whole_factors: Let every batch size be a whole multiple or a whole part of the one before.
        exact: Keep equation 4 instead of its approximation, equation 5.

    Returns:
        Phases in whole updates. A phase begins with the batch that would straddle its first epoch, so that
        all examples seen are within one batch of ``epochs`` times ``train_size``.

    Raises:
        ScheduleError: If the schedule or an option cannot be compiled as given.
    """
    new_momentum = momentum if momentum_to is None else momentum_to
    _check(batch_size, max_batch_size, train_size, epochs, granularity, growth, learning_rate_factor, exact)
    for name, gamma in (("momentum", momentum), ("momentum_to", new_momentum)):
        if not 0 <= gamma < 1:
            raise ScheduleError(f"{name} must be at least 0 and less than 1, got {gamma}")
    if variant not in get_args(Variant):
        raise ScheduleError(f"variant must be one of {', '.join(get_args(Variant))}, got {variant!r}")
    base, rate = in_epochs(lr_schedule, batch_size, train_size, epochs, learning_rate, unit)
    row = pieces(rate, epochs)
    peak, peak_epoch = peak_of(rate, row)
    damping = complement(new_momentum) / complement(momentum)

    def per_rate(batch: float) -> float:  # the noise scale of a batch size at rate 1 and momentum 0
        return train_size / batch - exact

    def wanted(share: float) -> float:  # step 1: the batch size at a share of the peak rate, before any rounding
        noise = share * per_rate(batch_size) * damping / learning_rate_factor
        return train_size / (noise + exact) if noise + exact > 0 else math.inf

    def shares(at: Tensor) -> list[float]:  # step 4: a warm-up counts as the peak
        return torch.where(at < peak_epoch, 1.0, rate.factor(at) / peak).tolist()

    initial = _round_down(wanted(1.0), granularity)
    if initial < granularity:
        raise ScheduleError(
            f"the first batch size would be {wanted(1.0):g}, less than the granularity {granularity}: "
            "take a smaller granularity or a larger batch_size"
        )
    largest = _largest(max_batch_size, batch_size, train_size, granularity, initial)
    initial = min(initial, largest)
    anchor = initial
    changes: list[tuple[Piece, float, int]] = []
    for before, piece in zip([None, *row], row, strict=False):
        # A ladder goes on through a corner of the rate; it begins anew after a jump or a held rate.
        if before is None or before.constant or piece.constant or _jumps(rate, piece.start):
            share = 1.0 if piece.start < peak_epoch else factor_after(rate, piece.start) / peak
            anchor = max(_round_down(min(wanted(share), largest), granularity), initial)

        def rung(share: float, anchor: int = anchor) -> int:  # step 2, along a smooth piece
            batch = wanted(share)
            if batch >= largest:
                return largest
            power = math.floor(math.log(batch / anchor, growth) + _SLACK)
            return min(max(_round_down(anchor * growth**power, granularity), initial), largest)

        if piece.constant:
            changes.append((piece, piece.start, anchor))
        else:
            steps = _changes(lambda at: [rung(share) for share in shares(at)], piece, train_size)
            changes += [(piece, epoch, batch) for epoch, batch in steps]
    sizes = _settle([batch for _, _, batch in changes], initial, variant, granularity if whole_factors else None)
    stretches: list[Stretch] = []
    for (piece, epoch, _), batch in zip(changes, sizes, strict=True):
        # step 3; a plain ratio of batch sizes keeps round numbers round
        ratio = damping * (per_rate(batch_size) / per_rate(batch) if exact else batch / batch_size)
        stretch = Stretch(epoch, batch, ratio, base * factor_after(rate, epoch) * ratio if piece.constant else None)
        if not stretches or replace(stretch, epoch_start=stretches[-1].epoch_start) != stretches[-1]:
            stretches.append(stretch)
    plan = BatchSchedule(train_size, epochs, batch_size, base, momentum, rate, (), exact)
    return lay_out(plan, stretches, new_momentum)


def _jumps(rate: Schedule, epoch: float) -> bool:
    return not math.isclose(factor_before(rate, epoch), factor_after(rate, epoch), rel_tol=1e-9)


def _changes(rungs: Callable[[Tensor], list[int]], piece: Piece, train_size: int) -> Iterator[tuple[float, int]]:
    """The batch size at the start of a smooth piece, and where it changes, to the example.

    It is taken to change at most once between two of the points it is looked at.
    """
    points = inside(piece.start, piece.end)
    batches = rungs(points)
    yield piece.start, batches[0]
    for i, (old, new) in enumerate(itertools.pairwise(batches)):
        if old != new:
            low, high = math.floor(points[i] * train_size), math.ceil(points[i + 1] * train_size)
            while high - low > 1:
                middle = (low + high) // 2
                held = rungs(torch.tensor([middle / train_size], dtype=torch.float64)) == [old]
                low, high = (middle, high) if held else (low, middle)
            yield high / train_size, new


def _check(
    batch_size: int,
    max_batch_size: int | None,
    train_size: int,
    epochs: float,
    granularity: int,
    growth: float,
    factor: float,
    exact: bool,
) -> None:
    if train_size < 1:
        raise ScheduleError(f"train_size must be at least 1, got {train_size}")
    limit = train_size - exact  # equation 4 has no noise at B = N, and no rate that could bring it back
    for name, size in (("batch_size", batch_size), ("max_batch_size", max_batch_size)):
        if size is not None and not 1 <= size <= limit:
            raise ScheduleError(f"{name} must be between 1 and {limit} for {train_size} examples, got {size}")
    if not 0 < epochs < math.inf:
        raise ScheduleError(f"epochs must be > 0, got {epochs}")
    if not 1 <= granularity <= limit:
        raise ScheduleError(f"granularity (micro batch times devices) must be between 1 and {limit}, got {granularity}")
    if not 1 < growth < math.inf:
        raise ScheduleError(f"growth must be > 1, the factor between batch sizes, got {growth}")
    if not 0 < factor < math.inf:
        raise ScheduleError(f"learning_rate_factor must be > 0, got {factor}")


def _settle(batches: list[int], initial: int, variant: Variant, whole: int | None) -> list[int]:
    """The batch sizes that the variant lets stand; their factors whole if ``whole``, the granularity, is given."""
    settled: list[int] = []
    first_rise = next((batch for batch in batches if batch != initial), initial)
    for batch in batches:
        before = settled[-1] if settled else initial
        if variant == "decay":
            batch = initial
        elif variant == "hybrid":
            batch = min(batch, first_rise)
        if whole and batch > before:
            batch = batch // before * before
        elif whole and batch < before:
            batch = max(part for part in range(whole, batch + 1, whole) if before % part == 0)
        settled.append(batch)
    return settled


def _round_down(batch: float, granularity: int) -> int:
    return math.floor(batch / granularity * (1 + _SLACK)) * granularity


def _largest(max_batch_size: int | None, batch_size: int, train_size: int, granularity: int, initial: int) -> int:
    if max_batch_size is None:
        # A tenth of the examples (S18 section 2), unless the original is above that already.
        original = min(initial, _round_down(batch_size, granularity))
        return max(_round_down(train_size / 10, granularity), original, granularity)
    if max_batch_size < granularity:
        raise ScheduleError(f"max_batch_size {max_batch_size} is less than the granularity {granularity}")
    return _round_down(max_batch_size, granularity)
