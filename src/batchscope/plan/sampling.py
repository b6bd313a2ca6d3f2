"""Points of a search space, in an order that depends on the study's seed and the batch size only."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Mapping

import numpy as np

from batchscope.seeds import key
from batchscope.spec.space import OPTIMIZER, Choice, Dimension, Range, Space, Value
from batchscope.spec.study import Search
from batchscope.spec.trial import Trial

Point = dict[str, Value]

_BLOCK = 64


def points(search: Search, seed: int) -> Iterator[Point]:
    """The points of a search, one after the other; endless unless it is a grid.

    Sobol and Halton sequences are scrambled, so that different seeds are independent searches, each as even. Several
    optimizers take turns, and each has a sequence of its own.

    Args:
        search: Method and space.
        seed: What the scrambling or the draws depend on.
    """
    if not search.optimizers:
        yield from _points(search.method, search.space, seed)
        return
    spaces = search.optimizers.items()
    yield from _in_turn([_of_optimizer(name, search.method, space, seed) for name, space in spaces])


def _of_optimizer(name: str, method: str, space: Mapping[str, Dimension], seed: int) -> Iterator[Point]:
    for point in _points(method, space, key(seed, OPTIMIZER, name)):
        yield {OPTIMIZER: name, **point}


def _points(method: str, space: Mapping[str, Dimension], seed: int) -> Iterator[Point]:
    if method == "grid":
        yield from grid(space)
        return
    for unit in _unit_points(method, len(space), seed):
        yield at(space, unit)


def _in_turn(sources: list[Iterator[Point]]) -> Iterator[Point]:
    """One of each, until all have ended."""
    while sources:
        for source in list(sources):
            point = next(source, None)
            if point is None:
                sources.remove(source)
            else:
                yield point


def at(space: Mapping[str, Dimension], unit: np.ndarray) -> Point:
    """The point of the space at ``unit`` in [0, 1)^d."""
    return {name: dimension.from_unit(float(u)) for (name, dimension), u in zip(space.items(), unit, strict=True)}


def grid(space: Mapping[str, Dimension]) -> Iterator[Point]:
    """Every combination of the values of a grid; the last dimension changes fastest."""
    axes = [_axis(dimension) for dimension in space.values()]
    for values in itertools.product(*axes):
        yield dict(zip(space, values, strict=True))


def _axis(dimension: Dimension) -> list[Value]:
    if isinstance(dimension, Choice):
        return list(dimension.values)
    assert isinstance(dimension, Range) and dimension.points is not None
    return [dimension.from_unit(i / (dimension.points - 1)) for i in range(dimension.points)]


def _unit_points(method: str, dimensions: int, seed: int) -> Iterator[np.ndarray]:
    """Points of the unit cube, drawn in blocks: a prefix never depends on how many follow."""
    if method == "random":
        generator = np.random.default_rng(seed)
        while True:
            yield from generator.random((_BLOCK, dimensions))
    from scipy.stats import qmc  # here, because it takes as long to load as all else, and few readers of a run sample

    sampler: qmc.QMCEngine
    if method == "sobol":
        sampler = qmc.Sobol(dimensions, scramble=True, rng=np.random.default_rng(seed))
    else:
        sampler = qmc.Halton(dimensions, scramble=True, rng=np.random.default_rng(seed))
    while True:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # Sobol's balance wants powers of two; replacements have none
            yield from sampler.random(_BLOCK)


def trials(search: Search, batch_size: int, study_seed: int) -> Iterator[Trial]:
    """The trials at a batch size, in the order in which they are run: an independent search at every batch size."""
    for index, point in enumerate(points(search, key(study_seed, "search", batch_size))):
        yield Trial(batch_size, index, point, study_seed)


def further_trials(
    search: Search, inside: Mapping[str, Space], batch_size: int, study_seed: int, revision: int, start: int
) -> Iterator[Trial]:
    """Trials of a widened search that the spaces before it, ``inside``, could not have had; indices from ``start``."""
    wider = {name: space for name, space in search.spaces.items() if space != inside[name]}
    found = points(search.with_spaces(wider), key(study_seed, "search", batch_size, "revision", revision))
    fresh = (point for point in found if not contains(inside[str(point.get(OPTIMIZER, ""))], point))
    for index, point in enumerate(fresh, start):
        yield Trial(batch_size, index, point, study_seed, revision=revision)


def contains(space: Mapping[str, Dimension], point: Mapping[str, Value]) -> bool:
    """Whether a point lies within every range of a space."""
    ranges = ((d, point[name]) for name, d in space.items() if isinstance(d, Range))
    return all(d.min <= float(value) <= d.max for d, value in ranges)


def first_trials(search: Search, batch_size: int, study_seed: int, count: int) -> list[Trial]:
    """The first trials at a batch size; fewer where a grid has fewer points."""
    return list(itertools.islice(trials(search, batch_size, study_seed), count))
