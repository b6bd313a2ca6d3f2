"""Learning rates in words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscope.errors import ScheduleError
from batchscope.schedules import (
    Constant,
    Cosine,
    InverseExponentialPolynomial,
    PiecewiseConstant,
    Product,
    Ramp,
    format_learning_rate,
    parse_learning_rate,
)


def test_rates_and_epochs() -> None:
    base, schedule = parse_learning_rate("0.1, 0.02@60, 0.004@120, 0.0008@160")
    assert (base, schedule.knots) == (0.1, (60.0, 120.0, 160.0))
    assert [base * float(schedule.factor(t)) for t in (0, 59.99, 60, 130, 160, 1000)] == pytest.approx(
        [0.1, 0.1, 0.02, 0.004, 0.0008, 0.0008]
    )
    assert parse_learning_rate("3e-4") == (3e-4, Constant())


def test_named_schedules() -> None:
    assert parse_learning_rate("cosine 0.1", epochs=90) == (0.1, Cosine(90))
    assert parse_learning_rate("cosine 0.1, decay_steps=80, decay_factor=0.01") == (0.1, Cosine(80.0, 0.01))
    assert parse_learning_rate("inverse_exponential_polynomial 1, power=2, decay_factor=0.1", 5) == (
        1.0,
        InverseExponentialPolynomial(5, 0.1, 2.0),
    )
    assert parse_learning_rate("constant 0.1, warm_up=5") == (0.1, Product(Ramp(5.0), Constant()))


@given(
    st.floats(1e-6, 1e3),
    st.lists(st.tuples(st.floats(0.01, 1e4), st.floats(0, 1e3)), max_size=6, unique_by=lambda pair: round(pair[0], 6)),
)
def test_written_and_read_back(base: float, drops: list[tuple[float, float]]) -> None:
    drops.sort()
    schedule = (
        PiecewiseConstant(tuple(step for step, _ in drops), tuple(rate / base for _, rate in drops))
        if drops
        else Constant()
    )
    again, read = parse_learning_rate(format_learning_rate(base, schedule))
    assert again == pytest.approx(base, rel=1e-11)
    assert read.knots == pytest.approx(schedule.knots, rel=1e-11)
    for time in (0.0, *(step * (1 + 1e-9) for step, _ in drops)):
        assert again * float(read.factor(time)) == pytest.approx(base * float(schedule.factor(time)), rel=1e-10)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "'' is no number"),
        ("fast", "'fast' is no number"),
        ("0", "must be > 0"),
        ("-0.1", "must be > 0"),
        ("nan", "must be > 0"),
        ("0.1, 0.02", "comes @epoch"),
        ("0.1, 0.02@", "'' is no number"),
        ("0.1, 0.02@sixty", "'sixty' is no number"),
        ("0.1, 0.02@60, 0.1@50", "rise strictly"),
        ("0.1, -0.02@60", "factors >= 0"),
        ("cosin 0.1", "none of constant, linear, cosine"),
        ("piecewise_linear 0.1", "none of constant, linear, cosine"),
        ("cosine 0.1", "needs decay_steps"),
        ("cosine 0.1, decay=3", "no 'decay'.*takes decay_factor, decay_steps"),
        ("cosine 0.1, decay_steps=0", "decay_steps > 0"),
    ],
)
def test_what_cannot_be_read_says_what_to_write(text: str, says: str) -> None:
    with pytest.raises(ScheduleError, match=says):
        parse_learning_rate(text)


def test_only_piecewise_constant_rates_have_the_short_form() -> None:
    with pytest.raises(ScheduleError, match="piecewise constant"):
        format_learning_rate(0.1, Cosine(10))
