"""Gradients, strides and slopes against batch size; the linearization error."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from batchscope.data import load_digits, load_fashion_mnist
from batchscope.errors import MeterError
from batchscope.meters import (
    GradientStatistics,
    LinearizationError,
    Strides,
    gradient_statistics,
    linearization_error,
    per_example_gradients,
)
from batchscope.models import FullyConnected
from meters.known_gradients import Quadratic, squared_error


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets, reduction="none")


def check_slopes(found: GradientStatistics) -> None:
    """-1/2, -1/2 and -1, each within three standard errors, which are small."""
    quantities = [("gradient", layer, -0.5) for layer in found.layers]
    for quantity, layer, slope in [*quantities, ("parameter_stride", None, -0.5), ("loss_stride", None, -1.0)]:
        interval = found.slope(quantity, layer)  # type: ignore[arg-type]
        assert interval.value is not None and interval.low is not None and interval.high is not None
        error = (interval.high - interval.low) / 2 / 1.645
        assert error < 0.03
        assert abs(interval.value - slope) < 3 * error, (quantity, layer, interval)


def test_noise_falls_with_the_slopes_of_the_paper_on_digits() -> None:
    torch.manual_seed(0)
    inputs, targets = load_digits().train
    model = FullyConnected((8, 8), (16,))
    sizes = (32, 64, 128, 256, 512)
    check_slopes(
        gradient_statistics(model, cross_entropy, inputs, targets, batch_sizes=sizes, batches=48, centred=True)
    )
    # With the mean gradient left in, at the start of training, the slopes are shallower than the paper's.
    raw = gradient_statistics(model, cross_entropy, inputs, targets, batch_sizes=sizes, batches=12)
    assert (raw.slope("parameter_stride").low or -1) > -0.4


@pytest.mark.slow
@pytest.mark.data
def test_noise_falls_with_the_slopes_of_the_paper_on_fashion_mnist(data_dir: Path) -> None:
    torch.manual_seed(0)
    inputs, targets = load_fashion_mnist(data_dir).train
    found = gradient_statistics(
        FullyConnected((1, 28, 28), (64,)),
        cross_entropy,
        inputs,
        targets,
        batch_sizes=(32, 128, 512, 2048),
        batches=64,
        centred=True,
    )
    check_slopes(found)


def test_every_number_of_it_on_the_quadratic() -> None:
    """Gaussian noise: E|g| = sqrt(2 / (pi B)) sigma when centred, and E|g|^2 = |G|^2 + tr(Sigma) / B exactly."""
    model = Quadratic(5)
    inputs, targets = model.batch(4000, torch.Generator().manual_seed(1))
    shared = {"batch_sizes": (4, 16), "batches": 300}
    centred = gradient_statistics(model, model.loss, inputs, targets, centred=True, **shared)  # type: ignore[arg-type]
    each = per_example_gradients(model, model.loss, inputs, targets)["v"]
    sigma, mean = each.std(dim=0, correction=0).numpy(), each.mean(dim=0)
    for row, size in enumerate((4, 16)):
        drawn, exact = centred.gradient[row, :, 0], sigma.mean() * math.sqrt(2 / math.pi / size)
        assert abs(drawn.mean() - exact) < 3 * drawn.std() / math.sqrt(300)
        assert drawn.std() / math.sqrt(300) < 0.03 * exact  # the paper's 2 / sqrt(pi) would be 41% more
    assert centred.parameter_stride == pytest.approx(centred.gradient[:, :, 0])
    raw = gradient_statistics(model, model.loss, inputs, targets, **shared)  # type: ignore[arg-type]
    expected = float(mean @ mean) + (sigma**2).sum() / np.array([4, 16])
    errors = raw.loss_stride.std(axis=1) / math.sqrt(300)
    assert (np.abs(raw.mean("loss_stride") - expected) < 3 * errors).all()
    np.testing.assert_allclose(raw.per_epoch("loss_stride"), raw.mean("loss_stride") * [1000, 250])
    with pytest.raises(MeterError, match="the layers are v"):
        raw.slope("gradient", "w")
    with pytest.raises(MeterError, match="at least 2 batches"):
        gradient_statistics(model, model.loss, inputs, targets, batch_sizes=[4], batches=1)


def test_strides_of_a_training() -> None:
    """For SGD |dw| = lr |g|, and the loss stride is lr |g|^2; for any other rule it is what was done."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    strides, optimizer = Strides(model), torch.optim.SGD(model.parameters(), lr=0.1)
    seen = []
    for step in range(4):
        optimizer.zero_grad()
        torch.autograd.backward(squared_error(model(torch.randn(5, 3)), torch.zeros(5)).mean())
        seen.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
        with strides.step():
            optimizer.step()
        if step % 2:
            strides.end_epoch()
    for stride, gradients in zip(strides.steps, seen, strict=True):
        assert stride.loss_stride == pytest.approx(0.1 * sum(float((g**2).sum()) for g in gradients.values()), rel=1e-4)
        for name, gradient in gradients.items():
            assert stride.gradient[name] == pytest.approx(float(gradient.abs().mean()))
            assert stride.parameter_stride[name] == pytest.approx(0.1 * float(gradient.abs().mean()), rel=1e-3)
    assert [stride.epoch for stride in strides.steps] == [0, 0, 1, 1]
    by_epoch = strides.search_space("0.weight")
    assert by_epoch == pytest.approx(
        [sum(s.parameter_stride["0.weight"] for s in strides.steps[k : k + 2]) for k in (0, 2)]
    )
    optimizer.zero_grad()
    with pytest.raises(MeterError, match="after the backward pass"), strides.step():
        pass


