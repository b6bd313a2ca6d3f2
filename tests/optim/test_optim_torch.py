"""The conformance table of the torch optimizers: every class x every check."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, OneCycleLR, StepLR

from batchscope import optim
from batchscope.errors import StudyError
from batchscope.optim import RULES


@dataclass(frozen=True)
class Case:
    """A class, how it is made, and the pure rule with the hyperparameters that it must then follow."""

    make: Callable[[Any], Optimizer]
    rule: str
    hyper: dict[str, float]


DECAYED = {"learning_rate": 0.05, "weight_decay": 0.02}
HEAVY = DECAYED | {"momentum": 0.8}
ADAM = DECAYED | {"beta1": 0.85, "beta2": 0.95, "epsilon": 1e-3}
LION = DECAYED | {"beta1": 0.85, "beta2": 0.95}
GUARDED = HEAVY | {"minimum_radius": 0.05, "maximum_radius": 20.0}
lr_wd: Any = {"lr": 0.05, "weight_decay": 0.02}
heavy: Any = lr_wd | {"momentum": 0.8}
betas: Any = lr_wd | {"betas": (0.85, 0.95), "eps": 1e-3}
guards: Any = heavy | {"minimum_radius": 0.05, "maximum_radius": 20.0}

CASES = {
    "SGD": Case(lambda p: optim.SGD(p, **lr_wd), "sgd", DECAYED),
    "Momentum": Case(lambda p: optim.Momentum(p, **heavy), "momentum", HEAVY),
    "Nesterov": Case(lambda p: optim.Nesterov(p, **heavy), "nesterov", HEAVY),
    "Adam": Case(lambda p: optim.Adam(p, **betas), "adam", ADAM),
    "AdamW": Case(lambda p: optim.AdamW(p, **betas), "adamw", ADAM),
    "RMSProp": Case(
        lambda p: optim.RMSProp(p, alpha=0.9, eps=1e-3, **heavy),
        "rmsprop",
        HEAVY | {"smoothing": 0.9, "epsilon": 1e-3},
    ),
    "LARS": Case(lambda p: optim.LARS(p, trust=0.1, **heavy), "lars", HEAVY | {"trust": 0.1}),
    "LAMB": Case(lambda p: optim.LAMB(p, **betas), "lamb", ADAM),
    "PercentDelta": Case(lambda p: optim.PercentDelta(p, **guards), "percent_delta", GUARDED),
    "CBLR": Case(lambda p: optim.CBLR(p, **guards), "cblr", GUARDED),
    "CBLR estimate": Case(lambda p: optim.CBLR(p, curvature="estimate", **guards), "cblr_estimate", GUARDED),
    "MCLR": Case(lambda p: optim.MCLR(p, **guards), "mclr", GUARDED),
    "Lion": Case(lambda p: optim.Lion(p, betas=(0.85, 0.95), **lr_wd), "lion", LION),
    "Muon": Case(lambda p: optim.Muon(p, momentum=0.8, **betas), "muon", ADAM | {"momentum": 0.8}),
    "Adafactor": Case(
        lambda p: optim.Adafactor(p, decay_exponent=0.7, minimum_scale=0.1, clip_threshold=1.5, **lr_wd),
        "adafactor",
        DECAYED | {"decay_exponent": 0.7, "minimum_scale": 0.1, "clip_threshold": 1.5},
    ),
    "ScheduleFreeAdamW": Case(lambda p: optim.ScheduleFreeAdamW(p, **betas), "schedule_free_adamw", ADAM),
    "MCLR literal": Case(lambda p: optim.MCLR(p, median="literal", **guards), "mclr_median", GUARDED),
}
ALL = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def draws(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def some_parameters(dtype: torch.dtype) -> list[Tensor]:
    """Layers of every kind that an update must not care about."""
    values = [
        draws(4, 3, 3, 3, seed=1),
        draws(4, seed=2),
        draws(5, 3, 3, 3, seed=3).to(memory_format=torch.channels_last),
        draws(seed=4),
        draws(3, 7, seed=5).t(),
        draws(6, 8, seed=6)[:, ::2],
        torch.zeros(3, dtype=torch.float64),
        torch.zeros(0, 3, dtype=torch.float64),
        draws(11, 13, seed=7),
    ]
    return [value.detach().to(dtype).requires_grad_() for value in values]


def give_gradients(optimizer: Optimizer, seed: int) -> None:
    """Gradients, and for CBLR second derivatives, of L = sum of a (w - b)^2 / 2 with drawn a and b."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    loss = torch.zeros((), dtype=torch.float64)
    for place, parameter in enumerate(parameters):
        a, b = curve(parameter, seed, place)
        loss = loss + (a * (parameter - b) ** 2 / 2).sum()
    optimizer.zero_grad()
    if isinstance(optimizer, optim.CBLR):
        optimizer.backward(loss)
    else:
        torch.autograd.backward(loss)


