"""Is the promise kept: studies on response surfaces, their confirmation, and fresh trainings of what they recommend.

A study searches n points at 8 batch sizes, trains the best few again with new seeds as ``plan.confirmation`` says, and
promises steps by ``analysis.tuned_steps``. The setting that it recommends is then trained 40 times more. Held against
each other are the interval and one fresh training, the promise and their mean, the fewest steps of the search and their
mean. Nothing of the code under test samples steps.

``python tests/analysis/simulated_promises.py [STUDIES]`` prints the table of docs/statistics.md;
``... --pool RUN [STUDIES]`` the same over the trainings of a real run, confirmed with many candidates and seeds.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batchscope.analysis.tuned_steps import Confirmation, tuned_steps
from batchscope.plan.confirmation import HORIZON, candidates
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
        median: The promise over their median.
        search: The fewest steps of the search over the same mean.
        width: The upper end of the interval over the lower, where it has one.
        trainings: Of the confirmation, at one batch size.
        steps: The mean of fresh trainings of the setting that was chosen.
    """

    coverage: float
    promise: float
    median: float
    search: float
    width: float
    trainings: float
    steps: float


def study(searched: Mapping[int, Array], train: Callable[[int, int], Array], confirm: Confirm) -> list[Kept]:
    """One study.

    Args:
        searched: Steps (n,) of the search by batch size.
        train: ``train(size, point)`` gives log steps of that point on new seeds, as many as ``confirm`` asks for and
            fresh ones.
        confirm: How the best are trained again.
    """
    chosen = {size: best(size, steps, confirm) for size, steps in searched.items()}
    again = {}
    for size, points in chosen.items():
        end = np.log(HORIZON * searched[size].min())
        drawn = np.array([train(size, point)[: confirm.seeds] for point in points])
        again[size] = Confirmation(tuple(map(str, points)), np.minimum(drawn, end), drawn > end, 0.05)
    kept = []
    for size, promise in tuned_steps(again, samples=2).items():
        value, low, high = promise.steps.value, promise.steps.low, promise.steps.high
        if not value or not low:  # half of the trainings missed the goal: nothing is promised
            continue
        fresh = np.exp(train(size, int(promise.trial))[confirm.seeds :][:FRESH])
        held = float(((low <= fresh) & (fresh <= (high or np.inf))).mean())
        mean, median = fresh[np.isfinite(fresh)].mean(), np.median(fresh)
        width = high / low if high else np.nan
        fewest, trainings = searched[size].min() / mean, float(again[size].missed.size)
        kept.append(Kept(held, value / mean, value / median, fewest, width, trainings, mean))
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


def resampled(
    runs: Mapping[int, tuple[Array, Array]], trials: int, studies: int, confirm: Confirm, margin: float = 1.5
) -> Kept:
    """Studies of ``trials`` points drawn from real ones.

    Args:
        runs: By batch size the steps (N,) of a search, infinite where the goal was not reached in it, and log steps
            (N, R) of the same points on new seeds, infinite where a training missed the goal; NaN where a point was not
            trained again. A study with such a candidate is not counted.
        trials: n.
        studies: How many.
        confirm: How the best are trained again.
        margin: Of the race, which stops a trial at this multiple of the fewest steps.
    """
    generator = np.random.default_rng(trials)
    found: list[Kept] = []
    for _ in range(studies):
        picked = {size: generator.permutation(len(steps))[:trials] for size, (steps, _) in runs.items()}
        searched = {size: runs[size][0][points] for size, points in picked.items()}
        searched = {size: np.where(steps <= margin * steps.min(), steps, np.inf) for size, steps in searched.items()}
        order = {size: generator.permutation(again.shape[1]) for size, (_, again) in runs.items()}

        def train(size: int, point: int, picked: Points = picked, order: Points = order) -> Array:
            return np.asarray(runs[size][1][picked[size][point]][order[size]])

        known = {
            size: steps
            for size, steps in searched.items()
            if np.isfinite(steps.min())
            and all(not np.isnan(train(size, point)).any() for point in best(size, steps, confirm))
        }
        found += study(known, train, confirm)
    return mean(found)


def best(size: int, steps: Array, confirm: Confirm) -> list[int]:
    """The candidates of a search."""
    reached = [
        (int(step), Trial(size, int(index), {"point": int(index)}, 0))
        for index, step in enumerate(steps)
        if step < np.inf
    ]
    return [trial.index for _, trial in candidates(reached, confirm.candidates)]


def mean(found: list[Kept]) -> Kept:
    """Of each number, where it is known."""
    return Kept(*(float(np.nanmean([getattr(one, name) for one in found])) for name in Kept.__dataclass_fields__))


def pool(file: str) -> dict[int, tuple[Array, Array]]:
    """The trainings of ``real_pools.py`` as ``resampled`` takes them."""
    found = np.load(file)
    sizes = sorted(int(name.partition("/")[0]) for name in found if name.endswith("/again"))
    return {size: (found[f"{size}/searched"], found[f"{size}/again"]) for size in sizes}


def noise_of(again: Array) -> float:
    """Standard deviation of log steps over seeds (N, R), of the points that are mostly within twice the fastest's."""
    medians = np.median(again, axis=1)
    near = again[medians <= np.nanmin(medians) + np.log(2)]
    return float(np.sqrt(np.var(near[np.isfinite(near).all(1)], axis=1, ddof=1).mean()))


def show(name: str, noise: str, trials: int, kept: Kept) -> None:
    """A line of the table."""
    print(
        f"| {name} | {noise} | {trials} | {100 * kept.coverage:.0f} | {kept.promise:.3f} | {kept.median:.3f} | "
        f"{kept.search:.2f} | {kept.width:.2f} | {kept.trainings:.0f} |",
        flush=True,
    )


def main(arguments: list[str]) -> None:
    """Print the table in Markdown."""
    print(
        "| study | seed noise | n | coverage | promise / mean | promise / median | search / mean | width | trainings |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    if arguments[:1] == ["--pool"]:
        studies = int(arguments[2]) if len(arguments) > 2 else 200
        runs = pool(arguments[1])
        for trials in (20, 48, 100):
            for size, one in runs.items():
                show(
                    f"batch size {size}",
                    f"{noise_of(one[1]):.0%}",
                    trials,
                    resampled({size: one}, trials, studies, Confirm()),
                )
            if len(runs) > 1:
                show("all together", "", trials, resampled(runs, trials, studies, Confirm()))
        for trials, margin in itertools.product((20, 48, 100), (1.1, 1.25, 1.5)):
            kept = resampled(runs, trials, studies, Confirm(), margin)
            show(f"margin {margin:g}: chosen settings take {kept.steps:.1f} steps", "", trials, kept)
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
