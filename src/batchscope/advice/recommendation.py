"""From steps to result and time per step to a decision: which batch size, on how many devices."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from batchscope.advice.assumptions import of_hardware, of_ideal_hardware, of_steps
from batchscope.advice.options import Option, Options, idealised, on_devices, table
from batchscope.advice.step_time import Link, shares
from batchscope.advice.strong_scaling import scaling, useful_devices
from batchscope.advice.verdicts import (
    Verdict,
    balanced,
    cheapest,
    fastest,
    pareto_front,
    within_budget,
    within_deadline,
)
from batchscope.amounts import bounds, count, counted, duration, number, parse_seconds
from batchscope.analysis.curve import Curve
from batchscope.analysis.headline import Headline, headline, knee, useful
from batchscope.analysis.points import Point, points
from batchscope.analysis.printing import as_html, as_text, to_pandas
from batchscope.errors import AnalysisError
from batchscope.spec.goal import Goal
from batchscope.spec.probe import Probe


@dataclass(frozen=True, eq=False)
class Recommendation:
    """What to do to reach a goal; iterating gives the options of the time-cost Pareto front, the fastest first.

    Attributes:
        goal: What is to be reached.
        options: One row for each batch size on each number of devices: ``batch_size``, ``devices``,
            ``device_batch_size``, ``micro_batch_size``, ``accumulation_steps``; ``steps``, ``time``, ``cost``,
            ``energy``, each with its ``_low`` and ``_high``; ``step_seconds``, of which ``communication_seconds``;
            ``pareto_front``, ``extrapolated``, ``lower_bound``, ``remarks``, and ``hyperparameter/...``. Units are
            those of ``Option``.
        pareto_front: The options that no other beats in both time and cost, the fastest first.
        headline: What to do in a sentence, why that can be believed, and what speaks against it.
        recommended: What the headline names: for the deadline or the budget, if one was given; with a probe the
            balanced option; on idealised hardware the knee, the least product of steps and examples.
        fastest: The least time; among equals the cheapest. On idealised hardware of the batch sizes up to the
            maximum useful one, for beyond it fewer steps are noise.
        cheapest: The least cost; among equals the fastest.
        balanced: The fastest of those that cost at most a tenth more than the cheapest.
        scaling: The fastest option for each number of devices: ``devices``, ``batch_size``, ``time``, ``time_low``,
            ``time_high``, ``cost``, ``speedup`` over the fewest devices, and ``efficiency``, the speedup over the
            factor in devices; empty on idealised hardware.
        useful_devices: The number of devices from which on more save at most a tenth of the time; None if that is
            the largest number asked for, and on idealised hardware.
        deadline: The cheapest option that meets the deadline; None if none was given.
        budget: The fastest option within the budget; None if none was given.
        left_out: ``batch_size``, ``devices``, ``reason`` of what could not be answered.
        assumptions: What the numbers rest on, a sentence each.
        notes: What speaks against trusting them.
        cost_unit: What ``cost`` is in: money, device-hours or examples.
        idealised: Whether there was no probe, so that time is in steps and cost in examples.
        level: Of the intervals.
    """

    goal: Goal
    options: pl.DataFrame
    pareto_front: tuple[Option, ...]
    headline: Headline
    recommended: Option
    fastest: Option
    cheapest: Option
    balanced: Option
    scaling: pl.DataFrame
    useful_devices: int | None
    deadline: Verdict | None
    budget: Verdict | None
    left_out: pl.DataFrame
    assumptions: tuple[str, ...]
    notes: tuple[str, ...]
    cost_unit: str
    idealised: bool
    level: float

    def __iter__(self) -> Iterator[Option]:
        """The options of the Pareto front, the fastest first."""
        return iter(self.pareto_front)

    def __len__(self) -> int:
        """How many options the Pareto front has."""
        return len(self.pareto_front)

    def to_pandas(self) -> Any:
        """The options as a ``pandas.DataFrame``; an ``AnalysisError`` where pandas is not installed."""
        return to_pandas(self.options)

    def __repr__(self) -> str:
        """What a person reads: the answer, why it can be believed, and the choices."""
        answer = [self.headline.goal, self.headline.sentence, self.headline.trust, *self.headline.caveats]
        return "\n".join([*filter(None, answer), as_text(*self._shown)])

    def _repr_html_(self) -> str:
        told = [self.headline.sentence, self.headline.trust, *self.headline.caveats]
        return as_html(self.headline.goal, [text for text in told if text], *self._shown)

    @property
    def _shown(self) -> tuple[list[str], list[list[str]]]:
        """Heads and rows of the choices."""
        rows = []
        for name in ("recommended", "fastest", "balanced", "cheapest"):
            option: Option = getattr(self, name)
            rows.append([name, option.place, self.shown_time(option.time.value), number(option.cost.value)])
        return ["choice", "where", "time", self.cost_unit], rows

    @property
    def time_unit(self) -> str:
        """``seconds``, or ``steps`` on idealised hardware."""
        return "steps" if self.idealised else "seconds"

    def shown_time(self, value: float | None) -> str:
        """A time in words."""
        return f"{count(value)} steps" if self.idealised else duration(value)


@dataclass(frozen=True)
class Basis:
    """What the steps of the points come from, measured or predicted.

    Attributes:
        goal: What is to be reached.
        level: Of the intervals.
        rests_on: What the steps are, in a sentence.
        notes: What speaks against trusting them.
        useful: Of some points those beyond which more batch is wasted.
        knee: Of some points the one that wastes neither steps nor examples.
        headline: The answer for an option, on idealised hardware or not.
    """

    goal: Goal
    level: float
    rests_on: str
    notes: tuple[str, ...]
    useful: Callable[[Sequence[Point]], list[Point]]
    knee: Callable[[Sequence[Point]], Point]
    headline: Callable[[Option, bool], Headline]

    @classmethod
    def of(cls, curve: Curve) -> Basis:
        """Of a measured curve."""
        return cls(
            curve.goal,
            curve.level,
            of_steps(curve),
            tuple(curve.notes),
            lambda found: useful(found, curve.regimes),
            lambda found: knee([point for point in found if not point.extrapolated] or found, curve.regimes),
            lambda named, idealised: _headline(curve, named, idealised),
        )


def recommend(
    curve: Curve,
    probe: Probe | None = None,
    *,
    devices: Sequence[int] = (1,),
    bandwidth: float | None = None,
    latency: float = 0.0,
    price: float | None = None,
    power: float | None = None,
    deadline: str | float | None = None,
    budget: float | None = None,
    batch_sizes: Sequence[int] | None = None,
    extrapolate: bool = False,
    optimizer: str = "",
    schedule: str = "",
) -> Recommendation:
    """Time, cost and energy to the goal for every batch size on every number of devices, and what is best.

    Args:
        curve: Steps to result.
        probe: Seconds of a step; without it hardware is idealised: time is steps, cost is examples.
        devices: Numbers of devices to choose among.
        bandwidth: GB/s between neighbours of the ring; None takes bytes as free.
        latency: Microseconds between neighbours.
        price: Of one device for one hour, in any currency; without it cost is in device-hours.
        power: Watts that one device samples.
        deadline: Seconds, or a text such as ``"2h"``.
        budget: The most to pay, in the currency of ``price``.
        batch_sizes: To choose among; all that reached the goal by default.
        extrapolate: Take the fitted law's steps, and the time model's seconds, where nothing was measured.
        optimizer: Named on the options.
        schedule: Named on the options.

    If no batch size reached the goal, a value makes no sense, a question needs a probe or a price that is not there, or
    what is asked for was not measured and ``extrapolate`` is not set, that is an ``AnalysisError``.
    """
    return decide(
        Basis.of(curve),
        points(curve, batch_sizes, extrapolate=extrapolate),
        probe,
        devices=devices,
        bandwidth=bandwidth,
        latency=latency,
        price=price,
        power=power,
        deadline=deadline,
        budget=budget,
        extrapolate=extrapolate,
        optimizer=optimizer,
        schedule=schedule,
    )


def decide(
    basis: Basis,
    found: Sequence[Point],
    probe: Probe | None,
    *,
    devices: Sequence[int] = (1,),
    bandwidth: float | None = None,
    latency: float = 0.0,
    price: float | None = None,
    power: float | None = None,
    deadline: str | float | None = None,
    budget: float | None = None,
    extrapolate: bool = False,
    optimizer: str = "",
    schedule: str = "",
) -> Recommendation:
    """The recommendation for some points; the other arguments are those of ``recommend``.

    Raises:
        AnalysisError: If a value makes no sense, or a question needs a probe or a price that is not there.
    """
    counts = _checked(devices, price, power, budget)
    limit = None if deadline is None else parse_seconds(deadline)
    link = Link(bandwidth, latency)
    if probe is None:
        _refuse_without_probe(counts, bandwidth, latency, price, power, deadline, budget)
        options = idealised(found, optimizer, schedule)
        rests_on = of_ideal_hardware()
        unit = "examples"
        within = {point.batch_size for point in basis.useful(found)}
        quick = fastest(options, True, [option.batch_size in within for option in options.all])
    else:
        options = on_devices(
            found,
            probe,
            counts,
            link,
            device_second=(1.0 if price is None else price) / 3600,
            power=power,
            extrapolate=extrapolate,
            optimizer=optimizer,
            schedule=schedule,
        )
        _require_some(options, probe)
        rests_on = of_hardware(probe, link, counts, options.all, price, power)
        unit = "device-hours" if price is None else "money"
        quick = fastest(options, False)
    if budget is not None and price is None:
        raise AnalysisError("a budget is money, and that needs a price: give --price PER_DEVICE_HOUR too")
    best = pareto_front(options)
    lines = scaling(options) if probe is not None else scaling(Options((), options.log_times, options.rates))
    wanted = None if limit is None else within_deadline(options, limit)
    paid = None if budget is None else within_budget(options, budget)
    verdict = wanted or paid
    if verdict is not None:
        named = verdict.option
    elif probe is None:
        middle = basis.knee(found).batch_size
        named = next(option for option in options.all if option.batch_size == middle)
        named = replace(named, why="the least product of steps and examples: neither is wasted")
    else:
        named = balanced(options)
    return Recommendation(
        goal=basis.goal,
        options=table(options.all, best),
        pareto_front=best,
        headline=basis.headline(named, probe is None),
        recommended=named,
        fastest=quick,
        cheapest=cheapest(options, unit),
        balanced=balanced(options),
        scaling=lines,
        useful_devices=useful_devices(lines),
        deadline=wanted,
        budget=paid,
        left_out=pl.DataFrame(
            options.left_out, schema={"batch_size": pl.Int64, "devices": pl.Int64, "reason": pl.String}, orient="row"
        ),
        assumptions=(basis.rests_on, *rests_on),
        notes=tuple(dict.fromkeys((*basis.notes, *_notes(options)))),
        cost_unit=unit,
        idealised=probe is None,
        level=basis.level,
    )


def _headline(curve: Curve, named: Option, idealised: bool) -> Headline:
    """The answer, with its time where a probe tells it."""
    if idealised:
        return headline(curve, named)
    time = duration(named.time.value)
    if not named.lower_bound and named.time.low is not None:
        time += f" ({bounds(named.time.low, named.time.high, duration)})"
    takes = f"{'at least' if named.lower_bound else 'about'} {time}, "
    return headline(curve, named, place=named.place, takes=takes)


def _checked(devices: Sequence[int], price: float | None, power: float | None, budget: float | None) -> tuple[int, ...]:
    counts = tuple(sorted(set(devices)))
    if not counts or counts[0] < 1:
        raise AnalysisError(f"a number of devices is at least 1, got {list(devices)}: --devices 1,2,4,8")
    for name, value, option in (("a price", price, "--price 2.5"), ("a power", power, "--power 400")):
        if value is not None and not 0 <= value < math.inf:
            raise AnalysisError(f"{name} is at least 0, got {value:g}: {option}, say")
    if budget is not None and not 0 < budget < math.inf:
        raise AnalysisError(f"a budget is above 0, got {budget:g}: --budget 25, say")
    return counts


def _refuse_without_probe(
    devices: tuple[int, ...],
    bandwidth: float | None,
    latency: float,
    price: float | None,
    power: float | None,
    deadline: str | float | None,
    budget: float | None,
) -> None:
    """Time and money need seconds of a step.

    Raises:
        AnalysisError: If anything was asked that steps and examples cannot answer.
    """
    asked = {
        "devices": devices != (1,),
        "bandwidth": bandwidth is not None,
        "latency": latency != 0,
        "price": price is not None,
        "power": power is not None,
        "deadline": deadline is not None,
        "budget": budget is not None,
    }
    if given := [f"--{name}" for name, present in asked.items() if present]:
        raise AnalysisError(
            f"{', '.join(given)} need{'s' if len(given) == 1 else ''} the time of a step: measure it with batchscope "
            "probe WORKLOAD --json > probe.json, and add --probe probe.json"
        )


def _require_some(options: Options, probe: Probe) -> None:
    """Raise if nothing could be answered.

    Raises:
        AnalysisError: With the first few reasons.
    """
    if options.all:
        return
    reasons = "; ".join(dict.fromkeys(reason for *_, reason in options.left_out[:4]))
    sizes = ", ".join(map(str, shares(probe))) or "none"
    raise AnalysisError(
        f"the probe tells no time for any of the batch sizes on any of the devices: {reasons}. It measured {sizes} "
        "examples on a device; probe what a device would get, change --devices, or add --extrapolate"
    )


def _notes(options: Options) -> list[str]:
    notes = []
    if sizes := sorted({option.batch_size for option in options.all if option.extrapolated}):
        listed = ", ".join(number(size) for size in sizes)
        notes.append(f"options at batch size {listed} are extrapolated, at least in part: see their remarks")
    if options.left_out:
        pairs = len(options.left_out)
        example = options.left_out[0]
        notes.append(
            f"{pairs} of {pairs + len(options.all)} combinations of batch size and devices are left out, such as "
            f"batch size {number(example[0])} on {counted(example[1], 'device')}: {example[2]}"
        )
    if not any(option.hyperparameters for option in options.all):
        notes.append("the run has no hyperparameters: tune them at the batch size that you choose")
    return notes
