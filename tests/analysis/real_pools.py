"""Pools of real trainings, from which ``simulated_promises.py --pool`` draws studies.

Random points of a search space are trained once, the best of them again with many seeds, by a plain vectorised loop of
torch that shares no code with the engine. A training has initial values and a data order of its own; what has not
reached the goal at ``AGAIN`` times the fewest steps has missed it.

    python tests/analysis/real_pools.py digits/mlp-64 "validation/error < 0.05" digits.npz --batch-sizes 64

For each batch size B the file has B/searched, steps (N,) to the goal or infinity, and B/again, log steps (N, R) on new
seeds, infinite where a training missed the goal, NaN where a point was not trained again.

Legend: K trainings side by side, B batch, P a parameter's shape.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call, grad, vmap

import batchscope as bs
from batchscope import workloads

Array = NDArray[np.float64]
Tensors = dict[str, Tensor]
SEARCH, CLOSE, AGAIN = 4.0, 3.0, 8.0  # times the fewest steps: watched in the search, trained again, watched then
PREFIX, FAR = 512, 0.06  # an evaluation ends for those that so many examples show so far from the goal
MOMENTA = 0.5, 0.99


class Trainings:
    """K trainings by Nesterov momentum; ``points`` (K, 2) are learning rate and momentum."""

    def __init__(self, workload: bs.Workload, batch_size: int, points: Array, seed: int) -> None:
        torch.manual_seed(seed)
        models = [workload.model() for _ in points]
        self._workload, self._batch_size, self._model = workload, batch_size, models[0]
        assert isinstance(workload.train, tuple) and isinstance(workload.validation, tuple)
        self._train, self._validation = workload.train, workload.validation
        each = [dict(model.named_parameters()) for model in models]
        self.weights = {name: torch.stack([one[name].detach() for one in each]) for name in each[0]}  # (K, P)
        self._velocity = {name: torch.zeros_like(value) for name, value in self.weights.items()}
        self._points = torch.tensor(points, dtype=torch.float32)
        self.index = np.arange(len(points))
        self._generator = torch.Generator().manual_seed(seed)
        self._order, self._place = self._shuffled(), 0
        self._gradients = vmap(grad(self._loss))
        self._outputs = vmap(self._output, in_dims=(0, None))

    def step(self) -> None:
        """One update of all."""
        if self._place + self._batch_size > self._order.shape[1]:
            self._order, self._place = self._shuffled(), 0
        batch = self._order[:, self._place : self._place + self._batch_size]  # (K, B)
        self._place += self._batch_size
        inputs, targets = self._train
        for name, gradient in self._gradients(self.weights, inputs[batch], targets[batch]).items():
            rate, momentum = (self._points[:, column].view(-1, *[1] * (gradient.ndim - 1)) for column in (0, 1))
            self._velocity[name] = momentum * self._velocity[name] + gradient
            self.weights[name] = self.weights[name] - rate * (gradient + momentum * self._velocity[name])

    @torch.no_grad()
    def below(self, metric: str, goal: float) -> Tensor:
        """Which (K,) have a validation metric below the goal."""
        rows = torch.arange(len(self.index))
        if len(self._validation[0]) > 2 * PREFIX:
            rows = rows[self._means(rows, metric, PREFIX) < goal + FAR]
        found = torch.zeros(len(self.index), dtype=torch.bool)
        found[rows] = self._means(rows, metric, None) < goal
        return found

    def keep(self, reached: Tensor) -> None:
        """Go on with those that have not reached the goal and are finite."""
        finite = torch.stack([value.flatten(1).isfinite().all(1) for value in self.weights.values()]).all(0)
        rows = torch.nonzero(~reached & finite)[:, 0]
        self.weights = {name: value[rows] for name, value in self.weights.items()}
        self._velocity = {name: value[rows] for name, value in self._velocity.items()}
        self._points, self._order, self.index = self._points[rows], self._order[rows], self.index[rows.numpy()]

    def _shuffled(self) -> Tensor:
        return torch.rand(len(self._points), len(self._train[0]), generator=self._generator).argsort(1)

    def _output(self, weights: Tensors, inputs: Tensor) -> Tensor:
        found: Tensor = functional_call(self._model, weights, (inputs,))
        return found

    def _loss(self, weights: Tensors, inputs: Tensor, targets: Tensor) -> Tensor:
        return self._workload.loss(self._output(weights, inputs), targets).mean()

    def _means(self, rows: Tensor, metric: str, examples: int | None) -> Tensor:
        inputs, targets = (part[:examples] for part in self._validation)
        means = torch.zeros(len(rows), dtype=torch.float64)
        for place in (slice(start, start + 16) for start in range(0, len(rows), 16)):
            outputs = self._outputs({name: value[rows[place]] for name, value in self.weights.items()}, inputs)
            means[place] = torch.stack(
                [self._workload.metrics[metric](one, targets).double().mean() for one in outputs]
            )
        return means


def evaluations() -> Iterator[int]:
    """1, 2, ... growing by 5%."""
    step = 1
    while True:
        yield step
        step = max(step + 1, round(1.05 * step))


def train(
    workload: bs.Workload, goal: bs.Goal, batch_size: int, points: Array, seed: int, most: float, factor: float = np.inf
) -> Array:
    """Steps (K,) to the goal; infinite where it was not reached in ``most``, or ``factor`` times the fewest."""
    steps = np.full(len(points), np.inf)
    trainings, done = Trainings(workload, batch_size, points, seed), 0
    for evaluation in evaluations():
        if evaluation > min(most, factor * steps.min()) or not len(trainings.index):
            break
        while done < evaluation:
            trainings.step()
            done += 1
        reached = trainings.below(goal.metric.removeprefix("validation/"), goal.threshold)
        steps[trainings.index[reached.numpy()]] = evaluation
        trainings.keep(reached)
    return steps


def main() -> None:
    """Train the pools, and write each as it is done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload")
    parser.add_argument("goal")
    parser.add_argument("pool", type=Path)
    parser.add_argument("--batch-sizes", type=int, nargs="+", required=True)
    parser.add_argument("--points", type=int, default=512)
    parser.add_argument("--again", type=int, default=150, help="the most points that are trained again")
    parser.add_argument("--seeds", type=int, default=45)
    parser.add_argument("--rates", type=float, nargs=2, default=(3e-4, 3.0))
    parser.add_argument("--at-once", type=int, default=512)
    parser.add_argument("--data-dir")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    workload, goal = workloads.load(asked.workload, asked.data_dir), bs.Goal.parse(asked.goal)
    assert isinstance(workload.train, tuple)
    generator = np.random.default_rng(0)
    found: dict[str, Array] = {}
    for size in asked.batch_sizes:

        def trained(points: Array, most: float, factor: float = np.inf, size: int = size) -> Array:
            parts = np.array_split(points, -(-len(points) // asked.at_once))
            return np.concatenate(
                [train(workload, goal, size, part, int(generator.integers(2**31)), most, factor) for part in parts]
            )

        rate, lacks = (
            np.exp(generator.uniform(np.log(low), np.log(high), asked.points))
            for low, high in (asked.rates, (1 - MOMENTA[1], 1 - MOMENTA[0]))
        )
        searched = trained(np.stack([rate, 1 - lacks], 1), 100 * len(workload.train[0]) / size, SEARCH)
        near = np.argsort(searched, kind="stable")[: min(asked.again, int((searched <= CLOSE * searched.min()).sum()))]
        often = np.repeat(near, asked.seeds)
        steps = trained(np.stack([rate, 1 - lacks], 1)[often], AGAIN * searched.min())
        again = np.full((asked.points, asked.seeds), np.nan)
        again[near] = np.log(steps).reshape(len(near), asked.seeds)
        found |= {f"{size}/searched": searched, f"{size}/again": again}
        np.savez(asked.pool, allow_pickle=False, **found)
        missed = np.isinf(again).sum()
        print(f"{size}: {len(near)} points again, {missed} missed, {time.process_time():.0f} s", flush=True)


if __name__ == "__main__":
    main()
