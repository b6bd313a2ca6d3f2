"""The noise scale against problems whose gradient covariance is known."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import batchscope as bs
from batchscope.errors import MeterError
from batchscope.meters import NoiseScale, Observation, per_example_gradients
from batchscope.meters.ratio import ratio_of_means
from batchscope.models.transformer import CharacterTransformer
from meters.known_gradients import Quadratic, Regression, squared_error

BATCH, OBSERVATIONS, WINDOW = 16, 1200, 12
SOURCES = ("signs", "parts", "examples")
REGRESSION = Regression()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def observed(source: str, count: int = OBSERVATIONS) -> tuple[Observation, ...]:
    """A long run of one source on the regression at fixed weights; the loss that is minimised has odd factors."""
    draw, model = generator(7), REGRESSION.model()
    if source == "examples":
        meter = NoiseScale(model, window=count)
        for _ in range(count):
            meter.observe_examples(squared_error, *REGRESSION.batch(BATCH, draw))
        return meter.observations
    meter = NoiseScale(model, source=source, every=1, window=count)  # type: ignore[arg-type]
    for _ in range(count):
        model.zero_grad()
        # Parts of different sizes: an accumulated batch whose last micro-batch is short.
        for size in (6, 6, 4) if source == "parts" else (BATCH,):
            inputs, targets = REGRESSION.batch(size, draw)
            losses = squared_error(model(inputs), targets)
            meter.observe(losses)
            torch.autograd.backward(losses.sum() * 1024 / BATCH)
        if source == "parts":
            meter.end_batch()
    return meter.observations


@cache
def run(source: str) -> tuple[Observation, ...]:
    return observed(source, OBSERVATIONS // 2 if source == "examples" else OBSERVATIONS)


def columns(observations: tuple[Observation, ...], group: str = "all") -> tuple[np.ndarray, np.ndarray]:
    return np.array([o.noise[group] for o in observations]), np.array([o.signal[group] for o in observations])


@pytest.mark.parametrize("source", SOURCES)
def test_numerator_and_denominator_are_unbiased(source: str) -> None:
    for values, truth in zip(columns(run(source)), (REGRESSION.noise, REGRESSION.signal), strict=True):
        error = values.std(ddof=1) / math.sqrt(len(values))
        assert abs(values.mean() - truth) < 3 * error
        assert error < 0.04 * truth


def held(noise: np.ndarray, signal: np.ndarray, window: int, truth: float) -> float:
    """The share of windows whose interval holds the truth."""
    inside = []
    for start in range(0, len(noise), window):
        interval = ratio_of_means(noise[start : start + window], signal[start : start + window])
        inside.append((interval.low or 0) <= truth <= (interval.high or math.inf))
    return float(np.mean(inside))


@pytest.mark.parametrize("source", ["signs", "parts"])
def test_intervals_of_a_meter_hold_the_truth(source: str) -> None:
    """Of 100 windows, whose share has a standard error of 3%."""
    assert 0.83 <= held(*columns(run(source)), WINDOW, REGRESSION.noise / REGRESSION.signal) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
def test_intervals_of_a_meter_hold_the_truth_nine_times_in_ten(source: str) -> None:
    """Of 600 windows."""
    values = columns(observed(source, 600 * WINDOW))
    assert 0.85 <= held(*values, WINDOW, REGRESSION.noise / REGRESSION.signal) <= 0.95


@pytest.mark.parametrize(("dimension", "window", "scale"), [(5, 8, 32.0), (50, 16, 320.0), (50, 64, 320.0)])
def test_intervals_hold_the_truth_where_the_signal_is_weak(dimension: int, window: int, scale: float) -> None:
    """Gaussian gradients of batches of 32, the noise scale up to ten times that: 800 windows."""
    draw = np.random.default_rng(0)
    sigma = 1 / np.sqrt(np.arange(1, dimension + 1))
    mean = math.sqrt(sigma.sum() / scale / dimension)
    differences, means = (draw.normal(size=(800 * window, dimension)) * np.sqrt(sigma / 32) for _ in range(2))
    noise = 32 * (differences**2).sum(axis=1)
    signal = ((means + mean) ** 2).sum(axis=1) - noise / 32
    assert 0.85 <= held(noise, signal, window, scale) <= 0.95


def test_batches_without_replacement_measure_what_the_examples_were_drawn_from() -> None:
    """Over all batches of 4 of 6 examples: the variance with N - 1, and the training set's |G|^2 less tr(Sigma) / N."""
    inputs, targets = REGRESSION.batch(6, generator(11))
    model = REGRESSION.model()
    meter = NoiseScale(model)
    for rows in combinations(range(6), 4):
        meter.observe_examples(squared_error, inputs[list(rows)], targets[list(rows)])
    each = per_example_gradients(model, squared_error, inputs, targets)["weight"][:, 0]
    spread = each.var(dim=0, correction=1).sum().item()
    noise, signal = columns(meter.observations)
    assert noise.mean() == pytest.approx(spread)
    assert signal.mean() == pytest.approx(each.mean(dim=0).square().sum().item() - spread / 6)


