"""Warm-ups by their papers' definitions, and schedules made of schedules."""

from __future__ import annotations

import pytest
import torch

from batchscope.errors import ScheduleError
from batchscope.schedules import (
    WARM_UPS,
    Constant,
    Cosine,
    Linear,
    PiecewiseConstant,
    Ramp,
    Stretched,
    Then,
    golmant_warm_up,
    goyal_warm_up,
    linear_warm_up,
)

STEPS = torch.arange(0, 1200, 7)


def test_goyal_begins_at_a_32nd_and_takes_a_twentieth_of_the_training() -> None:
    ramp = goyal_warm_up(1000)
    assert float(ramp.factor(0)) == 1 / 32
    assert float(ramp.factor(25)) == pytest.approx((1 / 32 + 1) / 2)
    assert float(ramp.factor(49)) < 1
    assert float(ramp.factor(50)) == float(ramp.factor(999)) == 1


def test_golmant_begins_at_the_base_rate_whatever_the_scale() -> None:
    base, scale = 0.1, torch.tensor([1.0, 8.0, 64.0], dtype=torch.float64)
    scaled = base * scale
    ramp = golmant_warm_up(100, scale)
    torch.testing.assert_close(scaled * ramp.factor(0), torch.full((3,), base, dtype=torch.float64))
    torch.testing.assert_close(scaled * ramp.factor(100), scaled)
    halfway = scaled * ramp.factor(50)
    torch.testing.assert_close(halfway, (base + scaled) / 2)


def test_linear_begins_where_told() -> None:
    assert linear_warm_up(10).factor(torch.tensor([0, 5, 10, 11])).tolist() == [0, 0.5, 1, 1]
    assert float(linear_warm_up(10, 0.2).factor(5)) == pytest.approx(0.6)


def test_the_dictionary_has_the_three() -> None:
    assert WARM_UPS == {"linear": linear_warm_up, "goyal": goyal_warm_up, "golmant": golmant_warm_up}


def test_a_warm_up_multiplies_any_schedule() -> None:
    for schedule in (Constant(), Cosine(1000, 0.1), PiecewiseConstant((300, 900), (0.1, 0.01))):
        warm = Ramp(100, 0.1) * schedule
        assert torch.equal(warm.factor(STEPS), Ramp(100, 0.1).factor(STEPS) * schedule.factor(STEPS))
        assert warm.knots == (100.0, *schedule.knots)
        late = STEPS[STEPS >= 100]
        assert torch.equal(warm.factor(late), schedule.factor(late))


def test_then_begins_the_second_schedule_anew() -> None:
    chain = Then(Linear(100, 0.5), Cosine(200, 0.1), 100)
    early, late = STEPS[STEPS < 100], STEPS[STEPS >= 100]
    assert torch.equal(chain.factor(early), Linear(100, 0.5).factor(early))
    assert torch.equal(chain.factor(late), Cosine(200, 0.1).factor(late - 100))
    assert chain.knots == (100.0, 300.0)


def test_stretched_counts_in_another_unit() -> None:
    epochs = PiecewiseConstant((60, 120), (0.2, 0.04))
    steps = Stretched(epochs, 390.625)
    assert steps.knots == (60 * 390.625, 120 * 390.625)
    assert steps.factor(torch.tensor([23437, 23438, 46875])).tolist() == [1.0, 0.2, 0.04]


@pytest.mark.parametrize("scale", [0.5, torch.tensor([2.0, 0.9])])
def test_no_warm_up_towards_a_smaller_rate(scale: float | torch.Tensor) -> None:
    with pytest.raises(ScheduleError, match="scale >= 1"):
        golmant_warm_up(10, scale)


def test_nonsense_is_refused() -> None:
    with pytest.raises(ScheduleError, match="steps > 0"):
        Ramp(0)
    with pytest.raises(ScheduleError, match="start >= 0"):
        Ramp(10, -0.1)
    with pytest.raises(ScheduleError, match="steps_per_unit > 0"):
        Stretched(Constant(), 0)
    with pytest.raises(ScheduleError, match="at > 0"):
        Then(Constant(), Constant(), 0)
