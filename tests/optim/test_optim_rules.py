"""The conformance table: every rule x every check on the pure functions."""

from __future__ import annotations

import inspect
import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from batchscope import optim
from batchscope.errors import StudyError
from batchscope.optim import OPTIMIZERS, RULES, Rule
from batchscope.optim.rule import norm
from batchscope.optim.table import HYPERPARAMETERS, TABLE, arguments, may_take
from optim.optim_references import REFERENCES
from rows import first

ALL = pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
STEPS = 7
VALUES = {  # nothing at its default, so that every hyperparameter is seen to act
    "learning_rate": 0.03,
    "momentum": 0.8,
    "weight_decay": 0.02,
    "beta1": 0.85,
    "beta2": 0.95,
    "epsilon": 1e-3,
    "smoothing": 0.9,
    "trust": 0.02,
    "minimum_radius": 0.05,
    "maximum_radius": 20.0,
    "decay_exponent": 0.7,
    "minimum_scale": 0.1,
    "clip_threshold": 1.5,
}

IN_TORCH = [name for name, row in TABLE.items() if row.torch]
# Their own in torch: compared below, for they differ in precision or in what they take.
MATRIX_RULES = ("muon", "adafactor")


def hyper_of(rule: Rule) -> dict[str, Any]:
    return {name: torch.tensor(VALUES[name], dtype=torch.float64) for name in rule.hyperparameters}