def test_the_quadratic_and_its_hessian_noise() -> None:
    """tr(H Sigma) / (G'HG) = sum h^2 / sum h^3 v^2, and the simple scale is sum h / sum h^2 v^2."""
    model, draw = Quadratic(), generator(1)
    meters = {name: NoiseScale(model, source=name, every=1, window=400) for name in ("signs", "hessian")}
    for _ in range(400):
        inputs, targets = model.batch(32, draw)
        losses = model.loss(model(inputs), targets)
        for meter in meters.values():
            meter.observe(losses)
        torch.autograd.backward(losses.mean())
    h = model.h.numpy()
    truths = {"signs": (h.sum(), (h**2).sum()), "hessian": ((h**2).sum(), (h**3).sum())}
    for name, meter in meters.items():
        for values, truth in zip(columns(meter.observations), truths[name], strict=True):
            assert abs(values.mean() - truth) < 3 * values.std() / math.sqrt(len(values))
        interval = meter.estimate()
        assert interval.low and interval.high and interval.high < 1.3 * interval.low
        assert interval.low <= truths[name][0] / truths[name][1] <= interval.high


def test_the_hessian_is_that_of_other_examples_than_the_gradients() -> None:
    """Where the Hessian differs between examples, and moves with their gradients, it is still unbiased.

    Loss c (v - x)^2 / 2 with c in {1, 3} and x = c: E[c] = 2, G = E[c (v - x)], Sigma = Var[c (v - x)].
    """
    weight = nn.Parameter(torch.zeros((), dtype=torch.float64))
    model = nn.ParameterList([weight])
    meter, draw = NoiseScale(model, source="hessian", every=1, window=800), generator(2)
    for _ in range(800):
        c = 1 + 2 * torch.randint(0, 2, (6,), generator=draw).double()
        meter.observe(c * (weight - c) ** 2 / 2)
    slopes = np.array([-1.0, -9.0])
    for values, truth in zip(columns(meter.observations), (2 * slopes.var(), 2 * slopes.mean() ** 2), strict=True):
        assert abs(values.mean() - truth) < 3 * values.std() / math.sqrt(len(values))


def adam_factor(optimizer: torch.optim.Optimizer, parameter: Tensor, beta: float, name: str) -> Any:
    state = optimizer.state[parameter]
    return 1 / ((state[name] / (1 - beta ** float(state["step"]))).sqrt() + 1e-3)


