"""Is the tuned optimum inside its interval, and are the regimes that are drawn from it: studies with a known optimum.

A study searches n points at 11 batch sizes on a response surface, and trains the best few again with new seeds. The
truth is the law of the surface's optimum; no search ever sees it. Nothing of the code under test samples steps.

``PYTHONPATH=tests python tests/analysis/simulated_optima.py [STUDIES]`` prints the tables of docs/statistics.md.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.simulated_promises import STUDIES as KINDS
from analysis.simulated_promises import Study
from analysis.simulated_studies import BATCH_SIZES, EVALUATIONS, GOAL, REGIMES, Truth
from batchscope.analysis import Curve, steps_to_result
from batchscope.analysis.regimes import regimes
from batchscope.analysis.searched import NEAR, Searched
from batchscope.analysis.tuned_optimum import tuned_optimum
from batchscope.plan.confirmation import candidates
from batchscope.spec.study import Confirm
from batchscope.spec.trial import Trial

Array = NDArray[np.float64]
LAW = 60 * (1 + 40 / BATCH_SIZES)
TRUTH = Truth.of(LAW)
NAMES = ("steps", *REGIMES)


def moving(points: Array, place: float) -> Array:
    """An optimum that lies elsewhere at every batch size."""
    return np.asarray((((points - (0.3 + 0.4 * place)) / 0.45) ** 2).sum(-1))


SURFACES = (*KINDS, Study("moving, 2 hyperparameters", 20, 2, moving))


MARGINS = (
    *((kind, 0.15, 32) for kind in (SURFACES[1], SURFACES[3], SURFACES[5])),
    *((kind, 0.2, 16) for kind in (SURFACES[3], SURFACES[5])),
)


def seen(log_steps: Array) -> NDArray[np.int64]:
    """The first evaluation at or after."""
    return EVALUATIONS[np.searchsorted(EVALUATIONS, np.exp(log_steps))].astype(np.int64)


def study(
    kind: Study,
    noise: float,
    generator: np.random.Generator,
    *,
    confirm: Confirm | None = None,
    margin: float = 1.5,
    law: Array = LAW,
) -> Curve:
    """The curve of one study; ``margin`` infinite trains every trial to the end, ``confirm`` None nothing again."""
    rows: list[tuple[object, ...]] = []
    measured = []
    for place, (size, base) in enumerate(zip(BATCH_SIZES.astype(int), law, strict=True)):
        points = generator.random((kind.trials, kind.dimensions))
        height = np.log(base) + np.minimum(kind.surface(points, place / (len(BATCH_SIZES) - 1)), 5.0)
        steps = seen(height + noise * generator.standard_normal(kind.trials))
        end = min(margin * steps.min(), EVALUATIONS[-1])
        stop = int(EVALUATIONS[np.searchsorted(EVALUATIONS, end, side="right") - 1])
        runs = [(index, 0, int(step), stop) for index, step in enumerate(steps)]
        if confirm is not None:
            found = [(int(step), Trial(int(size), index, {"point": index}, 0)) for index, step in enumerate(steps)]
            for _, trial in candidates(found, confirm.candidates):
                again = seen(height[trial.index] + noise * generator.standard_normal(confirm.seeds))
                runs += [(trial.index, seed, int(step), int(step)) for seed, step in enumerate(again, start=1)]
        for index, seed, step, watched in runs:
            name, reached = f"{size}-{index}-{seed}", step <= watched
            rows.append((name, size, index, seed, 0, "complete" if reached else "stopped", watched, *points[index]))
            if reached:
                measured.append((name, size, step, 0.0))
        measured += [(f"{size}-0-0", size, at, 1.0) for at in EVALUATIONS[(steps[0] > EVALUATIONS) | (steps[0] > stop)]]
    names = ["trial", "batch_size", "index", "replicate", "revision", "status", "steps"]
    names += [f"hyperparameter/h{axis}" for axis in range(kind.dimensions)]
    trials = pl.DataFrame(rows, schema=names, orient="row")
    evaluations = pl.DataFrame(measured, schema=["trial", "batch_size", "step", "validation/error"], orient="row")
    return steps_to_result(trials, evaluations, GOAL)


def quick(
    kind: Study, noise: float, generator: np.random.Generator, confirm: Confirm | None, margin: float = NEAR
) -> list[Searched]:
    """The same study, raced with a margin of ``NEAR`` at most, without its tables: what ``tuned_optimum`` is given."""
    found, scatter, freedom, gap = [], 0.0, 0, float(np.log(1.05))
    for place, (size, base) in enumerate(zip(BATCH_SIZES.astype(int), LAW, strict=True)):
        points = generator.random((kind.trials, kind.dimensions))
        height = np.log(base) + np.minimum(kind.surface(points, place / (len(BATCH_SIZES) - 1)), 5.0)
        steps = np.log(seen(height + noise * generator.standard_normal(kind.trials)))
        horizon = steps.min() + np.log(margin)
        near = np.argsort(steps)[: (steps <= horizon).sum()]
        trainings = [steps[[index]] for index in near]
        for rank, index in enumerate(near[: confirm.candidates] if confirm else ()):
            again = np.log(seen(height[index] + noise * generator.standard_normal(confirm.seeds if confirm else 0)))
            scatter, freedom = scatter + len(again) * float(again.var()), freedom + len(again) - 1
            trainings[rank] = np.append(again, steps[index])
        means, counts = (np.array([one(each) for each in trainings], dtype=np.float64) for one in (np.mean, len))
        others = np.full(kind.trials - len(near), horizon)
        gaps = np.full(len(near), gap)
        found.append(Searched(int(size), means - gap / 2, counts, gaps, horizon - gap / 2, others - gap / 2))
    return [replace(one, noise=float(np.sqrt(scatter / freedom)) if freedom else None) for one in found]


@dataclass(frozen=True)
class Held:
    """How often intervals held the truth (``NAMES``), and how wide that of the optimum was at both ends."""

    shares: dict[str, float]
    widths: tuple[float, float]


def held(kind: Study, noise: float, studies: int, confirm: Confirm | None = None, margin: float = NEAR) -> Held:
    """Over so many studies of a kind."""
    number = [other.name for other in SURFACES].index(kind.name)
    generator = np.random.default_rng([number, kind.trials, round(1e3 * noise)])
    inside, widths = [], []
    for _ in range(studies):
        samples = tuned_optimum(quick(kind, noise, generator, confirm, margin), kind.dimensions).log_steps
        low, high = np.exp(np.quantile(samples, [0.05, 0.95], axis=0))
        drawn = regimes(np.asarray(BATCH_SIZES), np.exp(np.median(samples, axis=0)), samples)
        ends = [(getattr(drawn, name), getattr(TRUTH, name)) for name in REGIMES]
        holds = [float((end.low or 0.0) <= truth <= (end.high or np.inf)) for end, truth in ends]
        inside.append([float(((low <= LAW) & (high >= LAW)).mean()), *holds])
        widths.append((high[0] / low[0], high[-1] / low[-1]))
    first, last = np.median(widths, axis=0)
    return Held(dict(zip(NAMES, np.mean(inside, axis=0).tolist(), strict=True)), (first, last))


def enough(kind: Study, noise: float, studies: int, margin: float = 1.5) -> tuple[int, float]:
    """The number of trials that studies ask for (median), and how often it does.

    Studies of so many trials are made, and their points counted that have no verdict.
    """
    generator = np.random.default_rng(7)
    asked = []
    for _ in range(studies):
        asked += study(kind, noise, generator, confirm=Confirm(), margin=margin).table["trials_needed"].to_list()
    needed = int(np.median([number for number in asked if number is not None]))
    made = [study(replace(kind, trials=needed), noise, generator, confirm=Confirm()).table for _ in range(studies)]
    return needed, float(np.mean([table["verdict"].is_null().mean() for table in made]))


def price(kind: Study, noise: float, margin: float) -> float:
    """Steps of a race over those of its winner, mean over 200 studies."""
    generator, found = np.random.default_rng(5), []
    for _ in range(200):
        for place in np.linspace(0, 1, len(BATCH_SIZES)):
            height = np.minimum(kind.surface(generator.random((kind.trials, kind.dimensions)), place), 5.0)
            steps = np.exp(height + noise * generator.standard_normal(kind.trials))
            found.append(np.minimum(steps, margin * steps.min()).sum() / steps.min())
    return float(np.mean(found))


def main(studies: int) -> None:
    """Print the coverage in Markdown."""
    print("| study | seed noise | n | steps | perfect scaling until | critical | maximum useful | width, 1 and 1024 |")
    print("|---|---|---|---|---|---|---|---|")
    for kind in SURFACES:
        for noise in (0.05, 0.2):
            for trials in (16, 32, 64):
                show(kind.name, noise, trials, held(replace(kind, trials=trials), noise, studies, confirm=Confirm()))
    for kind in (SURFACES[1], SURFACES[3], SURFACES[5]):
        for noise in (0.05, 0.2):
            show(f"{kind.name}, unconfirmed", noise, 32, held(replace(kind, trials=32), noise, studies))
    for kind, noise, trials in MARGINS:
        for margin in (1.0, 1.1, 1.25, 1.5):
            searched = replace(kind, trials=trials)
            found, cost = held(searched, noise, studies, Confirm(), margin), price(searched, noise, margin)
            show(f"{kind.name}, margin {margin:g}, a search costs {cost:.0f}", noise, trials, found)


def show(name: str, noise: float, trials: int, found: Held) -> None:
    """A line of the table."""
    shares = " | ".join(f"{100 * share:.0f}" for share in found.shares.values())
    print(f"| {name} | {noise:.0%} | {trials} | {shares} | {found.widths[0]:.2f}, {found.widths[1]:.2f} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
