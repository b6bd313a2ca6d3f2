"""A recorded program computes what the arithmetic says, in place, in the fewest calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from batchscope.optim import RULES
from batchscope.optim.program import Expression, Program

NAMES = ("w", "g", "v")
numbers = st.sampled_from([0.0, 1.0, -1.0, 0.5, 3.0])


@st.composite
def arithmetic(draw: st.DrawFn) -> list[tuple[str, int, int, float]]:
    """Steps of a computation; each makes a value from earlier ones, the first three values being leaves."""
    steps = []
    for count in range(len(NAMES), len(NAMES) + draw(st.integers(1, 8))):
        earlier = st.integers(0, count - 1)
        steps.append((draw(st.sampled_from(sorted(OPERATIONS))), draw(earlier), draw(earlier), draw(numbers)))
    return steps


OPERATIONS: dict[str, Callable[[Any, Any, float], Any]] = {
    "add": lambda a, b, _: a + b,
    "sub": lambda a, b, _: a - b,
    "mul": lambda a, b, _: a * b,
    "div": lambda a, b, _: a / (abs(b) + 1.0),
    "scale": lambda a, _, number: number * a,
    "shift": lambda a, _, number: number - a,
    "root": lambda a, *_: (abs(a) + 1.0) ** 0.5,
    "clamp": lambda a, *_: a.clamp(-0.7, 0.9),
    "abs": lambda a, *_: abs(a),
    "reciprocal": lambda a, *_: 2.0 / (abs(a) + 0.5),
    "power": lambda a, *_: (abs(a) + 1.0) ** -1.5,
    "halve": lambda a, *_: a / 2.0,
}


def compute(steps: list[tuple[str, int, int, float]], leaves: list[Any]) -> list[Any]:
    values = list(leaves)
    for kind, i, j, number in steps:
        values.append(OPERATIONS[kind](values[i], values[j], number))
    return values


def tensors(shapes: list[tuple[int, ...]]) -> dict[str, list[Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return {name: [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes] for name in NAMES}


@settings(deadline=None, max_examples=300)
@given(arithmetic(), st.data(), st.sampled_from([[(4, 3)], [(4, 3), (), (5,)]]))
def test_random_arithmetic(
    steps: list[tuple[str, int, int, float]], data: st.DataObject, shapes: list[tuple[int, ...]]
) -> None:
    """``v`` takes one result, ``w`` another that may need the first, and a third is returned."""
    columns = tensors(shapes)
    last = st.integers(0, len(NAMES) + len(steps) - 1)
    for_v, for_w, returned = data.draw(last), data.draw(last), data.draw(last)
    expected = [compute(steps, [columns[name][layer].clone() for name in NAMES]) for layer in range(len(shapes))]
    expressions = compute(steps, [Expression.leaf(name) for name in NAMES])
    try:
        program = Program({"v": expressions[for_v], "w": expressions[for_w]}, expressions[returned])
    except AssertionError as error:
        assert "after it was overwritten" in str(error)  # refused, not computed wrongly
        return
    gradient = [g.clone() for g in columns["g"]]
    result = program.run(columns)
    for layer, values in enumerate(expected):
        torch.testing.assert_close(columns["v"][layer], values[for_v], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(columns["w"][layer], values[for_w], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(result[layer], values[returned], rtol=1e-12, atol=1e-12)
        assert torch.equal(columns["g"][layer], gradient[layer])


def test_old_values_cannot_be_read_after_new_ones() -> None:
    w, v = Expression.leaf("w"), Expression.leaf("v")
    with pytest.raises(AssertionError, match="v is needed after it was overwritten"):
        Program({"v": v + w, "w": w - 0.1 * (v * v)})


CALLS = {
    "sgd": ["add", "add_"],
    "momentum": ["add", "mul_", "add_", "add_"],
    "nesterov": ["add", "mul_", "add_", "add", "add_"],
    "adam": ["add", "lerp_", "mul_", "addcmul_", "sqrt", "add_", "addcdiv_"],
    "adamw": ["lerp_", "mul_", "addcmul_", "sqrt", "add_", "mul_", "addcdiv_"],
    "rmsprop": ["add", "mul_", "addcmul_", "sqrt", "add_", "mul_", "addcdiv_", "add_"],
    "lars": ["add", "mul_", "addcmul_", "add_"],
}


@pytest.mark.parametrize("name", CALLS)
def test_a_rule_takes_the_calls_of_a_hand_written_optimizer(name: str) -> None:
    rule: Any = RULES[name]
    hyper = dict.fromkeys(rule.hyperparameters, 0.25)
    slots = {slot: Expression.leaf(slot) for slot in rule.slots}
    rate = Expression.leaf("rate") if rule.layer else 1.0
    moved, new = rule.move(Expression.leaf("w"), Expression.leaf("g"), slots, rate, 3, hyper)
    assert Program({**new, "w": moved}).calls == CALLS[name]


def test_what_is_multiplied_by_zero_is_not_computed() -> None:
    rule: Any = RULES["momentum"]
    hyper = {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.0}
    buffer = {"momentum_buffer": Expression.leaf("v")}
    moved, new = rule.move(Expression.leaf("w"), Expression.leaf("g"), buffer, 1.0, 1, hyper)
    assert Program({"v": new["momentum_buffer"], "w": moved}).calls == ["mul_", "add_", "add_"]


def test_low_precision_is_rounded_once() -> None:
    columns = {name: [tensor.bfloat16() for tensor in values] for name, values in tensors([(4, 3)]).items()}
    w, g = (columns[name][0].float() for name in ("w", "g"))
    expected = ((w - 0.3 * g) * g).bfloat16()
    leaf = Expression.leaf
    Program({"w": (leaf("w") - 0.3 * leaf("g")) * leaf("g")}).run(columns)
    assert torch.equal(columns["w"][0], expected)


def test_a_factor_can_be_a_tensor() -> None:
    """As a learning rate on a device is, which must not be waited for."""
    columns = tensors([(4, 3), (5,)])
    expected = [(1 - 0.1 * 0.5) * w - 0.1 * (g * 0.1 + v) for w, g, v in zip(*columns.values(), strict=True)]
    rate: Any = torch.tensor(0.1, dtype=torch.float64)
    w, g, v = (Expression.leaf(name) for name in NAMES)
    Program({"w": (1 - rate * 0.5) * w - rate * (g * rate + v)}).run(columns)
    for layer, value in zip(columns["w"], expected, strict=True):
        torch.testing.assert_close(layer, value, rtol=1e-12, atol=1e-12)
