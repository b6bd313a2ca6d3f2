"""Steps that were tuned before they came here, as published tables are: a setting a batch size, trained once or more.

Legend: M batch sizes, D samples.

Nothing was searched, so no training is lucky, and how far steps lie from a smooth curve is their error: the residuals
of the law that the evidence is for (``laws.evidence``), with what several trainings of one batch size differ among
themselves. One size of the error serves all batch sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import polars as pl

from batchscope.analysis import laws
from batchscope.analysis.seed_noise import deviations, reach_of_one_more
from batchscope.analysis.tuned_steps import TunedSteps, predicted
from batchscope.interval import Interval
from batchscope.seeds import numpy_generator


def tuned_rows(groups: Mapping[int, pl.DataFrame], *, level: float = 0.9, samples: int = 1000) -> dict[int, TunedSteps]:
    """The steps of one further training at every batch size that reached the goal.

    Args:
        groups: By batch size the rows of ``Outcomes.table``: trainings of the setting that was tuned there.
        level: Of the intervals.
        samples: D.

    Returns:
        Medians with the interval of one training; without an interval where there are too few batch sizes for a law and
        no batch size has two rows.
    """
    logs = {size: np.log(group.get_column("goal_step").drop_nulls().to_numpy() * 1.0) for size, group in groups.items()}
    logs = {size: steps for size, steps in sorted(logs.items()) if len(steps)}
    whole, freedom = _error(logs)
    generator = numpy_generator("tuned rows", *logs)
    error = float(np.sqrt(whole / freedom)) if freedom else None
    deviation = deviations(whole, freedom, generator.random(samples)) if freedom else np.empty(0)
    found = {}
    for size, steps in logs.items():
        group, count = groups[size], len(steps)
        missed, value = group.height - count, float(steps.mean())
        trial = str(group.sort("goal_step", nulls_last=True).item(0, "trial"))
        if error is None:
            none = np.empty(0)
            found[size] = TunedSteps(
                trial, Interval(float(np.exp(value)), None, None, level), count, missed, none, none
            )
            continue
        median = value + deviation * generator.standard_normal(samples) / np.sqrt(count)
        fresh = median + deviation * generator.standard_normal(samples)
        steps_of = predicted(value, reach_of_one_more(whole, freedom, count, level), level)
        if missed:
            steps_of = replace(steps_of, high=None)
        found[size] = TunedSteps(trial, steps_of, count, missed, median, fresh, error)
    return found


def _error(logs: Mapping[int, np.ndarray[tuple[int, ...], np.dtype[np.float64]]]) -> tuple[float, int]:
    """The sum of squares of single trainings about their curve, and its degrees of freedom."""
    whole = sum(float(((steps - steps.mean()) ** 2).sum()) for steps in logs.values())
    freedom = sum(len(steps) - 1 for steps in logs.values())
    if len(logs) >= 4:
        sizes, counts = np.array(list(logs), dtype=np.float64), np.array([len(steps) for steps in logs.values()])
        means = np.array([steps.mean() for steps in logs.values()])
        sharper = bool(laws.evidence(sizes, np.exp(means)).get_column("chosen")[1])
        law = laws.fit(sizes, np.exp(means), sharpness=None if sharper else 1.0).law
        away = means - np.log([law.steps(size) for size in sizes])
        whole += float((counts * away**2).sum())
        freedom += len(logs) - (3 if sharper else 2)
    return whole, freedom
