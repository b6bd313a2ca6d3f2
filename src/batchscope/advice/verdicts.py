"""Which option is best in which sense, and why, in a sentence each.

Legend: K options, D samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from batchscope.advice.options import Option, Options
from batchscope.amounts import count, duration, number, percent

NEAR = 1.1  # the factor that still counts as the best
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Verdict:
    """The answer to a limit: ``option``, whether it is ``met``, and with what ``chance``; in words ``sentence``.

    Where no option meets the limit, the option is the nearest one.
    """

    limit: float
    met: bool
    option: Option
    chance: float
    sentence: str


def pareto_front(options: Options) -> tuple[Option, ...]:
    """The options that no other beats in both time and cost, the fastest first; of equals the smallest batch."""
    best, kept = np.inf, []
    for option in sorted(options.all, key=lambda o: (*_by_time(o), o.devices, o.batch_size)):
        if (cost := option.cost.value or 0.0) < best:
            best = cost
            kept.append(replace(option, why="no other option is both faster and cheaper"))
    return tuple(kept)


def fastest(options: Options, idealised: bool, allowed: Sequence[bool] | None = None) -> Option:
    """The least time; among equals the cheapest. ``allowed`` says which options count, by default all."""
    index = _least(options, _by_time, allowed)
    option, chance = options.all[index], _chance(options.log_times)[index]
    time = f"{count(option.time.value)} steps" if idealised else duration(option.time.value)
    if allowed is not None and not all(allowed):
        return replace(option, why=f"{time}, and no batch size up to the maximum useful one takes fewer")
    return replace(
        option, why=f"no option is faster than {time}; it is the fastest in {percent(chance)} of the samples"
    )


def cheapest(options: Options, unit: str) -> Option:
    """The least cost; among equals the fastest."""
    index = _least(options, _by_cost)
    option, chance = options.all[index], _chance(options.log_times + np.log(options.rates))[index]
    cost = f"{number(option.cost.value)}{'' if unit == 'money' else f' {unit}'}"
    return replace(
        option, why=f"no option costs less than {cost}; it is the cheapest in {percent(chance)} of the samples"
    )


def balanced(options: Options) -> Option:
    """The fastest of those that cost at most a tenth more than the cheapest."""
    reference = options.all[_least(options, _by_cost)]
    limit = NEAR * (reference.cost.value or 0.0)
    index = _least(options, _by_time, [(option.cost.value or 0.0) <= limit for option in options.all])
    option = options.all[index]
    if option == reference:
        return replace(option, why="the cheapest option is also the fastest of those within 10% of its cost")
    time, cost = _ratio(option.time.value, reference.time.value), _ratio(option.cost.value, reference.cost.value)
    saved, more = percent(1 - time), percent(cost - 1)
    why = f"the fastest within 10% of the least cost: {saved} less time than the cheapest for {more} more"
    return replace(option, why=why)


def within_deadline(options: Options, limit: float) -> Verdict:
    """The cheapest option whose time is within ``limit`` seconds, else the fastest of all."""
    met = [(option.time.value or 0.0) <= limit for option in options.all]
    index = _least(options, _by_cost, met) if any(met) else _least(options, _by_time)
    found, shown = options.all[index].time.value, duration(limit)
    return _verdict(
        options,
        index,
        limit,
        options.log_times,
        met=f"the cheapest that takes at most {shown}" if any(met) else "",
        missed=f"none takes at most {shown}; the nearest takes {duration(found)}",
    )


def within_budget(options: Options, limit: float) -> Verdict:
    """The fastest option whose cost is within ``limit``, else the cheapest of all."""
    met = [(option.cost.value or 0.0) <= limit for option in options.all]
    index = _least(options, _by_time, met) if any(met) else _least(options, _by_cost)
    found, shown = options.all[index].cost.value, number(limit)
    return _verdict(
        options,
        index,
        limit,
        options.log_times + np.log(options.rates),
        met=f"the fastest that costs at most {shown}" if any(met) else "",
        missed=f"none costs at most {shown}; the nearest costs {number(found)}",
    )


def _verdict(options: Options, index: int, limit: float, log_samples: Array, *, met: str, missed: str) -> Verdict:
    """In words: ``met`` with its chance, or, where it is empty, ``missed``; ``log_samples`` (D, K): what is limited."""
    option, chance = options.all[index], float((log_samples[:, index] <= np.log(limit)).mean())
    why = f"{met}, with a chance of {percent(chance)}" if met else missed
    return Verdict(limit, bool(met), replace(option, why=why), chance, f"{option.place}: {why}")


def _by_time(option: Option) -> tuple[float, float]:
    return option.time.value or 0.0, option.cost.value or 0.0


def _by_cost(option: Option) -> tuple[float, float]:
    return option.cost.value or 0.0, option.time.value or 0.0


def _least(
    options: Options, order: Callable[[Option], tuple[float, float]], allowed: Sequence[bool] | None = None
) -> int:
    """The index of the first of the least; among equals the fewest devices, then the smallest batch."""
    kept = [(index, option) for index, option in enumerate(options.all) if allowed is None or allowed[index]]
    return min(kept, key=lambda pair: (*order(pair[1]), pair[1].devices, pair[1].batch_size))[0]


def _chance(log_samples: Array) -> Array:
    """In which share of the samples (D, K) each option has the least; equals, but for rounding, share it."""
    least = log_samples <= log_samples.min(1, keepdims=True) + 1e-9
    return np.asarray((least / least.sum(1, keepdims=True)).mean(0))


def _ratio(one: float | None, other: float | None) -> float:
    return (one or 0.0) / other if other else 1.0
