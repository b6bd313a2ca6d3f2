"""Scaling rules: their defining properties, and what they leave alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from batchscope.errors import ScheduleError
from batchscope.schedules import SCALING_RULES, noise_scale, scale_hyperparameters

GIVEN: dict[str, Any] = {
    "learning_rate": 0.1,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "beta1": 0.9,
    "beta2": 0.999,
    "epsilon": 1e-8,
    "warm_up_examples": 500_000,
}


def scale(rule: Any, batch_size: int, **changes: Any) -> Any:
    return scale_hyperparameters(rule, base_batch_size=256, batch_size=batch_size, **GIVEN | changes)


@pytest.mark.parametrize(
    ("rule", "rate"), [("constant", 0.1), ("linear", 1.6), ("square_root", 0.4), ("adam_square_root", 0.4)]
)
def test_the_learning_rate_of_every_rule(rule: str, rate: float) -> None:
    assert scale(rule, 4096).learning_rate == pytest.approx(rate)


@given(st.integers(1, 100_000), st.integers(1, 100_000))
def test_linear_keeps_the_noise_scale_and_the_base_rate(base: int, batch: int) -> None:
    """S18 equation 5; ML18's eta / B."""
    scaled = scale_hyperparameters("linear", base_batch_size=base, batch_size=batch, learning_rate=0.1, momentum=0.9)
    assert scaled.momentum == 0.9
    assert noise_scale(float(scaled.learning_rate), batch, 10**6, 0.9) == pytest.approx(
        noise_scale(0.1, base, 10**6, 0.9)
    )


def test_square_root_keeps_the_size_of_the_noise_of_one_update() -> None:
    """The standard deviation of eta times the mean of B noisy gradients is eta / sqrt(B)."""
    assert scale("square_root", 1000).learning_rate / 1000**0.5 == pytest.approx(0.1 / 256**0.5)


@pytest.mark.parametrize("batch", [64, 256, 1024, 2048])
def test_adam_keeps_the_clock_of_its_sde(batch: int) -> None:
    """Malladi 2022: an update stands for eta^2 of time, the same per example; averages last as long in it."""
    scaled, k = scale("adam_square_root", batch), batch / 256
    assert scaled.learning_rate**2 / batch == pytest.approx(0.1**2 / 256)
    for name in ("beta1", "beta2"):
        assert (1 - getattr(scaled, name)) / scaled.learning_rate**2 == pytest.approx((1 - GIVEN[name]) / 0.1**2)
    # Gradients are 1/sqrt(k) of before where noise rules, so epsilon bears the same proportion to them.
    assert scaled.epsilon * k**0.5 == pytest.approx(1e-8)
    assert scaled.warm_up.steps * batch == pytest.approx(500_000)


def test_an_average_without_memory_is_the_limit() -> None:
    scaled = scale("adam_square_root", 256 * 16)
    assert scaled.beta1 == 0.0
    assert "held at 0" in scaled.changed["beta1"]
    assert scaled.beta2 == pytest.approx(1 - 16 * 0.001)
    assert "held" not in scaled.changed["beta2"]


@pytest.mark.parametrize("rule", SCALING_RULES)
@pytest.mark.parametrize("batch", [64, 256, 8192])
def test_every_hyperparameter_is_answered_for(rule: str, batch: int) -> None:
    scaled = scale(rule, batch)
    names = {"warm_up" if name == "warm_up_examples" else name for name in GIVEN}
    assert set(scaled.changed) | set(scaled.kept) == names
    assert not set(scaled.changed) & set(scaled.kept)
    for name in set(scaled.kept) - {"warm_up"}:
        assert getattr(scaled, name) == GIVEN[name]
    assert all(scaled.kept.values())
    few = scale_hyperparameters(rule, base_batch_size=256, batch_size=batch, learning_rate=0.1)  # type: ignore[arg-type]
    assert set(few.changed) | set(few.kept) == {"learning_rate"}


def test_warm_up_begins_at_the_base_rate_and_lasts_as_many_examples() -> None:
    for rule, start in (("linear", 1 / 16), ("square_root", 1 / 4)):
        scaled = scale(rule, 4096)
        assert scaled.learning_rate * float(scaled.warm_up.factor(0)) == pytest.approx(0.1)
        assert scaled.warm_up.start == start
        assert scaled.warm_up.steps * 4096 == 500_000
        assert scale(rule, 64).warm_up is None
    assert scale("constant", 4096).warm_up is None


def test_tensors_go_through() -> None:
    rates, betas = torch.tensor([0.1, 0.2]), torch.tensor([0.9, 0.99])
    scaled = scale("adam_square_root", 4096, learning_rate=rates, beta1=betas)
    torch.testing.assert_close(scaled.learning_rate, 4 * rates)
    torch.testing.assert_close(scaled.beta1, torch.tensor([0.0, 1 - 16 * 0.01]))
    mapped = torch.func.vmap(lambda r, b: scale("adam_square_root", 4096, learning_rate=r, beta1=b).beta1)
    torch.testing.assert_close(mapped(rates, betas), scaled.beta1)


def test_nonsense_is_refused() -> None:
    with pytest.raises(ScheduleError, match="one of constant, linear, square_root, adam_square_root, got 'cube'"):
        scale("cube", 512)
    with pytest.raises(ScheduleError, match="batch_size must be at least 1"):
        scale("linear", 0)
    with pytest.raises(ScheduleError, match="learning_rate must be > 0"):
        scale("linear", 512, learning_rate=-1.0)
    with pytest.raises(ScheduleError, match="beta2 must be"):
        scale("adam_square_root", 512, beta2=1.0)