def curve(parameter: Tensor, seed: int, place: int) -> tuple[Tensor, Tensor]:
    a, b = draws(2, *parameter.shape, seed=1000 * seed + place)
    return a.to(parameter.dtype), b.to(parameter.dtype)


@ALL
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_equals_the_pure_rule(case: Case, dtype: torch.dtype) -> None:
    parameters = some_parameters(dtype)
    rule: Any = RULES[case.rule]
    expected = [parameter.detach().clone() for parameter in parameters]
    slots = [rule.init(parameter) for parameter in expected]
    optimizer = case.make(parameters)
    for step in range(1, 5):
        give_gradients(optimizer, step)
        for place, parameter in enumerate(parameters):
            curvature = [curve(parameter, step, place)[0]] if rule.needs_hessian_diagonal else []
            assert parameter.grad is not None
            expected[place], slots[place] = rule.update(
                expected[place], parameter.grad, slots[place], step, case.hyper, *curvature
            )
        optimizer.step()
        tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.02}[dtype]
        for place, parameter in enumerate(parameters):
            torch.testing.assert_close(parameter.detach(), expected[place], rtol=tolerance, atol=tolerance)
            for name, slot in slots[place].items():
                if parameter.numel():
                    torch.testing.assert_close(optimizer.state[parameter][name], slot, rtol=tolerance, atol=tolerance)


@ALL
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_checkpoint_in_the_middle_is_bitwise_equal(case: Case, dtype: torch.dtype) -> None:
    whole = some_parameters(dtype)
    optimizer = case.make(whole)
    for step in range(6):
        if step == 3:
            parts = [parameter.detach().clone().requires_grad_() for parameter in whole]
            file = io.BytesIO()
            torch.save(optimizer.state_dict(), file)
            file.seek(0)
            resumed = case.make(parts)
            resumed.load_state_dict(torch.load(file, weights_only=True))
        if step >= 3:
            give_gradients(resumed, step)
            resumed.step()
        give_gradients(optimizer, step)
        optimizer.step()
    for one, other in zip(whole, parts, strict=True):
        assert torch.equal(one, other)
        for name, value in optimizer.state.get(one, {}).items():
            loaded = resumed.state[other][name]
            assert torch.equal(value, loaded) if isinstance(value, Tensor) else value == loaded


@ALL
def test_torch_schedulers_drive_it(case: Case) -> None:
    rates = []
    parameters, driven = some_parameters(torch.float64), some_parameters(torch.float64)
    by_hand, scheduled = case.make(parameters), case.make(driven)
    schedulers: list[Any] = [StepLR(scheduled, 2, gamma=0.5), CosineAnnealingLR(scheduled, 5)]
    for step in range(5):
        rates.append(scheduled.param_groups[0]["lr"])
        by_hand.param_groups[0]["lr"] = rates[-1]
        for optimizer in (by_hand, scheduled):
            give_gradients(optimizer, step)
            optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    assert len(set(rates)) > 3
    for one, other in zip(parameters, driven, strict=True):
        assert torch.equal(one, other)


