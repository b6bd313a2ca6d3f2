"""The trainings of a pool are those of torch's own optimizer, each on its own."""

from __future__ import annotations

import numpy as np
import torch

import batchscope as bs
from analysis.real_pools import Trainings, train
from batchscope import workloads

POINTS = np.array([[0.1, 0.9], [0.3, 0.5]])


def test_trainings_side_by_side_are_those_of_torch() -> None:
    workload = workloads.load("digits/mlp-64")
    assert isinstance(workload.train, tuple)
    inputs, targets = workload.train
    together = Trainings(workload, 32, POINTS, 7)
    order = torch.rand(2, len(inputs), generator=torch.Generator().manual_seed(7)).argsort(1)
    torch.manual_seed(7)
    models = [workload.model() for _ in POINTS]
    for _ in range(3):
        together.step()
    for place, (model, (rate, momentum)) in enumerate(zip(models, POINTS.tolist(), strict=True)):
        optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=momentum, nesterov=True)
        for step in range(3):
            batch = order[place, 32 * step : 32 * (step + 1)]
            optimizer.zero_grad()
            workload.loss(model(inputs[batch]), targets[batch]).mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        for name, value in model.named_parameters():
            torch.testing.assert_close(together.weights[name][place], value.detach())


def test_a_training_that_is_too_slow_for_the_others_has_missed_the_goal() -> None:
    workload, goal = workloads.load("digits/mlp-64"), bs.Goal.parse("validation/error < 0.3")
    points = np.array([[0.3, 0.9], [1e-6, 0.5]])
    steps = train(workload, goal, 64, points, 0, 100.0, 2.0)
    assert steps[0] < 30 and steps[1] == np.inf