@pytest.mark.parametrize(
    ("make", "factor"),
    [
        (
            lambda p: torch.optim.Adam(p, lr=0.05, betas=(0.9, 0.95), eps=1e-3),
            lambda o, p: adam_factor(o, p, 0.95, "exp_avg_sq"),
        ),
        (
            lambda p: bs.optim.AdamW(p, lr=0.05, betas=(0.9, 0.95), eps=1e-3),
            lambda o, p: adam_factor(o, p, 0.95, "second_moment"),
        ),
        (
            lambda p: torch.optim.RMSprop(p, lr=0.01, alpha=0.9, eps=1e-3),
            lambda o, p: 1 / (o.state[p]["square_avg"].sqrt() + 1e-3),
        ),
        (
            lambda p: bs.optim.RMSProp(p, lr=0.01, alpha=0.9, eps=1e-3),
            lambda o, p: 1 / (o.state[p]["square_average"].sqrt() + 1e-3),
        ),
    ],
    ids=["torch-adam", "our-adamw", "torch-rmsprop", "our-rmsprop"],
)
def test_preconditioned_by_second_moments(
    make: Callable[[Any], torch.optim.Optimizer], factor: Callable[[Any, Tensor], Tensor]
) -> None:
    """tr(P Sigma) / (G' P G) from the exact gradients of the examples, on the same batches."""
    model, draw = Quadratic(), generator(3)
    optimizer = make(model.parameters())
    meter = NoiseScale(model, optimizer=optimizer, every=1, window=1000)
    for step in range(250):
        inputs, targets = model.batch(16, draw)
        losses = model.loss(model(inputs), targets)
        meter.observe(losses)
        if step < 5:
            optimizer.zero_grad()
        torch.autograd.backward(losses.mean())
        if step < 5:
            optimizer.step()
    kept = [o for o in meter.observations if o.step >= 5]
    assert meter.observations[0].step == 1  # before its first step an optimizer has no second moments
    assert len(kept) == 245
    weight = factor(optimizer, model.v).numpy()
    h, v = model.h.numpy(), model.v.detach().numpy()
    noise, signal = (weight * h).sum(), (weight * (h * v) ** 2).sum()
    for values, truth in zip(columns(tuple(kept)), (noise, signal), strict=True):
        assert abs(values.mean() - truth) < 3.5 * values.std() / math.sqrt(len(values))