@ALL
def test_a_rate_of_zero_moves_nothing(case: Case) -> None:
    parameters = some_parameters(torch.float32)
    optimizer = case.make(parameters)
    LambdaLR(optimizer, lambda _: 0.0)
    before = [parameter.detach().clone() for parameter in parameters]
    give_gradients(optimizer, 1)
    optimizer.step()
    for one, other in zip(parameters, before, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["Momentum", "Nesterov", "Adam", "LAMB", "LARS", "MCLR"])
def test_one_cycle_cycles_momentum_too(name: str) -> None:
    optimizer = CASES[name].make([nn.Parameter(draws(3))])
    key = "betas" if "betas" in optimizer.defaults else "momentum"
    before = optimizer.param_groups[0][key]
    OneCycleLR(optimizer, max_lr=1.0, total_steps=10, base_momentum=0.5, max_momentum=0.6)
    assert optimizer.param_groups[0][key] != before
    give_gradients(optimizer, 1)
    optimizer.step()


@ALL
def test_a_rate_that_is_a_tensor(case: Case) -> None:
    ones, others = some_parameters(torch.float64), some_parameters(torch.float64)
    by_number, by_tensor = case.make(ones), case.make(others)
    by_tensor.param_groups[0]["lr"] = torch.tensor(0.05, dtype=torch.float64)
    for optimizer in (by_number, by_tensor):
        give_gradients(optimizer, 1)
        optimizer.step()
    for one, other in zip(ones, others, strict=True):
        assert torch.equal(one, other)


@ALL
def test_a_closure_is_called_with_gradients_on(case: Case) -> None:
    parameters = some_parameters(torch.float64)
    optimizer = case.make(parameters)

    def closure() -> float:
        assert torch.is_grad_enabled()
        give_gradients(optimizer, 1)
        return 17.0

    before = parameters[0].detach().clone()
    assert optimizer.step(closure) == 17.0
    assert not torch.equal(parameters[0], before)


@ALL
def test_parameters_without_gradient_are_left_alone(case: Case) -> None:
    parameters = some_parameters(torch.float64)
    optimizer = case.make(parameters)
    optimizer.step()
    assert not optimizer.state
    give_gradients(optimizer, 1)
    parameters[0].grad = None
    before = parameters[0].detach().clone()
    optimizer.step()
    assert torch.equal(parameters[0], before)
    assert "step" not in optimizer.state.get(parameters[0], {})


@ALL
def test_late_parameters_count_their_own_steps(case: Case) -> None:
    early, late = nn.Parameter(draws(4, seed=1)), nn.Parameter(draws(4, seed=2))
    alone = nn.Parameter(draws(4, seed=2))
    optimizer = case.make([early])
    give_gradients(optimizer, 1)
    optimizer.step()
    optimizer.add_param_group({"params": [late]})
    fresh = case.make([alone])
    for parameter in (early, late, alone):
        parameter.grad = torch.ones(4, dtype=torch.float64)
    for each in (optimizer, fresh):
        for parameter in (early, late, alone):
            if isinstance(each, optim.CBLR) and each.param_groups[-1]["curvature"] == "hessian":
                each.state[parameter]["hessian_diagonal"] = torch.ones(4, dtype=torch.float64)
        each.step()
    assert torch.equal(late, alone)


@ALL
def test_groups_have_their_own_hyperparameters(case: Case) -> None:
    one, other = (nn.Parameter(draws(3, 4)) for _ in range(2))
    optimizer = case.make([{"params": [one]}, {"params": [other], "lr": 0.0}, {"params": []}])
    before = other.detach().clone()
    give_gradients(optimizer, 1)
    optimizer.step()
    assert torch.equal(other, before)
    assert not torch.equal(one, before)


