"""Where perfect scaling ends, where going larger stops helping, and the critical batch size between them.

Legend: M batch sizes, D samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batchscope.amounts import number
from batchscope.analysis import laws
from batchscope.analysis.shape import three_regimes
from batchscope.interval import Interval

Array = NDArray[np.float64]
TOLERANCE = 1.25
OVERHEAD = 0.2
# A measured curve holds one draw of its noise already; a second one, bent into shape, spreads the boundaries more
# widely than they vary. The factor was chosen by coverage: docs/statistics.md.
_CALIBRATION = 0.9
_RISE, _SURE = np.log(1.1), 0.98


@dataclass(frozen=True)
class Regimes:
    """The boundaries of the three regimes (Sh19 section 4.1), each with its interval.

    * ``perfect_scaling_until``: the largest batch size up to which a goal takes no more than ``tolerance`` times
      the fewest examples, B S(B), that it takes at any batch size.
    * ``maximum_useful_batch_size``: the smallest from which on it takes no more than ``tolerance`` times the
      fewest steps.
    * ``critical_batch_size``: where the asymptotes of the two-asymptote law meet (McCandlish 2018, section 2.3).

    The first two assume no law, only that the regimes come in their order; they mirror each other, and by the
    two-asymptote law are B_crit (tolerance - 1) and B_crit / (tolerance - 1). A boundary outside the measured batch
    sizes, or too near to their end to be told, is ``None``, and ``notes`` says where it must lie. ``law`` is the law
    that the evidence supports, with or without another sharpness; None for fewer than 3 batch sizes. ``undetermined``
    are the boundaries whose interval is open on both sides: without one there is no number, so they are ``None`` too.
    """

    perfect_scaling_until: Interval
    critical_batch_size: Interval
    maximum_useful_batch_size: Interval
    tolerance: float = TOLERANCE
    law: laws.Fit | None = None
    notes: tuple[str, ...] = ()
    undetermined: tuple[str, ...] = ()

    def at_overhead(self, overhead: float = OVERHEAD) -> Interval | None:
        """Where a goal takes ``1 + overhead`` times the examples that it takes at the smallest batch size measured.

        Zhang 2024 calls this the critical batch size. It is another point of ``law``, with its sharpness, and may lie
        outside the measured batch sizes; None without a law.
        """
        return None if self.law is None else self.law.batch_size_at_overhead(overhead, self.law.law.measured[0])

    def reason(self, boundary: str) -> str | None:
        """Why a boundary, by its name here, has no value; None where it has one."""
        if getattr(self, boundary).value is not None:
            return None
        if boundary in self.undetermined:
            return _UNDETERMINED.format(boundary.replace("_", " "))
        place = _PLACES[boundary]
        return next((note for note in self.notes if any(word in note for word in place)), "; ".join(self.notes) or None)


_OVERLAP = (
    "steps fall in proportion and then hardly at all, so the end of perfect scaling and the maximum useful overlap"
)
_UNDETERMINED = "the {} is not determined: these steps leave its interval open on both sides; more trials would tell"
# How the note on a boundary outside the measured batch sizes is known.
_PLACES = {
    "perfect_scaling_until": ("perfect scaling",),
    "critical_batch_size": ("critical batch size",),
    "maximum_useful_batch_size": ("steps still fall", "no batch size above"),
}


def regimes(
    batch_sizes: Array,
    steps: Array,
    log_samples: Array | None = None,
    *,
    tolerance: float = TOLERANCE,
    level: float = 0.9,
) -> Regimes:
    """The regimes of a curve.

    Args:
        batch_sizes: (M,) ascending, those that reached the goal.
        steps: (M,) steps to result.
        log_samples: (D, M) joint samples of log steps to result, from which the intervals come. Without samples, the
            scatter about the better of the two laws stands for them.
        tolerance: The factor in examples, and in steps, that still counts as the best.
        level: Of the intervals.

    Returns:
        The boundaries; all ``None``, with a note, for fewer than 3 batch sizes.
    """
    if len(batch_sizes) < 3:
        unknown = Interval(None, None, None, level)
        note = f"regimes need at least 3 batch sizes that reached the goal, got {len(batch_sizes)}"
        return Regimes(unknown, unknown, unknown, tolerance, None, (note,))
    x, observed = np.log(batch_sizes), np.log(steps)
    sampled = log_samples if log_samples is not None else _scattered(batch_sizes, steps)
    risen = rising(sampled)
    if risen.any():  # larger batch sizes that harm are no evidence of how those before them scale
        observed, sampled = (np.where(risen, np.minimum.accumulate(curve, -1), curve) for curve in (observed, sampled))
        steps = np.exp(observed)
    # Half the width of the central 68%: a few samples far out, where the upper end is open, must not decide the
    # weights.
    deviation = np.diff(np.quantile(sampled, [0.16, 0.84], axis=0), axis=0)[0] / 2 + 0.01
    curves = three_regimes(x, np.vstack([observed, sampled]), deviation)
    first = _calibrated(perfect_scaling_until(x, curves, tolerance))
    last = _calibrated(-perfect_scaling_until(-x[::-1], (curves + x)[:, ::-1], tolerance))
    # Within an octave of the end of the range the asymptote itself was not seen.
    first[first < x[0] + np.log(2)] = -np.inf
    last[last > x[-1] - np.log(2)] = np.inf
    smooth = np.exp(curves[0])
    plain = laws.fit(batch_sizes, smooth, curves[1:], level=level)
    sharper = _is_sharper(batch_sizes, steps, None if log_samples is None else deviation)
    chosen = laws.fit(batch_sizes, smooth, curves[1:], sharpness=None, level=level) if sharper else plain
    ends = [Interval.from_log_samples(_exp(edge[0]), edge[1:], level) for edge in (first, last)]
    notes = _notes(batch_sizes, float(first[0]), plain, float(last[0]))
    if risen.any():
        larger = ", ".join(f"{size:g}" for size in batch_sizes[risen])
        notes += (f"steps rise with the batch size: at {larger} the goal takes more of them than before",)
    if np.isfinite(first[0]) and last[0] < first[0]:
        notes += (f"{_OVERLAP}: each is told with a tolerance of {tolerance:g}",)
    found = dict(zip(_PLACES, (ends[0], plain.critical_batch_size, ends[1]), strict=True))
    vague = tuple(name for name, end in found.items() if end.value is not None and end.low is None and end.high is None)
    notes += tuple(_UNDETERMINED.format(name.replace("_", " ")) for name in vague)
    until, critical, useful = (Interval(None, None, None, level) if name in vague else found[name] for name in found)
    return Regimes(until, critical, useful, tolerance, chosen, notes, vague)


def rising(log_samples: Array) -> NDArray[np.bool_]:
    """At which batch sizes (M,) a goal surely takes more steps than at a smaller one; from samples (D, M)."""
    middle = np.median(log_samples, axis=0)
    risen = np.zeros(len(middle), dtype=bool)
    for place in range(1, len(middle)):
        best = int(middle[:place].argmin())
        risen[place] = np.mean(log_samples[:, place] > log_samples[:, best] + _RISE) >= _SURE
    return risen


def perfect_scaling_until(x: Array, curves: Array, tolerance: float) -> Array:
    """The largest x (D,) at which ``curves + x`` (D, M) is within log ``tolerance`` of its least value.

    ``x`` (M,) is log batch size, ``curves`` log steps, linear between batch sizes; ``inf`` where it is so to the
    end. With B -> 1/B, which exchanges S and B S, the same function finds the maximum useful batch size.
    """
    excess = curves + x
    excess = excess - excess.min(1, keepdims=True) - np.log(tolerance)
    last = excess.shape[1] - 1 - (excess <= 0)[:, ::-1].argmax(1)
    to_the_end = last == excess.shape[1] - 1
    after = np.where(to_the_end, last, last + 1)
    rows = np.arange(len(curves))
    left, right = excess[rows, last], excess[rows, after]
    share = left / np.where(to_the_end, 1.0, left - right)
    return np.where(to_the_end, np.inf, x[last] + share * (x[after] - x[last]))


def _calibrated(edge: Array) -> Array:
    """A boundary (its value, then D samples) with the finite samples drawn in towards their median."""
    inside = np.isfinite(edge)
    inside[0] = False
    if inside.any():
        centre = np.median(edge[inside])
        edge[inside] = centre + _CALIBRATION * (edge[inside] - centre)
    return edge


def _scattered(batch_sizes: Array, steps: Array) -> Array:
    """Samples of log steps with the scatter about the better law.

    Not that about the nearest curve with three regimes, which follows the noise of so few points too closely.
    """
    parameters = 3 if _is_sharper(batch_sizes, steps) else 2
    law = laws.fit(batch_sizes, steps, sharpness=1.0 if parameters == 2 else None).law
    residual = np.log(steps) - np.log([law.steps(size) for size in batch_sizes])
    return np.log(steps) + laws.scatter(residual, parameters)


def _is_sharper(batch_sizes: Array, steps: Array, deviation: Array | None = None) -> bool:
    return bool(laws.evidence(batch_sizes, steps, deviation).get_column("chosen")[1])


def _exp(edge: float) -> float:
    return -np.inf if np.isneginf(edge) else float(np.exp(edge))


def _notes(batch_sizes: Array, first: float, law: laws.Fit, last: float) -> tuple[str, ...]:
    smallest, largest = number(batch_sizes[0]), number(batch_sizes[-1])
    notes = []
    if first == np.inf:
        notes.append(f"perfect scaling holds up to {largest}, the largest batch size measured: its end was not seen")
    if first == -np.inf:
        notes.append(f"perfect scaling ends before, or near, {smallest}, the smallest batch size measured")
    if law.critical_batch_size.value is None:
        side = "above" if law.law.critical_batch_size > batch_sizes[0] else "below"
        notes.append(f"the critical batch size is {side} the measured ones, {smallest} to {largest}")
    if last == np.inf:
        notes.append(f"steps still fall at {largest}, the largest batch size measured: the maximum was not seen")
    if last == -np.inf:
        notes.append(f"no batch size above {smallest}, the smallest measured, takes noticeably fewer steps")
    return tuple(notes)
