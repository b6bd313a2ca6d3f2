"""The Hessian's diagonal, and CBLR, which steps by it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from batchscope.errors import StudyError
from batchscope.hutchinson import gradient_and_hessian_diagonal, hessian_diagonal_of_graph, signs
from batchscope.optim import CBLR

SIZE = 6


def matrix() -> Tensor:
    draws = torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return draws + draws.T


def estimate(probes: int, seed: int, hessian: Tensor) -> Tensor:
    """The diagonal of L = x H x / 2 - x.sum(), from the graph, at some x."""
    x = torch.linspace(-1, 1, SIZE, dtype=torch.float64, requires_grad=True)
    loss = x @ hessian @ x / 2 - x.sum()
    gradients = torch.autograd.grad(loss, [x], create_graph=True)
    generator = torch.Generator().manual_seed(seed)
    drawn = [[signs(x, generator)] for _ in range(probes)]
    return hessian_diagonal_of_graph(gradients, [x], drawn)[0]


def test_one_probe_is_exact_where_the_hessian_is_diagonal() -> None:
    diagonal = torch.arange(SIZE, dtype=torch.float64)
    torch.testing.assert_close(estimate(1, 3, torch.diag(diagonal)), diagonal, rtol=1e-14, atol=1e-14)


def test_it_is_unbiased_with_the_variance_of_hutchinson() -> None:
    """Variance at place i: the sum of H_ij^2 over j other than i, divided by the number of probes."""
    hessian, repeats, probes = matrix(), 1000, 3
    drawn = torch.stack([estimate(probes, seed, hessian) for seed in range(repeats)])
    variance = ((hessian**2).sum(dim=1) - hessian.diagonal() ** 2) / probes
    z_scores = (drawn.mean(dim=0) - hessian.diagonal()) / (variance / repeats).sqrt()
    assert z_scores.abs().max() < 4
    ratio = drawn.var(dim=0) / variance
    assert (ratio - 1).abs().max() < 6 * math.sqrt(2 / repeats)


def test_the_same_seed_draws_the_same_probes() -> None:
    assert torch.equal(estimate(2, 7, matrix()), estimate(2, 7, matrix()))
    assert not torch.equal(estimate(2, 7, matrix()), estimate(2, 8, matrix()))


def test_signs() -> None:
    drawn = signs(torch.empty(1000, dtype=torch.float32), torch.Generator().manual_seed(0), 4)
    assert drawn.shape == (4, 1000)
    assert drawn.dtype == torch.float32
    assert torch.equal(drawn.abs(), torch.ones(4, 1000))
    assert (drawn.mean(dim=1).abs() < 4 / math.sqrt(1000)).all()


def test_a_linear_loss_has_no_curvature() -> None:
    x = torch.ones(3, requires_grad=True)
    gradients = torch.autograd.grad((2 * x).sum(), [x], create_graph=True)
    assert torch.equal(hessian_diagonal_of_graph(gradients, [x], [[torch.ones(3)]])[0], torch.zeros(3))


def small_loss(parameters: dict[str, Tensor]) -> Tensor:
    inputs = torch.linspace(-1, 1, 8, dtype=torch.float64).reshape(4, 2)
    return ((inputs @ parameters["weight"] + parameters["bias"]).tanh() ** 2).mean()


def with_loss(parameters: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    loss = small_loss(parameters)
    return loss, loss


def small_parameters() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "weight": torch.randn(2, 3, generator=generator, dtype=torch.float64),
        "bias": torch.randn(3, generator=generator, dtype=torch.float64),
    }


def test_the_pure_form_equals_the_graph_form_and_vmaps() -> None:
    parameters, generator = small_parameters(), torch.Generator().manual_seed(2)
    probes = {name: signs(value, generator, 2) for name, value in parameters.items()}
    gradient: Any = torch.func.grad(with_loss, has_aux=True)
    value, diagonal, loss = gradient_and_hessian_diagonal(gradient, parameters, probes)
    assert torch.equal(loss, small_loss(parameters))

    leaves = {name: tensor.clone().requires_grad_() for name, tensor in parameters.items()}
    graph = torch.autograd.grad(small_loss(leaves), list(leaves.values()), create_graph=True)
    for (name, _), slope in zip(leaves.items(), graph, strict=True):
        torch.testing.assert_close(value[name], slope.detach(), rtol=1e-12, atol=1e-12)
    expected = {name: torch.zeros_like(tensor) for name, tensor in parameters.items()}
    for probe in range(2):
        z = [probes[name][probe] for name in parameters]
        for name, sign, product in zip(
            parameters, z, torch.autograd.grad(graph, list(leaves.values()), z, retain_graph=True), strict=True
        ):
            expected[name] += sign * product / 2
    for name in parameters:
        torch.testing.assert_close(diagonal[name], expected[name], rtol=1e-12, atol=1e-12)

    stacked = {name: torch.stack([tensor, tensor + 0.1]) for name, tensor in parameters.items()}
    both = torch.func.vmap(lambda p: gradient_and_hessian_diagonal(gradient, p, probes))(stacked)
    for name in parameters:
        torch.testing.assert_close(both[1][name][0], diagonal[name], rtol=1e-12, atol=1e-12)


def model_and_loss(seed: int = 0) -> tuple[nn.Module, Any]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)).double()
    inputs = torch.linspace(-1, 1, 16, dtype=torch.float64).reshape(8, 2)
    return model, lambda rows=slice(None): (model(inputs[rows]) ** 2).mean()


def exact_diagonal(model: nn.Module, loss: Any) -> list[Tensor]:
    parameters = list(model.parameters())
    slopes = torch.autograd.grad(loss(), parameters, create_graph=True)
    result = []
    for parameter, slope in zip(parameters, slopes, strict=True):
        entries = [
            torch.autograd.grad(s, parameter, retain_graph=True)[0].ravel()[i] for i, s in enumerate(slope.ravel())
        ]
        result.append(torch.stack(entries).reshape(parameter.shape))
    return result


def test_many_probes_find_the_diagonal_of_a_network() -> None:
    model, loss = model_and_loss()
    expected = torch.cat([d.ravel() for d in exact_diagonal(model, loss)])
    errors = []
    for probes in (8, 1024):
        optimizer = CBLR(model.parameters(), lr=0.1, probes=probes)
        optimizer.backward(loss())
        found = torch.cat([optimizer.hessian_diagonal(p).ravel() for p in model.parameters()])
        errors.append((found - expected).norm().item())
    assert errors[1] < errors[0] / 4  # 1 / 11 is expected of 128 times the probes


def test_backward_gives_the_gradients_of_backward() -> None:
    model, loss = model_and_loss()
    loss().backward()
    expected = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    optimizer = CBLR(model.parameters(), lr=0.1)
    optimizer.zero_grad()
    optimizer.backward(loss())
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-14, atol=1e-14)
        assert parameter.grad is not None
        assert not parameter.grad.requires_grad


def test_several_backwards_add_up() -> None:
    """Where one probe is exact, two halves of a batch give the curvature of the whole."""
    weight = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    curvatures = torch.tensor([[1.0, 2.0], [3.0, 10.0]], dtype=torch.float64)
    optimizer = CBLR([weight], lr=0.1)
    for row in curvatures:
        optimizer.backward((row * weight**2).sum() / 2)
    torch.testing.assert_close(optimizer.hessian_diagonal(weight), curvatures.sum(dim=0))
    torch.testing.assert_close(weight.grad, curvatures.sum(dim=0) * weight.detach())
    optimizer.backward(weight.sum())
    optimizer.zero_grad()
    weight.grad = torch.ones_like(weight)
    with pytest.raises(StudyError, match=r"optimizer\.backward\(loss\)"):
        optimizer.step()


def test_an_unused_parameter_is_left_alone() -> None:
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = CBLR([used, unused], lr=0.1)
    optimizer.backward((used**2).sum())
    optimizer.step()
    assert unused.grad is None
    assert torch.equal(unused, torch.ones(2))
    assert not torch.equal(used, torch.ones(2))


def test_probes_do_not_depend_on_what_else_draws() -> None:
    """Runs with the same seed agree, whatever happens to torch's global generator; other seeds differ."""
    ends = []
    for seed, noise in ((0, 1), (0, 2), (1, 1)):
        model, loss = model_and_loss()
        optimizer = CBLR(model.parameters(), lr=0.05, seed=seed)
        torch.manual_seed(noise)
        for _ in range(3):
            optimizer.zero_grad()
            optimizer.backward(loss())
            optimizer.step()
        ends.append(torch.cat([p.detach().ravel() for p in model.parameters()]))
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


def test_successive_steps_draw_new_probes() -> None:
    model, loss = model_and_loss()
    optimizer = CBLR(model.parameters(), lr=0.0)
    found = []
    for _ in range(2):
        optimizer.backward(loss())
        found.append([optimizer.hessian_diagonal(p) for p in model.parameters()])
    assert not torch.equal(found[0][0], found[1][0])