@ALL
def test_a_sparse_gradient_is_refused(case: Case) -> None:
    embedding = nn.Embedding(5, 3, sparse=True)
    optimizer = case.make(embedding.parameters())
    embedding(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(StudyError, match="sparse=False"):
        optimizer.step()


def test_a_refused_step_changes_nothing() -> None:
    dense, sparse = nn.Linear(3, 3), nn.Embedding(5, 3, sparse=True)
    optimizer = optim.Adam([{"params": dense.parameters()}, {"params": sparse.parameters()}])
    dense(sparse(torch.tensor([1, 2]))).sum().backward()
    before = dense.weight.detach().clone()
    with pytest.raises(StudyError):
        optimizer.step()
    assert torch.equal(dense.weight, before)
    assert optimizer.state[dense.weight]["step"] == 0


@ALL
def test_named_parameters_copies_and_hooks(case: Case) -> None:
    model = nn.Linear(3, 2).double()
    optimizer = case.make(model.named_parameters())
    assert optimizer.param_groups[0]["param_names"] == ["weight", "bias"]
    called = []
    optimizer.register_step_post_hook(lambda *_: called.append(1))
    give_gradients(optimizer, 1)
    optimizer.step()
    assert called == [1]
    twin_model, twin = copy.deepcopy((model, optimizer))
    for each in (optimizer, twin):
        give_gradients(each, 2)
        each.step()
    for one, other in zip(model.parameters(), twin_model.parameters(), strict=True):
        assert torch.equal(one, other)


@ALL
def test_grad_scaler_scales_back_and_skips_overflow(case: Case) -> None:
    plain, scaled = (nn.Parameter(draws(3, 4, dtype=torch.float32)) for _ in range(2))
    one, other = case.make([plain]), case.make([scaled])
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for step, factor in enumerate((1.0, float("inf"), 1.0)):
        a, b = curve(plain, step, 0)
        for parameter, optimizer in ((plain, one), (scaled, other)):
            if parameter is plain and factor != 1.0:
                continue
            optimizer.zero_grad()
            loss = factor * (a * (parameter - b) ** 2).sum()
            if parameter is scaled:
                scale = scaler.get_scale()
                loss = scaler.scale(loss)
            else:
                scale = 1.0
            if isinstance(optimizer, optim.CBLR):
                optimizer.backward(loss, loss_scale=scale)
            else:
                torch.autograd.backward(loss)
            if parameter is scaled:
                scaler.step(optimizer)
                scaler.update()
            else:
                optimizer.step()
        torch.testing.assert_close(plain, scaled, rtol=1e-6, atol=1e-6)
    assert scaler.get_scale() == 512.0
    assert other.state[scaled]["step"] == 2


@pytest.mark.parametrize("name", ["LARS", "LAMB"])
def test_excluded_biases_and_norms(name: str) -> None:
    rule: Any = RULES[name.lower()]
    plain = {"LARS": RULES["momentum"], "LAMB": RULES["adam"]}[name]
    weight, bias = nn.Parameter(draws(3, 4)), nn.Parameter(draws(4, seed=1))
    optimizer = getattr(optim, name)([weight, bias], **lr_wd, exclude_biases_and_norms=True)
    weight.grad, bias.grad = draws(3, 4, seed=2), draws(4, seed=3)
    hyper = dict(rule.hyperparameters) | {"learning_rate": 0.05, "weight_decay": 0.02}
    without: Any = {key: hyper[key] for key in plain.hyperparameters} | {"weight_decay": 0.0}
    expected, _ = rule.update(weight.detach(), weight.grad, rule.init(weight), 1, hyper)
    expected_bias, _ = plain.update(bias.detach(), bias.grad, plain.init(bias), 1, without)
    optimizer.step()
    torch.testing.assert_close(weight.detach(), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(bias.detach(), expected_bias, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("SGD", {"lr": -1.0}, "lr must be at least 0, got -1.0"),
        ("SGD", {"lr": float("nan")}, "lr must be at least 0, got nan"),
        ("Momentum", {"lr": 1.0, "momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0"),
        ("Adam", {"betas": (0.9, 1.0)}, r"beta2 must be in \[0, 1\), got 1.0"),
        ("RMSProp", {"alpha": -0.1}, r"alpha must be in \[0, 1\), got -0.1"),
        ("ScheduleFreeAdamW", {"betas": (0.0, 0.9)}, r"beta1 must be in \(0, 1\), got 0.0"),
        ("LARS", {"lr": 1.0, "trust": 0.0}, "trust must be above 0, got 0.0"),
        ("CBLR", {"lr": 1.0, "probes": 0}, "probes must be at least 1, got 0"),
        ("CBLR", {"lr": 1.0, "curvature": "full"}, 'must be "hessian" or "estimate", got \'full\''),
        ("MCLR", {"lr": 1.0, "median": "mean"}, 'must be "absolute" or "literal", got \'mean\''),
        ("MCLR", {"lr": 1.0, "minimum_radius": 2.0, "maximum_radius": 1.0}, "minimum_radius must be at most"),
    ],
)
def test_nonsense_is_refused(name: str, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        getattr(optim, name)([nn.Parameter(draws(3))], **wrong)


def test_only_real_floating_parameters() -> None:
    with pytest.raises(StudyError, match="torch.complex64"):
        optim.SGD([torch.zeros(2, dtype=torch.complex64, requires_grad=True)], lr=1.0)


@ALL
def test_it_trains_a_network(case: Case) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1)).double()
    inputs = draws(64, 4)
    targets = inputs.prod(dim=1, keepdim=True).tanh()
    optimizer = case.make(model.parameters())
    for group in optimizer.param_groups:
        group["lr"] = {"SGD": 0.3, "LARS": 0.5}.get(type(optimizer).__name__, 0.01)
    losses = []
    for _ in range(60):
        loss = ((model(inputs) - targets) ** 2).mean()
        optimizer.zero_grad()
        if isinstance(optimizer, optim.CBLR):
            optimizer.backward(loss)
        else:
            torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_schedule_free_goes_to_the_average_and_back_bit_for_bit(dtype: torch.dtype) -> None:
    rule, plain, swapped = RULES["schedule_free_adamw"], some_parameters(dtype), some_parameters(dtype)
    one, other = (optim.ScheduleFreeAdamW(p, **betas) for p in (plain, swapped))
    assert rule.evaluation is not None
    for step in range(4):
        for optimizer in (one, other):
            give_gradients(optimizer, step)
            optimizer.step()
        other.eval()
        other.eval()
        with pytest.raises(StudyError, match=r"call optimizer\.train\(\)"):
            other.step()
        for y, x in zip(plain, swapped, strict=True):
            if y.numel():
                slots = {name: value for name, value in one.state[y].items() if name != "step"}
                at = y.detach().to(slots["iterate"].dtype)
                assert torch.equal(x.detach(), rule.evaluation(at, slots, ADAM).to(dtype))
        other.train()
        for y, x in zip(plain, swapped, strict=True):
            assert torch.equal(y, x)


def test_a_checkpoint_of_averages_trains_on_from_the_training_point() -> None:
    whole = some_parameters(torch.float64)
    optimizer = optim.ScheduleFreeAdamW(whole, **betas)
    give_gradients(optimizer, 1)
    optimizer.step()
    before = [parameter.detach().clone() for parameter in whole]
    optimizer.eval()
    parts = [parameter.detach().clone().requires_grad_() for parameter in whole]
    resumed = optim.ScheduleFreeAdamW(parts, **betas)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    resumed.train()
    for one, other in zip(before, parts, strict=True):
        assert torch.equal(one, other)