def test_the_linearization_error_of_a_quadratic_is_known() -> None:
    """L(w - r g) - L(w) + r g'g = r g'(g - G) + r^2 g' H g / 2, with all examples as the batch r^2 G' H G / 2."""
    model = Quadratic(6)
    inputs, targets = model.batch(64, torch.Generator().manual_seed(2))
    shared = {"batch_sizes": (16, 32, 64), "learning_rate": 0.5, "base_batch_size": 16, "batches": 3}
    found = linearization_error(model, model.loss, inputs, targets, chunk_size=10, **shared)  # type: ignore[arg-type]
    assert found.learning_rates == (0.5, 1.0, 2.0)
    slope = model.h * (1 - inputs.mean(dim=0))
    assert found.errors[2] == pytest.approx(np.full(3, 2.0**2 / 2 * float((model.h * slope**2).sum())))
    rates = [
        linearization_error(model, model.loss, inputs, targets, scaling=scaling, **shared).learning_rates  # type: ignore[arg-type]
        for scaling in ("square_root", "constant")
    ]
    assert rates == [(0.5, 0.5 * math.sqrt(2), 1.0), (0.5, 0.5, 0.5)]
    torch.testing.assert_close(model.v.detach(), torch.ones(6, dtype=torch.float64))


def test_where_the_linearization_error_passes_one() -> None:
    errors = np.array([[0.01, 0.01], [0.25, 0.25], [4.0, 4.0], [math.inf, math.inf]])
    found = LinearizationError((8, 16, 64, 128), (0.1, 0.2, 0.8, 1.6), errors)
    crossing = found.passes()
    assert crossing.value == pytest.approx(32)  # half way in logarithms
    assert crossing.low == pytest.approx(32)
    assert crossing.high == pytest.approx(32)
    assert found.passes(10.0).value == pytest.approx(64)  # what follows is infinite
    assert found.passes(0.001).value is None
    below = LinearizationError((8, 16), (0.1, 0.2), errors[:2])
    assert below.passes().value is None


def test_batch_sizes_beyond_the_examples_are_refused() -> None:
    model = Quadratic(2)
    with pytest.raises(MeterError, match="at most the 4 examples"):
        linearization_error(
            model, model.loss, torch.zeros(4, 2), torch.zeros(4), batch_sizes=[2, 8], learning_rate=1, base_batch_size=2
        )
