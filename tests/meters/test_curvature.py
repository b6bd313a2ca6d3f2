"""Curvature against dense Hessians in float64."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from batchscope.errors import MeterError
from batchscope.meters import Hessian, HessianDiagonal, curvature_radius, hessian_diagonal, top_eigenvalues
from meters.known_gradients import Quadratic, squared_error


@cache
def problem() -> tuple[Hessian, np.ndarray]:
    """A small net on 37 examples, in chunks of 16, and its dense Hessian."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    inputs, targets = torch.randn(37, 3, dtype=torch.float64), torch.randn(37, dtype=torch.float64)
    hessian = Hessian(model, squared_error, inputs, targets, chunk_size=16)
    shapes = [p.shape for p in model.parameters()]

    def mean_loss(flat: torch.Tensor) -> torch.Tensor:
        parts = torch.split(flat, [shape.numel() for shape in shapes])
        named = {
            name: part.reshape(shape)
            for (name, _), part, shape in zip(model.named_parameters(), parts, shapes, strict=True)
        }
        return squared_error(torch.func.functional_call(model, named, (inputs,)), targets).mean()

    flat = torch.cat([p.detach().ravel() for p in model.parameters()])
    dense = torch.autograd.functional.hessian(mean_loss, flat)  # type: ignore[no-untyped-call]
    return hessian, dense.numpy()


def test_products_are_those_of_the_dense_hessian() -> None:
    hessian, dense = problem()
    vector = np.random.default_rng(0).normal(size=hessian.size)
    np.testing.assert_allclose(hessian.flat(hessian.product(hessian.named(vector))), dense @ vector, rtol=1e-10)


def test_the_exact_diagonal() -> None:
    hessian, dense = problem()
    exact = hessian_diagonal(hessian, probes=None)
    np.testing.assert_allclose(hessian.flat(exact.value), np.diag(dense), rtol=1e-10)
    np.testing.assert_allclose(hessian.flat(exact.inverse()), 1 / np.abs(np.diag(dense)), rtol=1e-10)


def test_hutchinson_knows_its_error() -> None:
    """Scaled errors are standard normal ones; the variance is the sum of the squares off the diagonal."""
    hessian, dense = problem()
    probes = 128
    found = hessian_diagonal(hessian, probes=probes)
    error = hessian.flat(found.standard_error)
    true = np.sqrt(((dense**2).sum(axis=1) - np.diag(dense) ** 2) / probes)
    np.testing.assert_allclose(error, true, rtol=0.5)
    assert np.abs(hessian.flat(found.value) - np.diag(dense)).max() < 4 * true.max()
    assert np.mean(np.abs(hessian.flat(found.value) - np.diag(dense)) < 1.645 * error) > 0.75


def test_the_bias_of_the_reciprocal_is_mended_or_the_entry_refused() -> None:
    """With a standard error of 1/10 the mean reciprocal is 1% too large; near zero it can be anything."""
    draws = 1 + torch.randn(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 10
    diagonal = HessianDiagonal({"w": draws}, {"w": torch.full_like(draws, 1 / 10)}, 64)
    inverse = diagonal.inverse()["w"]
    kept = inverse[~inverse.isnan()]
    assert len(kept) == len(draws)
    assert (1 / draws).mean().item() == pytest.approx(1.0103, abs=1e-3)
    assert kept.mean().item() == pytest.approx(1, abs=1e-3)
    near = HessianDiagonal({"w": torch.tensor([0.5, -3.0])}, {"w": torch.tensor([0.2, 0.1])}, 64).inverse()["w"]
    assert near[0].isnan()
    assert near[1].item() == pytest.approx(1 / 3, rel=2e-3)


@pytest.mark.parametrize("which", ["largest", "smallest", "magnitude"])
def test_top_eigenvalues(which: str) -> None:
    hessian, dense = problem()
    exact = np.linalg.eigvalsh(dense)
    key = {"largest": -exact, "smallest": exact, "magnitude": -np.abs(exact)}[which]
    np.testing.assert_allclose(top_eigenvalues(hessian, 3, which=which), exact[np.argsort(key)][:3], rtol=1e-8)  # type: ignore[arg-type]


def test_what_is_not_to_be_had_is_refused() -> None:
    hessian, _ = problem()
    with pytest.raises(MeterError, match="below the 21 parameters, got 21"):
        top_eigenvalues(hessian, 21)
    with pytest.raises(MeterError, match="probes must be at least 2"):
        hessian_diagonal(hessian, probes=1)


def test_the_curvature_radius_of_a_quadratic_is_known() -> None:
    """At v, h is the Hessian and h v the mean gradient, up to the mean of the examples, which is zero here."""
    model = Quadratic(7)
    inputs, targets = model.batch(50, torch.Generator().manual_seed(0))
    hessian = Hessian(model, model.loss, torch.cat([inputs, -inputs]), torch.cat([targets, targets]))
    # A diagonal Hessian: a few probes are exact.
    (row,) = curvature_radius(hessian, hessian_diagonal(hessian, probes=3))
    h = model.h.numpy()
    assert row.layer == "v"
    assert row.resolved == 1
    assert row.exact.value == pytest.approx(float(np.median((1 + h**2) ** 1.5 / h)))
    assert row.exact.low == pytest.approx(row.exact.high)
    assert row.estimate == pytest.approx(float(np.median(1 / h)))  # |w / g| = 1 / h at w = 1


def test_the_radius_of_few_probes_is_between_bounds_that_hold_the_exact_one() -> None:
    hessian, dense = problem()
    exact = curvature_radius(hessian, hessian_diagonal(hessian, probes=None))
    rough = curvature_radius(hessian, hessian_diagonal(hessian, probes=24))
    for sharp, wide in zip(exact, rough, strict=True):
        assert sharp.exact.value is not None
        assert sharp.estimate == wide.estimate
        assert (wide.exact.low or 0) <= sharp.exact.value <= (wide.exact.high or math.inf)
    assert min(row.resolved for row in rough) < 1
    assert len(dense) == hessian.size
