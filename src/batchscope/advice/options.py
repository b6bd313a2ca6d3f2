"""What could be done to reach a goal: every batch size on every number of devices, with its time and cost.

Legend: M batch sizes, K options, D samples. An option's time is steps to result times seconds of a step; both are
uncertain, and the D samples of their product keep options comparable: two that share a batch size share its steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batchscope.advice.step_time import Link, StepTime, step_time
from batchscope.amounts import number
from batchscope.analysis.points import Point, Value
from batchscope.errors import AnalysisError
from batchscope.interval import Interval
from batchscope.seeds import numpy_generator
from batchscope.spec.probe import Probe

Array = NDArray[np.float64]
WATT_SECONDS = 3.6e6  # in a kilowatt-hour


@dataclass(frozen=True)
class Option:
    """One way to reach the goal.

    Attributes:
        batch_size: B, examples in one weight update over all devices.
        devices: N. On idealised hardware 1: its one device takes any batch in the same time.
        device_batch_size: ceil(B/N).
        micro_batch_size: Examples of one pass on a device; None on idealised hardware.
        accumulation_steps: Passes in one update; None on idealised hardware.
        steps: Updates to the goal of one fresh training: the median over seeds, and the interval that holds it.
        step_seconds: Of one update, communication included; None on idealised hardware.
        communication_seconds: The part of it that is communication.
        time: To the goal: seconds, or steps on idealised hardware.
        cost: Of reaching it: money, device-hours without a price, or examples on idealised hardware.
        energy: kWh; None without a power.
        hyperparameters: The winning trial's; empty where there are none, or the steps come from a law.
        optimizer: Its name in study files; empty if not known.
        schedule: Of the learning rate, in words; empty if not known.
        extrapolated: Whether steps or seconds lie outside what was measured.
        lower_bound: Whether the steps, and what follows from them, are the fewest of a search, which a fresh training
            exceeds.
        remarks: What speaks against trusting it, a sentence each.
        why: Why it was chosen; empty if it was not.
    """

    batch_size: int
    devices: int
    device_batch_size: int
    micro_batch_size: int | None
    accumulation_steps: int | None
    steps: Interval
    step_seconds: float | None
    communication_seconds: float | None
    time: Interval
    cost: Interval
    energy: Interval | None
    hyperparameters: Mapping[str, Value] = field(default_factory=dict, hash=False)
    optimizer: str = ""
    schedule: str = ""
    extrapolated: bool = False
    remarks: tuple[str, ...] = ()
    why: str = ""
    lower_bound: bool = False

    @property
    def place(self) -> str:
        """``batch size 256 on 4 devices``."""
        on = "" if self.step_seconds is None else f" on {self.devices} device{'s' if self.devices > 1 else ''}"
        return f"batch size {number(self.batch_size)}{on}"


@dataclass(frozen=True, eq=False)
class Options:
    """K options, samples (D, K) of their log times, what a unit of time costs (K,), and what was left out and why."""

    all: tuple[Option, ...]
    log_times: Array
    rates: Array
    left_out: tuple[tuple[int, int, str], ...] = ()


def idealised(found: Sequence[Point], optimizer: str, schedule: str) -> Options:
    """A device that takes any batch in the same time: time is steps, cost is examples."""
    options = [
        Option(
            batch_size=point.batch_size,
            devices=1,
            device_batch_size=point.batch_size,
            micro_batch_size=None,
            accumulation_steps=None,
            steps=point.steps,
            step_seconds=None,
            communication_seconds=None,
            time=point.steps,
            cost=scaled(point.steps, point.batch_size),
            energy=None,
            hyperparameters=point.hyperparameters,
            optimizer=optimizer,
            schedule=schedule,
            extrapolated=point.extrapolated,
            remarks=point.remarks,
            lower_bound=point.lower_bound,
        )
        for point in found
    ]
    times = np.column_stack([point.log_samples for point in found])
    return Options(tuple(options), times, np.array([float(point.batch_size) for point in found]))


def on_devices(
    found: Sequence[Point],
    probe: Probe,
    devices: Sequence[int],
    link: Link,
    *,
    device_second: float,
    power: float | None,
    extrapolate: bool,
    optimizer: str,
    schedule: str,
) -> Options:
    """Every batch size on every number of devices; ``device_second`` is what one second of one device costs."""
    noise = _StepNoise()
    options, times, rates, left_out = [], [], [], []
    for point in found:
        for count in devices:
            share = -(-point.batch_size // count)
            try:
                if count > point.batch_size:
                    raise AnalysisError(f"{count} devices cannot share {point.batch_size} examples")
                step = step_time(probe, share, extrapolate=extrapolate)
            except AnalysisError as refusal:
                left_out.append((point.batch_size, count, str(refusal)))
                continue
            exchange = link.all_reduce(probe.gradient_bytes, count)
            each = step.seconds * noise.of(share, step, len(point.log_samples)) + exchange
            samples = point.log_samples + np.log(each)
            seconds = step.seconds + exchange
            time = _time(point.steps, seconds, samples)
            rate = count * device_second
            remarks = point.remarks
            if step.beyond:
                remarks += (f"extrapolated: {number(share)} examples on a device are outside what the probe measured",)
            option = Option(
                batch_size=point.batch_size,
                devices=count,
                device_batch_size=share,
                micro_batch_size=step.micro_batch_size,
                accumulation_steps=step.accumulation_steps,
                steps=point.steps,
                step_seconds=seconds,
                communication_seconds=exchange,
                time=time,
                cost=scaled(time, rate),
                energy=None if power is None else scaled(time, count * power / WATT_SECONDS),
                hyperparameters=point.hyperparameters,
                optimizer=optimizer,
                schedule=schedule,
                extrapolated=point.extrapolated or step.beyond,
                remarks=remarks,
                lower_bound=point.lower_bound,
            )
            options.append(option)
            times.append(samples)
            rates.append(rate)
    stacked = np.column_stack(times) if times else np.empty((0, 0))
    return Options(tuple(options), stacked, np.array(rates), tuple(left_out))


class _StepNoise:
    """Factors (D,) on the seconds of an update: the same for every option with as many examples on a device."""

    def __init__(self) -> None:
        self._known: dict[int, Array] = {}

    def of(self, share: int, step: StepTime, samples: int) -> Array:
        if share not in self._known:
            generator = numpy_generator("seconds of an update", share)
            self._known[share] = np.exp(step.deviation * generator.standard_normal(samples))
        return self._known[share]


def _time(steps: Interval, seconds: float, log_samples: Array) -> Interval:
    """The interval of the samples of log time, no narrower than that of the steps alone."""
    own = scaled(steps, seconds)
    found = Interval.from_log_samples(own.value or 0.0, log_samples, steps.level)
    low = None if own.low is None or found.low is None else min(own.low, found.low)
    high = None if own.high is None or found.high is None else max(own.high, found.high)
    return Interval(own.value, low, high, steps.level)


def scaled(interval: Interval, factor: float) -> Interval:
    """An interval in another unit."""
    times: Callable[[float | None], float | None] = lambda side: None if side is None else side * factor  # noqa: E731
    return Interval(times(interval.value), times(interval.low), times(interval.high), interval.level)


def table(options: Sequence[Option], pareto_front: Sequence[Option]) -> pl.DataFrame:
    """One row for each option; hyperparameters under their names in the store, ``hyperparameter/...``."""
    names = sorted({name for option in options for name in option.hyperparameters})
    chosen = {(option.batch_size, option.devices) for option in pareto_front}
    rows = []
    for option in options:
        row: dict[str, object] = {
            name: getattr(option, name)
            for name in ("batch_size", "devices", "device_batch_size", "micro_batch_size", "accumulation_steps")
        }
        for name, found in (("steps", option.steps), ("time", option.time), ("cost", option.cost)):
            row |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
        energy = option.energy or Interval(None, None, None)
        row |= {"energy": energy.value, "energy_low": energy.low, "energy_high": energy.high}
        row |= {"step_seconds": option.step_seconds, "communication_seconds": option.communication_seconds}
        row |= {"pareto_front": (option.batch_size, option.devices) in chosen, "extrapolated": option.extrapolated}
        row |= {"lower_bound": option.lower_bound}
        row |= {"remarks": "; ".join(option.remarks) or None}
        rows.append(row | {f"hyperparameter/{name}": option.hyperparameters.get(name) for name in names})
    counts = ("batch_size", "devices", "device_batch_size", "micro_batch_size", "accumulation_steps")
    kinds: dict[str, type[pl.DataType]] = dict.fromkeys(counts, pl.Int64)
    for name in ("steps", "time", "cost", "energy"):
        kinds |= dict.fromkeys((name, f"{name}_low", f"{name}_high"), pl.Float64)
    kinds |= {"step_seconds": pl.Float64, "communication_seconds": pl.Float64}
    kinds |= {"pareto_front": pl.Boolean, "extrapolated": pl.Boolean, "lower_bound": pl.Boolean, "remarks": pl.String}
    return pl.DataFrame(rows, schema_overrides=kinds, infer_schema_length=None)
