"""Learning rates in words, for study files and the command line; times in epochs.

``"0.1, 0.02@60, 0.004@120"`` is 0.1, from epoch 60 on 0.02, from epoch 120 on 0.004.
``"cosine 0.1, decay_steps=90, decay_factor=0.01, warm_up=5"`` is a schedule by its study-file name, its
base rate and its parameters; it decays over the whole training unless ``decay_steps`` says otherwise.
"""

from __future__ import annotations

import math
from dataclasses import fields

from batchscope.errors import ScheduleError
from batchscope.schedules.compose import Ramp
from batchscope.schedules.learning_rate import LEARNING_RATE_SCHEDULES, Constant, PiecewiseConstant, Schedule

_ADVICE = (
    'write "0.1, 0.02@60, 0.004@120" (rate, then rate@epoch) or '
    '"cosine 0.1, decay_steps=90, decay_factor=0.01, warm_up=5" (schedule, base rate, parameters in epochs)'
)


def parse_learning_rate(text: str, epochs: float | None = None) -> tuple[float, Schedule]:
    """Read a learning rate: its base rate, and the schedule in epochs that multiplies it.

    Args:
        text: One of the two forms at the head of this module.
        epochs: Length of the training, over which a named schedule decays by default.

    Raises:
        ScheduleError: If the text has neither form, or the schedule refuses its values.
    """
    first, *rest = (part.strip() for part in text.split(","))
    name, _, rate = first.rpartition(" ")
    base = _number(rate, text)
    if not 0 < base < math.inf:
        raise ScheduleError(f"a learning rate must be > 0, got {rate!r} in {text!r}: {_ADVICE}")
    return base, _named(name.strip(), rest, text, epochs) if name else _piecewise(base, rest, text)


def format_learning_rate(base: float, schedule: Schedule) -> str:
    """The text that `parse_learning_rate` reads back to the same piecewise constant learning rate.

    Raises:
        ScheduleError: If the schedule is neither constant nor piecewise constant.
    """
    if isinstance(schedule, Constant):
        return f"{base:.12g}"
    if not isinstance(schedule, PiecewiseConstant):
        raise ScheduleError(f"only a piecewise constant learning rate has this form, got {schedule!r}")
    drops = zip(schedule.steps, schedule.factors, strict=True)
    return ", ".join([f"{base:.12g}", *(f"{base * float(f):.12g}@{float(s):.12g}" for s, f in drops)])


def _piecewise(base: float, drops: list[str], text: str) -> Schedule:
    if not drops:
        return Constant()
    pairs = [drop.partition("@") for drop in drops]
    if not all(at for _, at, _ in pairs):
        raise ScheduleError(f"cannot read the learning rate {text!r}: after the first rate comes @epoch; {_ADVICE}")
    epochs = tuple(_number(epoch, text) for _, _, epoch in pairs)
    return PiecewiseConstant(epochs, tuple(_number(rate, text) / base for rate, _, _ in pairs))


def _named(name: str, rest: list[str], text: str, epochs: float | None) -> Schedule:
    kind = LEARNING_RATE_SCHEDULES.get(name)
    names = {field.name for field in fields(kind)} if kind else set()
    if kind is None or "steps" in names:
        simple = ", ".join(key for key in LEARNING_RATE_SCHEDULES if not key.startswith("piecewise"))
        raise ScheduleError(f"cannot read the learning rate {text!r}: {name!r} is none of {simple}; {_ADVICE}")
    values = {key.strip(): _number(value, text) for key, _, value in (part.partition("=") for part in rest)}
    warm_up = values.pop("warm_up", None)
    if unknown := sorted(values.keys() - names):
        raise ScheduleError(f"{name} has no {unknown[0]!r}, got {text!r}: it takes {', '.join(sorted(names))}")
    if "decay_steps" in names and "decay_steps" not in values:
        if epochs is None:
            raise ScheduleError(f"{name} needs decay_steps, got {text!r}: {_ADVICE}")
        values["decay_steps"] = epochs
    schedule = kind(**values)
    return schedule if warm_up is None else Ramp(warm_up) * schedule


def _number(text: str, whole: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ScheduleError(f"cannot read the learning rate {whole!r}: {text!r} is no number; {_ADVICE}") from None
