"""Every schedule against its formula in plain Python, and every schedule x every property."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from batchscope.errors import ScheduleError
from batchscope.schedules import (
    LEARNING_RATE_SCHEDULES,
    Constant,
    Cosine,
    Exponential,
    ExponentialPolynomial,
    InverseExponentialPolynomial,
    Linear,
    PiecewiseConstant,
    PiecewiseLinear,
    Schedule,
)
from batchscope.schedules.learning_rate import Number

T, A, POWER = 40.0, 0.05, 1.7
TIMES = [0.0, 0.5, 1.0, 7.0, 19.0, 20.0, 39.0, 39.999, 40.0, 41.0, 1e6]


def constant(t: float) -> float:
    return 1.0


def linear(t: float) -> float:
    return 1 - (1 - A) * t / T if t <= T else A


def cosine(t: float) -> float:
    return A + (1 - A) / 2 * (1 + math.cos(math.pi * t / T)) if t <= T else A


def exponential_polynomial(t: float) -> float:
    return A + (1 - A) * (1 - t / T) ** POWER if t <= T else A


def inverse_exponential_polynomial(t: float) -> float:
    return float(A / (A + (1 - A) * (t / T) ** POWER)) if t <= T else A


def exponential(t: float) -> float:
    return float(A ** (t / T)) if t <= T else A


def piecewise_linear(t: float) -> float:
    if t < 8:
        return 0.2 + (1.0 - 0.2) / 8 * t
    return 1.0 + (A - 1.0) / (T - 8) * (t - 8) if t < T else A


def piecewise_constant(t: float) -> float:
    return 1.0 if t < 20 else 0.2 if t < T else A


CASES: dict[str, tuple[Schedule, Callable[[float], float]]] = {
    "constant": (Constant(), constant),
    "linear": (Linear(T, A), linear),
    "cosine": (Cosine(T, A), cosine),
    "exponential_polynomial": (ExponentialPolynomial(T, A, POWER), exponential_polynomial),
    "inverse_exponential_polynomial": (
        InverseExponentialPolynomial(T, A, POWER),
        inverse_exponential_polynomial,
    ),
    "exponential": (Exponential(T, A), exponential),
    "piecewise_linear": (PiecewiseLinear((0, 8, T), (0.2, 1.0, A)), piecewise_linear),
    "piecewise_constant": (PiecewiseConstant((20, T), (0.2, A)), piecewise_constant),
}
table = pytest.mark.parametrize("name", LEARNING_RATE_SCHEDULES)


def test_the_dictionary_names_every_case_and_its_class() -> None:
    assert {name: type(schedule) for name, (schedule, _) in CASES.items()} == LEARNING_RATE_SCHEDULES


@table
def test_equals_the_formula(name: str) -> None:
    schedule, formula = CASES[name]
    for t in TIMES:
        assert float(schedule.factor(t)) == pytest.approx(formula(t), rel=1e-14, abs=1e-15)


@table
def test_many_steps_at_once_are_the_steps_one_by_one(name: str) -> None:
    schedule, _ = CASES[name]
    together = schedule.factor(torch.arange(60))
    assert together.dtype == torch.float64
    alone = torch.stack([schedule.factor(t) for t in range(60)])
    torch.testing.assert_close(together, alone, rtol=1e-15, atol=0)


@table
def test_stays_at_the_last_factor_exactly(name: str) -> None:
    schedule, formula = CASES[name]
    assert set(schedule.factor(torch.tensor([T, T + 1, 1e9], dtype=torch.float64)).tolist()) == {formula(1e9)}


@table
def test_knots_are_where_the_formula_changes(name: str) -> None:
    """Between two knots a schedule is smooth, so its third differences vanish on a fine grid."""
    schedule, _ = CASES[name]
    edges = [0.0, *schedule.knots, 2 * T]
    assert edges == sorted(edges)
    for start, end in zip(edges, edges[1:], strict=False):
        inside = torch.linspace(start, end, 4002, dtype=torch.float64)[1:-1]
        assert schedule.factor(inside).diff(n=2).diff().abs().max() < 2e-5


@table
def test_a_floating_point_step_keeps_its_type(name: str) -> None:
    schedule, formula = CASES[name]
    factor = schedule.factor(torch.tensor(7.0, dtype=torch.float32))
    assert factor.dtype == torch.float32
    assert float(factor) == pytest.approx(formula(7.0), rel=1e-6)


def build(name: str) -> Callable[[Number, Number, Number], Schedule]:
    """A schedule of three parameters: decay steps, decay factor, power."""
    return {
        "linear": lambda t, a, p: Linear(t, a),
        "cosine": lambda t, a, p: Cosine(t, a),
        "exponential_polynomial": ExponentialPolynomial,
        "inverse_exponential_polynomial": InverseExponentialPolynomial,
        "exponential": lambda t, a, p: Exponential(t, a),
        "piecewise_linear": lambda t, a, p: PiecewiseLinear((0, 3, t), (1.0, p, a)),
        "piecewise_constant": lambda t, a, p: PiecewiseConstant((t / 2, t), (p, a)),
    }[name]


PARAMETERS = (
    torch.tensor([10.0, 20.0, 30.0], dtype=torch.float64),
    torch.tensor([0.5, 0.1, 0.01], dtype=torch.float64),
    torch.tensor([1.0, 2.0, 0.7], dtype=torch.float64),
)


@pytest.mark.parametrize("name", [name for name in LEARNING_RATE_SCHEDULES if name != "constant"])
@pytest.mark.parametrize("step", [0, 9, 12.5, 100])
def test_trials_together_are_trials_one_by_one(name: str, step: float) -> None:
    """Parameters of shape (K,), the same inside vmap, and K schedules of numbers: all equal."""
    make, at = build(name), torch.tensor(step, dtype=torch.float64)
    alone = torch.stack([make(*row).factor(at) for row in zip(*PARAMETERS, strict=True)])
    numbers = torch.stack([make(*(p.item() for p in row)).factor(step) for row in zip(*PARAMETERS, strict=True)])
    stacked = make(*PARAMETERS).factor(at)
    mapped = torch.func.vmap(lambda *row: make(*row).factor(at))(*PARAMETERS)
    for other in (numbers, stacked, mapped):
        torch.testing.assert_close(alone, other, rtol=1e-14, atol=1e-15)


def test_one_graph_serves_all_parameter_values() -> None:
    graphs = 0

    def count(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        nonlocal graphs
        graphs += 1
        return graph.forward

    @torch.compile(backend=count, fullgraph=True)
    def factor(t: Tensor, steps: Tensor, last: Tensor) -> Tensor:
        return Cosine(steps, last).factor(t)

    for step in range(5):
        t, steps = torch.tensor(step), torch.tensor([10.0 + step, 20.0])
        last = torch.tensor([0.1, 0.01 * step])
        torch.testing.assert_close(factor(t, steps, last), Cosine(steps, last).factor(t))
    assert graphs == 1


NAN = math.nan


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: Linear(0), "decay_steps > 0"),
        (lambda: Linear(NAN), "decay_steps > 0"),
        (lambda: Linear(math.inf), "decay_steps > 0 and finite"),
        (lambda: Cosine(10, -0.1), "decay_factor >= 0"),
        (lambda: Cosine(torch.tensor([10.0, -1.0])), "decay_steps > 0"),
        (lambda: Exponential(10, 0.0), "decay_factor > 0"),
        (lambda: InverseExponentialPolynomial(10, 0.0), "decay_factor > 0"),
        (lambda: InverseExponentialPolynomial(10, 0.1, -1.0), "power > 0"),
        (lambda: ExponentialPolynomial(10, 0.1, 0.0), "power > 0"),
        (lambda: PiecewiseLinear((1, 2), (1.0, 0.5)), "begin at 0"),
        (lambda: PiecewiseLinear((0, 5, 5), (1.0, 0.5, 0.1)), "rise strictly"),
        (lambda: PiecewiseLinear((0, 5), (1.0,)), "one factor for every step"),
        (lambda: PiecewiseConstant((), ()), "at least one"),
        (lambda: PiecewiseConstant((0, 5), (0.5, 0.1)), "steps > 0"),
        (lambda: PiecewiseConstant((6, 5), (0.5, 0.1)), "rise strictly"),
        (lambda: PiecewiseConstant((6,), (-0.5,)), "factors >= 0"),
    ],
)
def test_nonsense_is_refused_at_birth(make: Callable[[], Schedule], names: str) -> None:
    with pytest.raises(ScheduleError, match=names):
        make()
