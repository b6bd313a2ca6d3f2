"""The closed form of the noisy quadratic against brute force, its limits, and the workload itself."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from batchscope.seeds import numpy_generator, torch_generator
from batchscope.spec.workload import Stream
from batchscope.workloads.noisy_quadratic import (
    Array,
    Optimizer,
    expected_loss,
    noisy_quadratic,
    steps_to_goal,
)
from rows import first

RULES: list[Optimizer] = ["sgd", "momentum", "nesterov"]


def simulate(rule: Optimizer, batch_size: int, rate: float, gamma: float, steps: int, runs: int) -> Array:
    """Losses (runs, steps + 1) of independent runs in 20 dimensions, every example drawn; rules of Sh19 2.2."""
    draw = numpy_generator("noisy quadratic", rule, batch_size)
    h = 1 / np.arange(1.0, 21)
    theta, velocity = np.ones((runs, 20)), np.zeros((runs, 20))
    losses = [theta**2 @ h / 2]
    for _ in range(steps):
        examples = draw.normal(size=(runs, batch_size, 20)) / np.sqrt(h)
        gradient = (h * (theta[:, None] - examples)).mean(1)
        velocity = gamma * velocity + gradient
        theta = theta - rate * (gradient + gamma * velocity if rule == "nesterov" else velocity)
        losses.append(theta**2 @ h / 2)
    return np.stack(losses, 1)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("batch_size", [1, 4])
def test_closed_form_equals_brute_force(rule: Optimizer, batch_size: int) -> None:
    """Means of 4,000 runs lie within 4.5 standard errors of the closed form, at each of 40 steps."""
    gamma = 0.0 if rule == "sgd" else 0.8
    runs = simulate(rule, batch_size, 0.15, gamma, steps=40, runs=4000)
    exact = expected_loss(batch_size, 0.15, gamma, 40, 20, nesterov=rule == "nesterov")
    error = runs.std(0) / math.sqrt(len(runs))
    assert exact[0] == pytest.approx(np.sum(1 / np.arange(1, 21)) / 2)
    assert (np.abs(runs.mean(0) - exact)[1:] / error[1:]).max() < 4.5
    assert (error[1:] / exact[1:]).max() < 0.03  # else the test above could not fail


@pytest.mark.parametrize("nesterov", [False, True])
def test_infinite_batch_is_gradient_descent(nesterov: bool) -> None:
    h = 1 / np.arange(1.0, 9)
    theta, velocity, expected = np.ones(8), np.zeros(8), []
    for _ in range(51):
        expected.append(theta**2 @ h / 2)
        velocity = 0.9 * velocity + h * theta
        theta = theta - 0.3 * (h * theta + 0.9 * velocity if nesterov else velocity)
    np.testing.assert_allclose(expected_loss(math.inf, 0.3, 0.9, 50, 8, nesterov=nesterov), expected, rtol=1e-12)


def test_momentum_zero_is_sgd_whose_loss_is_known_by_hand() -> None:
    """E theta^2 after t steps of SGD is a^2t + eta^2 h/B (1 - a^2t) / (1 - a^2), a = 1 - eta h."""
    h, eta, batch_size = 1 / np.arange(1.0, 31), 0.2, 3
    t = np.arange(101)[:, None]
    shrink = (1 - eta * h) ** 2
    second = shrink**t + eta**2 * h / batch_size * (1 - shrink**t) / (1 - shrink)
    for nesterov in (False, True):
        np.testing.assert_allclose(
            expected_loss(batch_size, eta, 0.0, 100, 30, nesterov=nesterov), second @ h / 2, rtol=1e-11
        )


def test_settles_where_theory_says() -> None:
    """Stationary losses of SGD and of heavy-ball, from the textbook variances of both."""
    h = 1 / np.arange(1.0, 6)
    settled = expected_loss(8, 0.5, 0.0, 500, 5)[-1]
    assert settled == pytest.approx(np.sum(h * 0.5 / (2 * 8 * (2 - 0.5 * h))), rel=1e-9)
    gamma, eta = 0.6, 0.5
    # Variance of theta: eta/B (1 + gamma) / ((1 - gamma) (2 (1 + gamma) - eta h)).
    variance = eta / 8 * (1 + gamma) / ((1 - gamma) * (2 * (1 + gamma) - eta * h))
    assert expected_loss(8, eta, gamma, 500, 5)[-1] == pytest.approx(h @ variance / 2, rel=1e-9)


def test_rates_beyond_the_stable_ones_diverge() -> None:
    """Stable below 2 for SGD and 2 (1 + momentum) for heavy-ball, for the largest eigenvalue is 1."""
    rates = np.array([1.99, 2.01])
    tails = expected_loss(math.inf, rates, 0.0, 2000, 3)[:, -100:]
    assert (np.diff(tails) > 0).all(1).tolist() == [False, True]
    diverged = expected_loss(4, np.array([2.9, 3.1]), 0.5, 4000, 3)[:, -1]
    assert diverged[0] < 100
    assert diverged[1] == math.inf


def test_arguments_broadcast() -> None:
    batch = np.array([1.0, 8])[:, None, None]
    rate = np.array([0.1, 0.5])[:, None]
    gamma = np.array([0.0, 0.5, 0.9])
    together = expected_loss(batch, rate, gamma, 10, 4)
    assert together.shape == (2, 2, 3, 11)
    for i, j, k in itertools.product(range(2), range(2), range(3)):
        one = expected_loss(batch[i, 0, 0], rate[j, 0], gamma[k], 10, 4)
        np.testing.assert_allclose(together[i, j, k], one, rtol=1e-13)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("batch_size", [16, 64, math.inf])
def test_steps_to_goal_is_the_minimum_over_a_fine_grid(rule: Optimizer, batch_size: float) -> None:
    best = steps_to_goal(batch_size, 0.1, 30, optimizer=rule)
    assert best is not None
    nesterov = rule == "nesterov"
    at_best = expected_loss(batch_size, best.learning_rate, best.momentum, best.steps, 30, nesterov=nesterov)
    assert at_best[-1] < 0.1 <= at_best[:-1].min()
    gamma = np.zeros(1) if rule == "sgd" else 1 - np.geomspace(1, 0.01, 20)
    rate = np.geomspace(0.005, 4, 150)[:, None]
    fine = expected_loss(batch_size, rate, gamma, best.steps - 1, 30, nesterov=nesterov)
    assert fine.min() >= 0.1


@pytest.mark.parametrize("rule", first(1, RULES))
def test_steps_to_goal_scale_perfectly_at_small_batches_and_not_at_all_at_large_ones(rule: Optimizer) -> None:
    steps = {}
    for batch_size in (1, 2, 4096, 8192):
        best = steps_to_goal(batch_size, 0.05, 50, optimizer=rule)
        assert best is not None
        steps[batch_size] = best.steps
    assert steps[1] / steps[2] == pytest.approx(2, rel=0.03)
    assert steps[4096] / steps[8192] < 1.1


def test_momentum_needs_fewer_steps_at_large_batches() -> None:
    """Sh19 section 4.4: momentum extends perfect scaling; Zhang 2019 finds the same on this model."""
    sgd = steps_to_goal(math.inf, 0.05, 100, optimizer="sgd")
    momentum = steps_to_goal(math.inf, 0.05, 100, optimizer="momentum")
    assert sgd is not None and momentum is not None
    assert momentum.steps < sgd.steps / 3


def test_a_goal_that_is_out_of_reach_is_none_and_one_that_is_reached_is_zero() -> None:
    assert steps_to_goal(1, 0.01, 100, max_steps=50) is None
    best = steps_to_goal(1, 3.0, 10)
    assert best is not None and best.steps == 0


def test_the_workload_has_the_gradient_and_the_noise_of_the_model() -> None:
    """Per-example gradients: mean h theta, covariance diag(h), within 5 standard errors of 20,000 draws."""
    workload = noisy_quadratic(6)
    assert isinstance(workload.train, Stream)
    inputs, targets = workload.train.draw(torch_generator("test"), 20_000)
    again, _ = workload.train.draw(torch_generator("test"), 20_000)
    assert isinstance(inputs, Tensor) and isinstance(again, Tensor) and isinstance(targets, Tensor)
    assert torch.equal(inputs, again)
    module = workload.model().double()
    theta = torch.ones(6, dtype=torch.float64)

    def loss(theta: Tensor, example: Tensor) -> Tensor:
        outputs = torch.func.functional_call(module, {"theta": theta}, (example[None],))
        return workload.loss(outputs, targets[:1])[0]

    per_example = torch.func.vmap(torch.func.grad(loss), (None, 0))(theta, inputs.double())
    h = 1 / torch.arange(1.0, 7, dtype=torch.float64)
    count = len(per_example)
    assert ((per_example.mean(0) - h).abs() < 5 * (h / count).sqrt()).all()
    covariance = per_example.T.cov()
    spread = (h[:, None] * h * (1 + torch.eye(6)) / count).sqrt()
    assert ((covariance - torch.diag(h)).abs() < 5 * spread).all()


def test_the_validation_loss_is_the_exact_excess_loss() -> None:
    workload = noisy_quadratic(100)
    inputs, targets = workload.validation  # type: ignore[misc]
    start = workload.loss(workload.model()(inputs), targets)
    assert start.shape == (1,)
    assert start.item() == pytest.approx(expected_loss(1, 0.1, 0.0, 0, 100)[0], rel=1e-6)