def test_preconditioned_by_the_rates_and_momenta_of_groups() -> None:
    """Factors lr / (1 - momentum) up to a common one: 0.1 / 0.1 for the first layer, 0.3 / 1 for the second."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    groups = [{"params": model[0].parameters(), "momentum": 0.9}, {"params": model[2].parameters(), "lr": 0.3}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    named = {"first": list(model[0].parameters()), "second": list(model[2].parameters())}
    plain, scaled = (NoiseScale(model, optimizer=o, groups=named, every=1) for o in (None, optimizer))
    for seed in range(4):
        losses = squared_error(model(torch.randn(8, 5, dtype=torch.float64, generator=generator(seed))), torch.zeros(8))
        plain.observe(losses)
        scaled.observe(losses)
        torch.autograd.backward(losses.mean())
    for before, after in zip(plain.observations, scaled.observations, strict=True):
        for old, new in ((before.noise, after.noise), (before.signal, after.signal)):
            assert new["first"] / old["first"] == pytest.approx(1.0 / 0.2)  # the mean rate is 0.2
            assert new["second"] / old["second"] == pytest.approx(0.3 / 0.2)
            assert new["all"] == pytest.approx(new["first"] + new["second"])
    assert plain.estimate("first") != plain.estimate("second")
    optimizer.param_groups[0]["lr"] = optimizer.param_groups[1]["lr"] = 0.0  # a warm-up that starts at zero
    scaled.observe(squared_error(model(torch.ones(8, 5, dtype=torch.float64)), torch.zeros(8)))


def test_norm_layers_alone_are_exact() -> None:
    """What the hooks find is what per-example gradients of the same parameters give."""
    torch.manual_seed(0)
    model = CharacterTransformer(vocabulary=11, layers=2, width=8, heads=2, context=6).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    tokens = torch.randint(0, 11, (7, 7), generator=generator())

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits.transpose(1, 2), targets, reduction="none").mean(dim=1)

    meter, others = NoiseScale(model, source="norm_layers", every=2), NoiseScale(model, source="hessian", every=1)
    for _ in range(3):
        losses = loss(model(tokens[:, :-1]), tokens[:, 1:])
        meter.observe(losses)
        others.observe(losses)  # with backward passes of its own
        torch.autograd.grad(losses.sum(), model.tokens.weight, retain_graph=True)  # and one of the user's
        torch.autograd.backward(losses.mean() * 37)
    assert [o.step for o in meter.observations] == [0, 2]
    exact = per_example_gradients(model, loss, tokens[:, :-1], tokens[:, 1:])
    each = torch.cat([g.reshape(7, -1) for name, g in exact.items() if "norm" in name], dim=1)
    assert each.shape[1] == 5 * 2 * 8
    noise = each.var(dim=0, correction=1).sum().item()
    for observation in meter.observations:
        assert observation.noise["all"] == pytest.approx(noise, rel=1e-9)
        assert observation.signal["all"] == pytest.approx(each.mean(dim=0).square().sum().item() - noise / 7, rel=1e-9)


@pytest.mark.parametrize(
    "layer", [nn.GroupNorm(2, 4), nn.RMSNorm(5), nn.LayerNorm((4, 5))], ids=lambda x: type(x).__name__
)
def test_every_kind_of_norm_layer_is_exact(layer: nn.Module) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(3, 4, 1), layer, nn.Tanh(), nn.Flatten(), nn.Linear(20, 1)).double()
    inputs, targets = torch.randn(6, 3, 5, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    meter = NoiseScale(model, source="norm_layers")
    losses = squared_error(model(inputs), targets)
    meter.observe(losses)
    torch.autograd.backward(losses.sum())
    exact = per_example_gradients(model, squared_error, inputs, targets)
    each = torch.cat([g.reshape(6, -1) for name, g in exact.items() if name.startswith("1.")], dim=1)
    (observation,) = meter.observations
    assert observation.noise["all"] == pytest.approx(each.var(dim=0, correction=1).sum().item(), rel=1e-9)


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 4))


@pytest.mark.parametrize("source", ["signs", "parts", "hessian"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_reduced_precision_and_the_gradient_scaler_change_nothing_but_rounding(source: Any, dtype: torch.dtype) -> None:
    estimates = []
    for reduced in (False, True):
        model, draw = small_net(), generator(5)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, enabled=reduced)
        meter = NoiseScale(model, source=source, scaler=scaler, every=1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        for _ in range(6):
            optimizer.zero_grad()
            for _ in range(3):
                x, y = torch.randn(12, 10, generator=draw), torch.randint(0, 4, (12,), generator=draw)
                with torch.autocast("cpu", dtype, enabled=reduced):
                    losses = F.cross_entropy(model(x), y, reduction="none")
                meter.observe(losses)
                torch.autograd.backward(scaler.scale(losses.mean() / 3))
            if source == "parts":
                meter.end_batch()
            scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
        estimates.append(columns(meter.observations))
    for exact, rounded in zip(*estimates, strict=True):
        # The signal is a small difference of two numbers of the size of the noise of a batch.
        assert rounded.mean() == pytest.approx(exact.mean(), rel=0.03, abs=0.03 * estimates[0][0].mean() / 12)


def test_an_overflow_is_passed_over() -> None:
    model = small_net()
    meter = NoiseScale(model, every=1)
    for factor in (1.0, math.inf, 1.0):
        losses = F.cross_entropy(model(torch.randn(8, 10)), torch.zeros(8, dtype=torch.int64), reduction="none")
        meter.observe(losses)
        torch.autograd.backward(losses.mean() * factor)
    assert [o.step for o in meter.observations] == [0, 2]


@pytest.mark.parametrize("source", ["signs", "parts"])
def test_a_resumed_meter_is_the_uninterrupted_one(source: Any) -> None:
    def train(meter: NoiseScale, model: nn.Module, steps: range) -> None:
        for step in steps:
            model.zero_grad()
            for part in range(2):
                x, y = REGRESSION.batch(4, generator(10 * step + part))
                losses = squared_error(model(x), y)
                meter.observe(losses)
                torch.autograd.backward(losses.mean())
            if source == "parts":
                meter.end_batch()

    model = REGRESSION.model()
    whole, first, second = (NoiseScale(model, source=source, every=2, window=5) for _ in range(3))
    train(whole, model, range(11))
    train(first, model, range(6))
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    train(second, model, range(6, 11))
    assert second.observations == whole.observations
    assert len(whole.observations) == 5
    assert second.estimate() == whole.estimate()


def test_a_meter_changes_no_training() -> None:
    ends = []
    for source in (None, "signs", "hessian"):
        model, draw = small_net(), generator(3)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        meter = NoiseScale(model, source=source, every=1) if source else None
        for _ in range(4):
            x, y = torch.randn(12, 10, generator=draw), torch.randint(0, 4, (12,), generator=draw)
            losses = F.cross_entropy(model(x), y, reduction="none")
            if meter:
                meter.observe(losses)
            optimizer.zero_grad()
            torch.autograd.backward(losses.mean())
            optimizer.step()
        ends.append(torch.cat([p.detach().ravel() for p in model.parameters()]))
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], ends[2])


def test_weight_decay_in_the_loss_is_signal_without_noise() -> None:
    """A term that knows no examples moves G and leaves Sigma: here it makes G exactly zero."""
    model, draw = REGRESSION.model(), generator(4)
    meter = NoiseScale(model, every=1, window=600)
    for _ in range(600):
        x, y = REGRESSION.batch(BATCH, draw)
        losses = squared_error(model(x), y)
        meter.observe(losses)
        torch.autograd.backward(losses.mean() + model.weight[0] @ REGRESSION.slope)
    noise, signal = columns(meter.observations)
    assert abs(noise.mean() - REGRESSION.noise) < 3 * noise.std() / math.sqrt(600)
    assert abs(signal.mean()) < 3 * signal.std() / math.sqrt(600)


def test_a_closed_meter_leaves_the_model_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(10, 4), nn.LayerNorm(4))
    meter = NoiseScale(model, source="norm_layers", every=1)
    losses = F.cross_entropy(model(torch.randn(8, 10)), torch.zeros(8, dtype=torch.int64), reduction="none")
    meter.observe(losses)
    torch.autograd.backward(losses.mean())
    assert len(meter.observations) == 1
    meter.close()
    assert not model[1]._forward_hooks
    assert len(meter.observations) == 1


def test_nothing_measured_leaves_everything_open() -> None:
    meter = NoiseScale(small_net())
    assert meter.estimate() == bs.meters.Interval(None, None, None)


def spoiled(how: str) -> None:
    model = small_net()
    meter = NoiseScale(model, source="parts" if "part" in how else "signs", every=1)
    x, y = torch.randn(8, 10), torch.zeros(8, dtype=torch.int64)
    losses = F.cross_entropy(model(x), y, reduction="none")
    match how:
        case "mean":
            meter.observe(losses.mean())
        case "no graph":
            meter.observe(losses.detach())
        case "unequal weights":
            meter.observe(losses)
            torch.autograd.backward((losses * torch.linspace(0, 1, 8)).mean())
            meter.estimate()
        case "one part":
            meter.observe(losses)
            torch.autograd.backward(losses.mean())
            meter.end_batch()
        case "part without end":
            meter.observe(losses)
            torch.autograd.backward(losses.mean())
            meter.estimate()
        case "clipped parts":
            for part in torch.split(losses, 4):
                meter.observe(part)
                torch.autograd.backward(part.mean(), retain_graph=True)
            nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
            meter.end_batch()
        case "end of batch":
            meter.end_batch()
        case "group":
            meter.estimate("head")
        case "batch norm":
            NoiseScale(nn.Sequential(nn.BatchNorm1d(10), model)).observe_examples(
                lambda out, target: F.cross_entropy(out, target, reduction="none"), x, y
            )
        case "optimizer":
            NoiseScale(model, optimizer=bs.optim.LARS(model.parameters(), lr=0.1))
        case "no norm layers":
            NoiseScale(model, source="norm_layers")
        case "nothing trains":
            NoiseScale(model.requires_grad_(False))


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("mean", r"got shape \(\): compute the loss with reduction=\"none\""),
        ("no graph", "without graph"),
        ("unequal weights", "every example must weigh the same"),
        ("one part", "got 1 and 1 rank"),
        ("part without end", r"call meter\.end_batch\(\)"),
        ("clipped parts", "right after the last backward pass"),
        ("end of batch", r'belongs to source="parts", got \'signs\''),
        ("group", "there is no group 'head': the groups are all"),
        ("batch norm", r"call model\.eval\(\) first"),
        ("optimizer", "optimizer must be one of .* got LARS"),
        ("no norm layers", "needs a LayerNorm, GroupNorm or RMSNorm"),
        ("nothing trains", "must have a parameter that requires a gradient"),
    ],
)
def test_what_cannot_be_measured_is_refused(how: str, says: str) -> None:
    with pytest.raises(MeterError, match=says):
        spoiled(how)