def draws(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def hessian(rule: Rule, like: Tensor, seed: int = 99) -> tuple[Tensor, ...]:
    return (draws(*like.shape, seed=seed, dtype=like.dtype),) if rule.needs_hessian_diagonal else ()


def used_slots(rule: Rule, starts: Tensor) -> dict[str, list[Tensor]]:
    """The slots of parameters that were updated once, by name."""
    found: dict[str, list[Tensor]] = {}
    for start in starts:
        gradient = draws(*start.shape, seed=2, dtype=start.dtype)
        _, slots = rule.update(start, gradient, rule.init(start), 1, hyper_of(rule), *hessian(rule, start))
        for name, slot in slots.items():
            found.setdefault(name, []).append(slot)
    return found


def trajectory(rule: Rule, start: Tensor, gradients: list[Tensor], hyper: Any) -> list[Tensor]:
    parameter, slots, seen = start, rule.init(start), []
    for step, gradient in enumerate(gradients, start=1):
        count = torch.tensor(step)
        parameter, slots = rule.update(parameter, gradient, slots, count, hyper, *hessian(rule, start, step + 50))
        seen.append(parameter)
    return seen


@pytest.mark.parametrize("name", TABLE)
def test_the_class_has_the_defaults_of_the_table(name: str) -> None:
    row = TABLE[name]
    signature = inspect.signature(getattr(optim, row.cls)).parameters
    defaults = {key: p.default for key, p in signature.items() if p.default is not inspect.Parameter.empty}
    for key, value in arguments({k: v for k, v in row.defaults.items() if v is not None}).items():
        assert defaults[key] == value, key
    assert set(row.options) <= set(signature)
    made = OPTIMIZERS[name]([torch.zeros(2, requires_grad=True)], lr=0.1)
    assert made.rule(made.param_groups[0]) is RULES[name]


def test_the_table_is_read_without_torch() -> None:
    code = "import sys; from batchscope.optim.table import TABLE; assert TABLE and 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_rule_is_named_as_its_key_and_compared_to_something() -> None:
    assert all(rule.name == name for name, rule in RULES.items())
    assert set(RULES) == {*IN_TORCH, *REFERENCES, *MATRIX_RULES}


@ALL
def test_a_rule_says_whether_it_needs_a_whole_layer(rule: Rule) -> None:
    """Where it does not, the halves of a tensor are updated as the whole is: so a shard may be updated by itself."""
    whole, gradient, hyper = draws(6, 4), draws(6, 4, seed=1), hyper_of(rule)
    curvature = hessian(rule, whole)

    def updated(rows: slice) -> Tensor:
        weight, slots = whole[rows], rule.init(whole[rows])
        for step in (1, 2):
            own = (each[rows] for each in curvature)
            weight, slots = rule.update(weight, gradient[rows], slots, torch.tensor(step), hyper, *own)
        return weight

    halves = torch.cat([updated(slice(0, 3)), updated(slice(3, 6))])
    assert torch.allclose(halves, updated(slice(None)), rtol=1e-12, atol=0) == (not rule.by_layer)


@ALL
def test_only_the_learning_rate_must_be_given(rule: Rule) -> None:
    assert [name for name, default in rule.hyperparameters.items() if default is None] == ["learning_rate"]


@pytest.mark.parametrize("name", IN_TORCH)
def test_equals_torch(name: str) -> None:
    start, gradients = draws(3, 4), [draws(3, 4, seed=s) for s in range(1, STEPS + 1)]
    ours = trajectory(RULES[name], start, gradients, hyper_of(RULES[name]))
    parameter = start.clone().requires_grad_()
    row, values = TABLE[name], {key: VALUES[key] for key in TABLE[name].defaults}
    optimizer = getattr(torch.optim, row.torch)([parameter], **arguments(values), **row.torch_options)
    for gradient, expected in zip(gradients, ours, strict=True):
        parameter.grad = gradient.clone()
        optimizer.step()
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("shape", [(3, 4), (5,), ()], ids=str)
def test_equals_the_paper(name: str, shape: tuple[int, ...]) -> None:
    rule = RULES[name]
    start, gradients = draws(*shape), [draws(*shape, seed=s) for s in range(1, STEPS + 1)]
    ours = trajectory(rule, start, gradients, hyper_of(rule))
    numbers = start.flatten().tolist()
    state: dict[str, list[float]] = {}
    for step, (gradient, expected) in enumerate(zip(gradients, ours, strict=True), start=1):
        values = VALUES | {"hessian_diagonal": draws(*shape, seed=step + 50).flatten().tolist()}
        numbers = REFERENCES[name](numbers, gradient.flatten().tolist(), state, step, values)
        torch.testing.assert_close(expected.flatten().tolist(), numbers, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", REFERENCES)
def test_equals_the_paper_where_weights_and_gradients_vanish(name: str) -> None:
    rule = RULES[name]
    weights, gradients = [0.0, 0.0, 0.5, -1.0, 0.0], [0.0, 0.3, 0.0, 0.2, 0.0]
    start, gradient = torch.tensor([weights, gradients], dtype=torch.float64)
    ours = trajectory(rule, start, [gradient], hyper_of(rule))
    values = VALUES | {"hessian_diagonal": draws(5, seed=51).tolist()}
    expected = REFERENCES[name](weights, gradients, {}, 1, values)
    torch.testing.assert_close(ours[0].tolist(), expected, rtol=1e-12, atol=1e-12)


@ALL
@pytest.mark.parametrize("shape", [(3, 4), ()], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_vmapped_equals_looped(rule: Rule, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    trials = 5
    starts = draws(trials, *shape, dtype=dtype)
    gradients = draws(trials, *shape, seed=1, dtype=dtype)
    spread = torch.linspace(0.8, 1.0, trials, dtype=torch.float64)
    hyper = {name: VALUES[name] * spread for name in rule.hyperparameters}
    steps = torch.arange(1, trials + 1)
    slots = {name: torch.stack(own) for name, own in used_slots(rule, starts).items()}
    packed, packed_slots = torch.func.vmap(rule.update)(starts, gradients, slots, steps, hyper, *hessian(rule, starts))
    assert packed.dtype == dtype
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    for k in range(trials):
        alone, alone_slots = rule.update(
            starts[k],
            gradients[k],
            {name: slot[k] for name, slot in slots.items()},
            steps[k],
            {name: value[k] for name, value in hyper.items()},
            *(h[k] for h in hessian(rule, starts)),
        )
        torch.testing.assert_close(packed[k], alone, rtol=tolerance, atol=tolerance)
        for name in slots:
            torch.testing.assert_close(packed_slots[name][k], alone_slots[name], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("rule", first(4, list(RULES.values())), ids=RULES.keys())
def test_a_new_hyperparameter_is_no_new_graph(rule: Rule) -> None:
    torch._dynamo.reset()
    counter = CompileCounter()
    update = torch.compile(rule.update, backend=counter, fullgraph=True)
    start, gradient = draws(3, 4), draws(3, 4, seed=1)
    for step, factor in enumerate((1.0, 0.5, 0.9), start=1):
        hyper = {name: value * factor for name, value in hyper_of(rule).items()}
        arguments: Any = (start, gradient, rule.init(start), torch.tensor(step), hyper, *hessian(rule, start))
        compiled, _ = update(*arguments)
        torch.testing.assert_close(compiled, rule.update(*arguments)[0], rtol=1e-12, atol=1e-12)
    assert counter.frame_count == 1


@ALL
def test_nothing_given_is_changed(rule: Rule) -> None:
    given = [draws(3, 4), draws(3, 4, seed=1), *hessian(rule, draws(3, 4))]
    slots = {name: own[0] for name, own in used_slots(rule, given[0][None]).items()}
    before = [tensor.clone() for tensor in (*given, *slots.values())]
    rule.update(given[0], given[1], slots, torch.tensor(1), hyper_of(rule), *given[2:])
    for tensor, old in zip((*given, *slots.values()), before, strict=True):
        assert torch.equal(tensor, old)


@ALL
def test_bfloat16_is_float32_rounded_once(rule: Rule) -> None:
    start, gradient = draws(3, 4).bfloat16(), draws(3, 4, seed=1).bfloat16()
    curvature = tuple(h.bfloat16() for h in hessian(rule, start))
    hyper = hyper_of(rule)
    rounded, slots = rule.update(start, gradient, rule.init(start), torch.tensor(1), hyper, *curvature)
    exact, exact_slots = rule.update(
        start.float(),
        gradient.float(),
        rule.init(start.float()),
        torch.tensor(1),
        hyper,
        *(c.float() for c in curvature),
    )
    assert torch.equal(rounded, exact.bfloat16())
    for name in slots:
        assert slots[name].dtype == torch.float32
        assert torch.equal(slots[name], exact_slots[name])


@ALL
@pytest.mark.parametrize("weight", [0.0, 0.5], ids=["zero weights", "weights"])
@pytest.mark.parametrize("slope", [0.0, 0.5], ids=["zero gradient", "gradient"])
@pytest.mark.parametrize("shape", [(6,), (), (0,), (3, 0)], ids=str)
def test_zeros_scalars_and_empty_tensors(rule: Rule, weight: float, slope: float, shape: tuple[int, ...]) -> None:
    start, gradient = torch.full(shape, weight), torch.full(shape, slope)
    hyper = hyper_of(rule) | {"weight_decay": torch.tensor(0.0)}
    curvature = (torch.zeros(shape),) if rule.needs_hessian_diagonal else ()
    parameter, slots = rule.update(start, gradient, rule.init(start), torch.tensor(1), hyper, *curvature)
    assert parameter.shape == start.shape
    assert parameter.isfinite().all()
    assert all(slot.isfinite().all() for slot in slots.values())
    assert torch.equal(parameter, start) == (slope == 0.0 or not start.numel())


@ALL
def test_divergence_is_not_hidden(rule: Rule) -> None:
    gradient = draws(3, 4, seed=1)
    gradient[1, 1] = math.nan
    start = draws(3, 4)
    parameter, _ = rule.update(
        start, gradient, rule.init(start), torch.tensor(1), hyper_of(rule), *hessian(rule, start)
    )
    assert parameter[1, 1].isnan()


@pytest.mark.parametrize("name", ["momentum", "nesterov", "lars", "mclr"])
def test_momentum_zero_has_no_memory(name: str) -> None:
    rule, start = RULES[name], draws(3, 4)
    hyper = hyper_of(rule) | {"momentum": torch.tensor(0.0)}
    fresh, _ = rule.update(start, draws(3, 4, seed=1), rule.init(start), 1, hyper)
    used, _ = rule.update(start, draws(3, 4, seed=1), {"momentum_buffer": draws(3, 4, seed=5)}, 1, hyper)
    assert torch.equal(fresh, used)


@pytest.mark.parametrize("name", ["momentum", "nesterov"])
def test_momentum_zero_is_sgd(name: str) -> None:
    start, gradients = draws(3, 4), [draws(3, 4, seed=s) for s in range(1, STEPS + 1)]
    hyper = hyper_of(RULES[name]) | {"momentum": torch.tensor(0.0)}
    for ours, plain in zip(
        trajectory(RULES[name], start, gradients, hyper),
        trajectory(RULES["sgd"], start, gradients, hyper),
        strict=True,
    ):
        assert torch.equal(ours, plain)


def test_momentum_is_the_accumulation_of_smith_2018() -> None:
    """S18 equations 6 and 7, and appendix A: A = G (1 - m^s) / (1 - m) under a constant gradient G."""
    rule, start, gradient = RULES["momentum"], draws(4), draws(4, seed=1)
    hyper: Any = {"learning_rate": 0.03, "momentum": 0.8, "weight_decay": 0.0}
    weight, accumulation = start, torch.zeros(4, dtype=torch.float64)
    slots = rule.init(start)
    for step in range(1, 30):
        start, slots = rule.update(start, gradient, slots, step, hyper)
        accumulation = accumulation - (1 - 0.8) * accumulation + gradient
        weight = weight - 0.03 * accumulation
        torch.testing.assert_close(start, weight, rtol=1e-12, atol=1e-12)
        closed_form = gradient * (1 - 0.8**step) / (1 - 0.8)
        torch.testing.assert_close(slots["momentum_buffer"], closed_form, rtol=1e-12, atol=1e-12)


def one_step(name: str, start: Tensor, gradient: Tensor, **hyper: float) -> Tensor:
    rule = RULES[name]
    values: Any = {key: hyper.get(key, default) for key, default in rule.hyperparameters.items()}
    moved, _ = rule.update(start, gradient, rule.init(start), 1, values)
    return moved - start


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_a_lars_step_is_trust_times_the_weight_norm(scale: float) -> None:
    start, gradient = draws(6, 5), scale * draws(6, 5, seed=1)
    step = one_step("lars", start, gradient, learning_rate=1.0, trust=0.02, momentum=0.0)
    assert step.norm().item() == pytest.approx(0.02 * start.norm().item(), rel=1e-12)
    assert torch.nn.functional.cosine_similarity(step.ravel(), gradient.ravel(), dim=0) < -1 + 1e-9


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_a_lamb_step_is_the_learning_rate_times_the_weight_norm(scale: float) -> None:
    start = draws(6, 5)
    step = one_step("lamb", start, scale * draws(6, 5, seed=1), learning_rate=0.02, weight_decay=0.1)
    assert step.norm().item() == pytest.approx(0.02 * start.norm().item(), rel=1e-12)


def test_a_percent_delta_step_changes_weights_by_the_same_mean_share() -> None:
    start, gradient = draws(6, 5), draws(6, 5, seed=1)
    wide = {"minimum_radius": 1e-12, "maximum_radius": 1e12}
    step = one_step("percent_delta", start, gradient, learning_rate=0.02, **wide)
    assert (step / start).abs().mean().item() == pytest.approx(0.02, rel=1e-12)


def test_the_cblr_estimate_moves_every_weight_by_its_own_size() -> None:
    start, gradient = draws(6, 5), draws(6, 5, seed=1)
    wide = {"minimum_radius": 1e-12, "maximum_radius": 1e12}
    step = one_step("cblr_estimate", start, gradient, learning_rate=0.02, **wide)
    torch.testing.assert_close(step, -0.02 * start.abs() * gradient.sign(), rtol=1e-12, atol=1e-12)


def test_cblr_on_a_parabola_is_newtons_method_near_the_minimum() -> None:
    """On a (w - b)^2 (GZ20 equation 12) with learning rate 1, the step is (1 + g^2)^(3/2) times Newton's."""
    a, b = torch.tensor([[0.5, 2.0, 8.0], [1.0, -1.0, 3.0]], dtype=torch.float64)
    start = b + 1e-3 / a
    gradient = 2 * a * (start - b)
    rule = RULES["cblr"]
    hyper: Any = {"learning_rate": 1.0, "momentum": 0.0, "weight_decay": 0.0}
    hyper |= {"minimum_radius": 1e-9, "maximum_radius": 1e9}
    moved, _ = rule.update(start, gradient, rule.init(start), 1, hyper, 2 * a)
    torch.testing.assert_close(moved - b, -1.5 * gradient**2 * (start - b), rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", ["mclr", "mclr_median"])
def test_mclr_does_not_depend_on_the_scale_of_the_gradient(name: str) -> None:
    start, gradient = draws(7, 5), draws(7, 5, seed=1)
    wide = {"minimum_radius": 1e-30, "maximum_radius": 1e30}
    small, large = (one_step(name, start, scale * gradient, learning_rate=0.1, **wide) for scale in (1e-3, 1e3))
    torch.testing.assert_close(small, large, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["lars", "lamb"])
def test_biases_and_norms_can_be_excluded(name: str) -> None:
    cls: Any = getattr(optim, name.upper())
    rule = cls([torch.zeros(2, requires_grad=True)], lr=0.1).rule({"exclude_biases_and_norms": True})
    plain = {"lars": RULES["momentum"], "lamb": RULES["adam"]}[name]
    hyper = hyper_of(rule)
    without_decay = hyper_of(plain) | {"weight_decay": torch.tensor(0.0)}
    for shape in ((5,), ()):
        start, gradient = draws(*shape), draws(*shape, seed=1)
        ours, _ = rule.update(start, gradient, rule.init(start), 1, hyper)
        expected, _ = plain.update(start, gradient, plain.init(start), 1, without_decay)
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    start, gradient = draws(5, 1), draws(5, 1, seed=1)
    ours, _ = rule.update(start, gradient, rule.init(start), 1, hyper)
    expected, _ = RULES[name].update(start, gradient, rule.init(start), 1, hyper)
    assert torch.equal(ours, expected)


def by_singular_values(matrix: Tensor, *given: Any) -> Tensor:
    """What five Newton-Schulz iterations do: a polynomial of each singular value, over the root of their squares."""
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    s = s / s.norm()
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    found: Tensor = u @ torch.diag(s) @ v
    return found


@pytest.mark.parametrize("shape", [(5, 5), (4, 9), (9, 4), (1, 6)], ids=str)
def test_muon_equals_torch_but_for_its_bfloat16(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.optim._muon._zeropower_via_newtonschulz", by_singular_values)
    start, gradients = draws(*shape), [draws(*shape, seed=s) for s in range(1, STEPS + 1)]
    parameter = start.clone().requires_grad_()
    theirs = torch.optim.Muon(
        [parameter], lr=0.03, weight_decay=0.02, momentum=0.8, adjust_lr_fn="match_rms_adamw", nesterov=True
    )
    ours = trajectory(RULES["muon"], start, gradients, hyper_of(RULES["muon"]))
    for gradient, expected in zip(gradients, ours, strict=True):
        parameter.grad = gradient.clone()
        theirs.step()  # type: ignore[no-untyped-call]
        torch.testing.assert_close(expected, parameter.detach(), rtol=1e-9, atol=1e-9)


def test_muon_leaves_all_but_matrices_to_adamw() -> None:
    for shape in ((), (5,), (2, 3, 3, 3)):
        start, gradients = draws(*shape), [draws(*shape, seed=s) for s in range(1, STEPS + 1)]
        ours, plain = (trajectory(RULES[name], start, gradients, hyper_of(RULES[name])) for name in ("muon", "adamw"))
        for one, other in zip(ours, plain, strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("shape", [(), (5,), (4, 6), (3, 4, 2, 5)], ids=str)
def test_adafactor_equals_torch(shape: tuple[int, ...]) -> None:
    start, gradients = draws(*shape), [draws(*shape, seed=s) for s in range(1, STEPS + 1)]
    parameter = start.clone().requires_grad_()
    theirs = torch.optim.Adafactor(
        [parameter], lr=0.03, beta2_decay=-0.7, eps=(None, 0.1), d=1.5, weight_decay=0.02, foreach=False
    )
    ours = trajectory(RULES["adafactor"], start, gradients, hyper_of(RULES["adafactor"]))
    for gradient, expected in zip(gradients, ours, strict=True):
        parameter.grad = gradient.clone()
        theirs.step()  # type: ignore[no-untyped-call]
        torch.testing.assert_close(expected, parameter.detach(), rtol=1e-12, atol=1e-12)


def test_the_state_of_adafactor_is_a_row_and_a_column() -> None:
    slots = RULES["adafactor"].init(torch.zeros(2, 300, 200))
    assert sum(slot.numel() for slot in slots.values()) == 2 * (300 + 200)


def test_schedule_free_is_evaluated_at_the_average_of_the_paper() -> None:
    rule, start = RULES["schedule_free_adamw"], draws(6)
    assert rule.evaluation is not None
    state: dict[str, list[float]] = {}
    parameter, slots, numbers = start, rule.init(start), start.tolist()
    for step in range(1, STEPS + 1):
        gradient = draws(6, seed=step)
        parameter, slots = rule.update(parameter, gradient, slots, step, hyper_of(rule))
        numbers = REFERENCES[rule.name](numbers, gradient.tolist(), state, step, VALUES)
        average = rule.evaluation(parameter, slots, hyper_of(rule))
        torch.testing.assert_close(average.tolist(), state["x"], rtol=1e-12, atol=1e-12)


def test_schedule_free_averages_iterates_equally_under_a_constant_rate() -> None:
    rule, start = RULES["schedule_free_adamw"], draws(4)
    hyper: Any = {"learning_rate": 0.1, "beta1": 0.9, "beta2": 0.0, "epsilon": 1e-8, "weight_decay": 0.0}
    parameter, slots, iterates = start, rule.init(start), []
    for step in range(1, 20):
        parameter, slots = rule.update(parameter, draws(4, seed=step), slots, step, hyper)
        iterates.append(slots["iterate"])
    assert rule.evaluation is not None
    average = rule.evaluation(parameter, slots, hyper)
    torch.testing.assert_close(average, torch.stack(iterates).mean(0), rtol=1e-12, atol=1e-12)


def test_what_an_optimizer_may_be_given_is_its_own_or_nobodys() -> None:
    assert may_take("adam", "beta1") and may_take("adam", "label_smoothing")
    assert not may_take("adam", "momentum") and may_take("mine.py:Own", "momentum")


@pytest.mark.parametrize("shape", [(512, 128), (128, 512), (2**16 + 1,), (3, 4)])
def test_the_norm_of_a_large_tensor_is_the_norm(shape: tuple[int, ...]) -> None:
    values = draws(*shape)
    expected = values.square().sum().sqrt()
    torch.testing.assert_close(norm(values), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(norm(values.movedim(0, -1)), expected, rtol=1e-12, atol=0)


RADII = ("minimum_radius", "maximum_radius")
STANDS_STILL_AT_ZERO = ("trust", *RADII, "decay_exponent", "clip_threshold", "minimum_scale")


@pytest.mark.parametrize("name", [*STANDS_STILL_AT_ZERO, "clip_gradient_norm", "average_weights"])
def test_zero_is_refused_where_a_rule_would_divide_by_it_or_stand_still(name: str) -> None:
    HYPERPARAMETERS[name].check(name, 1e-3)
    with pytest.raises(StudyError, match=f"{name} must be .*0"):
        HYPERPARAMETERS[name].check(name, 0.0)
