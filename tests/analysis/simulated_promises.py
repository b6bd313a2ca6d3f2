"""Is the promise kept: studies on response surfaces, their confirmation, and fresh trainings of what they recommend.

A study searches n points at 8 batch sizes, trains the best few again with new seeds as ``plan.confirmation`` says, and
promises steps by ``analysis.tuned_steps``. The setting that it recommends is then trained 40 times more. Held against
each other are the interval and one fresh training, the promise and their mean, the fewest steps of the search and their
mean. Nothing of the code under test samples steps.

``python tests/analysis/simulated_promises.py [STUDIES]`` prints the table of docs/statistics.md;
``... --pool RUN [STUDIES]`` the same over the trainings of a real run, confirmed with many candidates and seeds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batchscope.analysis.outcomes import outcomes
from batchscope.analysis.tuned_steps import Confirmation, tuned_steps
from batchscope.plan.confirmation import candidates
from batchscope.runs import open_run
from batchscope.spec.study import Confirm
from batchscope.spec.trial import Trial

Array = NDArray[np.float64]
Points = dict[int, NDArray[np.int64]]
EVALUATIONS = np.unique(np.round(1.05 ** np.arange(500)))
BATCH_SIZES = 2.0 ** np.arange(8)
FRESH = 40


def seen(log_steps: Array) -> Array:
    """Log of the first evaluation at or after; nothing takes more than e^9 times the best."""
    return np.asarray(np.log(EVALUATIONS[np.searchsorted(EVALUATIONS, np.exp(log_steps))]))


@dataclass(frozen=True)
class Study:
    """Log steps over the optimum's, at points of the unit cube, and how they vary over seeds.

    Attributes:
        name: In the table.
        trials: n at every batch size.
        dimensions: Hyperparameters.
        surface: ``surface(points, place)``, place from 0 at the smallest batch size to 1 at the largest.
    """

    name: str
    trials: int
    dimensions: int
    surface: Callable[[Array, float], Array]


def bowl(points: Array, place: float) -> Array:
    """One smooth optimum."""
    return np.asarray((((points - 0.55) / 0.45) ** 2).sum(-1))


def cliff(points: Array, place: float) -> Array:
    """Training diverges just beyond the best point."""
    away = (points - 0.55) / 0.5
    return np.asarray((away[..., 1:] ** 2).sum(-1) + np.where(away[..., 0] > 0, 9.0, -2 * away[..., 0]))


def basins(points: Array, place: float) -> Array:
    """Two optima, of which one takes 5% more steps."""
    one, other = ((((points - at) / 0.35) ** 2).sum(-1) for at in (0.7, 0.25))
    return np.asarray(np.minimum(one, 0.05 + other))


def narrowing(points: Array, place: float) -> Array:
    """An optimum that is four times as narrow at the largest batch size as at the smallest."""
    return np.asarray((((points - 0.55) / (0.6 - 0.45 * place)) ** 2).sum(-1))


STUDIES = (
    Study("bowl, 1 hyperparameter", 16, 1, bowl),
    Study("bowl, 2 hyperparameters", 20, 2, bowl),
    Study("bowl, 3 hyperparameters", 48, 3, bowl),
    Study("cliff, 2 hyperparameters", 20, 2, cliff),
    Study("two basins, 2 hyperparameters", 48, 2, basins),
    Study("narrowing, 2 hyperparameters", 32, 2, narrowing),
)
NOISES = (0.05, 0.1, 0.2, 0.3)


@dataclass(frozen=True)
class Kept:
    """Means over batch sizes and studies.

    Attributes:
        coverage: The share of fresh trainings inside the interval.
        promise: The promise over the mean of fresh trainings.
        search: The fewest steps of the search over the same mean.
        width: The upper end of the interval over the lower.
        trainings: Of the confirmation, at one batch size.
    """

    coverage: float
    promise: float
    search: float
    width: float
    trainings: float


def study(searched: Mapping[int, Array], train: Callable[[int, int], Array], confirm: Confirm) -> list[Kept]:
    """One study.

    Args:
        searched: Steps (n,) of the search by batch size.
        train: ``train(size, point)`` gives log steps of that point on new seeds, endlessly many.
        confirm: How the best are trained again.
    """
    chosen = {}
    for size, steps in searched.items():
        found = [(int(step), Trial(size, index, {"point": index}, 0)) for index, step in enumerate(steps)]
        chosen[size] = [trial.index for _, trial in candidates(found, confirm.candidates)]
    again = {
        size: Confirmation(tuple(map(str, points)), drawn, np.zeros(drawn.shape, bool), 0.05)
        for size, points in chosen.items()
        for drawn in [np.array([train(size, point)[: confirm.seeds] for point in points])]
    }
    kept = []
    for size, promise in tuned_steps(again, samples=2).items():
        value, low, high = promise.steps.value, promise.steps.low, promise.steps.high
        assert value and low and high
        fresh = np.exp(train(size, int(promise.trial))[confirm.seeds :][:FRESH])
        held = float(((low <= fresh) & (fresh <= high)).mean())
        mean = fresh.mean()
        kept.append(Kept(held, value / mean, searched[size].min() / mean, high / low, float(again[size].missed.size)))
    return kept


def simulated(kind: Study, noise: float, studies: int, confirm: Confirm | None = None) -> Kept:
    """So many studies of one kind; log steps vary normally over seeds."""
    confirm = confirm or Confirm()
    generator = np.random.default_rng([STUDIES.index(kind), round(1000 * noise)])
    found = []
    for _ in range(studies):
        height = {}
        searched = {}
        for place, size in enumerate(BATCH_SIZES):
            points = generator.random((kind.trials, kind.dimensions))
            excess = np.minimum(kind.surface(points, place / (len(BATCH_SIZES) - 1)), 7.0)
            height[int(size)] = np.log(60 * (1 + 40 / size)) + excess
            once = height[int(size)] + noise * generator.standard_normal(kind.trials)
            searched[int(size)] = np.exp(seen(once))

        def train(size: int, point: int, height: dict[int, Array] = height) -> Array:
            return seen(height[size][point] + noise * generator.standard_normal(confirm.seeds + FRESH))

        found += study(searched, train, confirm)
    return mean(found)


def resampled(runs: Mapping[int, tuple[Array, Array]], trials: int, studies: int, confirm: Confirm) -> Kept:
    """Studies of ``trials`` points drawn from real ones.

    Args:
        runs: By batch size the steps (N,) of a search, infinite where the goal was not reached in the race, and log
            steps (N, R) of the same points on new seeds; NaN where a point was not trained again, which is then slow.
        trials: n.
        studies: How many.
        confirm: How the best are trained again.
    """
    generator = np.random.default_rng(trials)
    found: list[Kept] = []
    while len(found) < studies * len(runs):
        picked = {size: generator.permutation(len(steps))[:trials] for size, (steps, _) in runs.items()}
        searched = {size: runs[size][0][points] for size, points in picked.items()}
        close = {size: [i for i, s in enumerate(steps) if s <= 1.5 * steps.min()] for size, steps in searched.items()}
        known = all(
            np.isfinite(searched[size].min()) and not np.isnan(runs[size][1][picked[size][points]]).any()
            for size, points in close.items()
        )
        if not known:  # one of its candidates was never trained again
            continue
        order = {size: generator.permutation(runs[size][1].shape[1]) for size in runs}

        def train(size: int, point: int, picked: Points = picked, order: Points = order) -> Array:
            return np.asarray(runs[size][1][picked[size][point]][order[size]])

        finite = {size: np.where(np.isfinite(steps), steps, 10 * steps.min()) for size, steps in searched.items()}
        found += study(finite, train, confirm)
    return mean(found)


def mean(found: list[Kept]) -> Kept:
    """Of each number."""
    return Kept(*(float(np.mean([getattr(one, name) for one in found])) for name in Kept.__dataclass_fields__))


def pool(folder: str) -> dict[int, tuple[Array, Array]]:
    """The trainings of a real run as ``resampled`` takes them."""
    run = open_run(folder)
    table = outcomes(run.trials, run.measurements, run.goals[0]).table
    found = {}
    for (size,), group in table.group_by("batch_size"):
        searched = group.filter(pl.col("replicate") == 0).sort("index")
        steps = searched["goal_step"].cast(pl.Float64).fill_null(np.inf).to_numpy()
        place = {index: row for row, index in enumerate(searched["index"])}
        again = group.filter(pl.col("replicate") > 0, pl.col("goal_step").is_not_null())
        logs = np.full((len(steps), int(group["replicate"].max() or 0)), np.nan)  # type: ignore[arg-type]
        for index, replicate, step in again.select("index", "replicate", "goal_step").rows():
            logs[place[index], replicate - 1] = np.log(step)
        found[int(str(size))] = steps, logs
    return found


def show(name: str, noise: str, trials: int, kept: Kept) -> None:
    """A line of the table."""
    print(
        f"| {name} | {noise} | {trials} | {100 * kept.coverage:.0f} | {kept.promise:.3f} | {kept.search:.2f} | "
        f"{kept.width:.2f} | {kept.trainings:.0f} |",
        flush=True,
    )


def main(arguments: list[str]) -> None:
    """Print the table in Markdown."""
    print("| study | seed noise | n | coverage | promise / mean | search / mean | width | trainings |")
    print("|---|---|---|---|---|---|---|---|")
    if arguments[:1] == ["--pool"]:
        studies = int(arguments[2]) if len(arguments) > 2 else 200
        for trials in (20, 48, 100):
            show(arguments[1], "real", trials, resampled(pool(arguments[1]), trials, studies, Confirm()))
        return
    studies = int(arguments[0]) if arguments else 100
    every = []
    for kind in STUDIES:
        for noise in NOISES:
            every.append(simulated(kind, noise, studies))
            show(kind.name, f"{noise:.0%}", kind.trials, every[-1])
    show("all", "", 0, mean(every))


if __name__ == "__main__":
    main(sys.argv[1:])
