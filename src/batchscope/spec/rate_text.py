"""A learning rate in words in a study, as ``batchscope schedule`` reads it: the keys that the text stands for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from batchscope import schedules
from batchscope.errors import ScheduleError
from batchscope.schedules.table import LEARNING_RATE_PARAMETERS
from batchscope.user_file import is_reference


def is_rate(raw: Any) -> bool:
    """Whether ``raw`` is a learning rate in words, such as ``"0.1, 0.02@60"``, not the name of a schedule."""
    if not isinstance(raw, str) or is_reference(raw):
        return False
    return raw not in LEARNING_RATE_PARAMETERS and any(sign in raw for sign in "0123456789@,")


def in_keys(document: Any) -> Any:
    """A study's mapping with its rate in words, if it has one, as schedule, warm-up and learning rate.

    The rate's multiples become ``algorithm.learning_rate_schedule``, with times in epochs, its warm-up ``warm_up``, and
    its base ``search.space.learning_rate``, unless the space has a learning rate of its own: then that is the base.
    What is no rate stays as it is, for the schedule to say so.
    """
    algorithm = document.get("algorithm") if isinstance(document, Mapping) else None
    text = algorithm.get("learning_rate_schedule") if isinstance(algorithm, Mapping) else None
    if not isinstance(algorithm, Mapping) or not is_rate(text):
        return document
    try:
        base, schedule = schedules.parse_learning_rate(str(text), _epochs(document.get("budget")))
    except ScheduleError:
        return document
    keys: dict[str, Any] = {}
    if isinstance(schedule, schedules.Product) and isinstance(schedule.first, schedules.Ramp):
        if algorithm.get("warm_up") is not None:
            raise ValueError(f"algorithm.warm_up: {text!r} has a warm-up already; keep one of the two")
        keys["warm_up"] = {"length": schedule.first.steps, "unit": "epochs"}
        schedule = schedule.second
    keys["learning_rate_schedule"] = _named(schedule)
    search = document.get("search", {})
    if isinstance(search, Mapping) and isinstance(space := search.get("space", {}), Mapping):
        search = {**search, "space": {"learning_rate": base, **space}}
    return {**document, "algorithm": {**algorithm, **keys}, "search": search}


def _named(schedule: schedules.Schedule) -> dict[str, Any]:
    name = next(name for name, kind in schedules.LEARNING_RATE_SCHEDULES.items() if type(schedule) is kind)
    return {"name": name, "unit": "epochs"} | {field.name: getattr(schedule, field.name) for field in fields(schedule)}


def _epochs(budget: Any) -> float | None:
    """The budget's epochs, over which a named schedule decays where the text does not say."""
    epochs = budget.get("epochs") if isinstance(budget, Mapping) else getattr(budget, "epochs", None)
    try:
        return None if epochs is None else float(epochs)
    except (TypeError, ValueError):
        return None
