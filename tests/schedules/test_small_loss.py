"""Small losses discarded (GZ20 section 3.1)."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from batchscope.errors import ScheduleError
from batchscope.schedules import SmallLossDiscard

LOSSES = torch.tensor([0.3, 0.1, 5.0, 0.2, 0.9, 0.05, 0.7, 0.4, 0.6, 0.8])


def test_the_mean_is_over_the_largest() -> None:
    rule = SmallLossDiscard(0.3, 100)
    weights = rule.weights(LOSSES, 0)
    assert (weights == 0).tolist() == [False, True, False, True, False, True, False, False, False, False]
    assert weights[weights > 0].tolist() == pytest.approx([10 / 7] * 7)
    assert float(rule.mean(LOSSES, 99)) == pytest.approx(float(LOSSES.sort().values[3:].mean()))
    assert torch.equal(rule.weights(LOSSES, 100), torch.ones(10))
    assert float(rule.mean(LOSSES, 100)) == pytest.approx(float(LOSSES.mean()))


@given(st.lists(st.floats(0, 10), min_size=1, max_size=40), st.floats(0, 0.999))
def test_weights_average_to_one_and_leave_the_largest(losses: list[float], fraction: float) -> None:
    values = torch.tensor(losses, dtype=torch.float64)
    weights = SmallLossDiscard(fraction).weights(values, 0)
    assert float(weights.mean()) == pytest.approx(1)
    dropped = int((weights == 0).sum())
    assert dropped == min(round(fraction * len(losses)), len(losses) - 1)
    if dropped:
        assert values[weights == 0].max() <= values[weights > 0].min()


def test_gradient_is_that_of_the_examples_left() -> None:
    losses = LOSSES.clone().requires_grad_()
    SmallLossDiscard(0.3).mean(losses * 2, 0).backward()  # type: ignore[no-untyped-call]
    assert losses.grad is not None
    expected = torch.where(LOSSES > 0.2, 2 / 7, 0.0)
    torch.testing.assert_close(losses.grad, expected)


def test_an_infinite_loss_counts_as_large_and_equal_ones_by_place() -> None:
    losses = torch.tensor([math.inf, 1.0, 1.0, 1.0])
    assert SmallLossDiscard(0.5).weights(losses, 0).tolist() == [2, 0, 0, 2]
    assert float(SmallLossDiscard(0.5).mean(torch.tensor([math.nan, 1.0]), 1e9)) != 0  # NaN is seen, not dropped


def test_each_trial_its_own() -> None:
    fractions, epochs = torch.tensor([0.0, 0.3, 0.7]), torch.tensor([5.0, 5.0, 2.0])
    batch = torch.stack([LOSSES, LOSSES.flip(0), LOSSES * 2])
    for epoch in (0, 3, 9):
        mapped = torch.func.vmap(lambda f, e, x, now=epoch: SmallLossDiscard(f, e).weights(x, now))(
            fractions, epochs, batch
        )
        alone = torch.stack(
            [
                SmallLossDiscard(float(f), float(e)).weights(x, epoch)
                for f, e, x in zip(fractions, epochs, batch, strict=True)
            ]
        )
        torch.testing.assert_close(mapped, alone)


@pytest.mark.parametrize(("fraction", "epochs"), [(-0.1, 1), (1.0, 1), (math.nan, 1), (0.3, -1), (0.3, math.nan)])
def test_nonsense_is_refused_at_birth(fraction: float, epochs: float) -> None:
    with pytest.raises(ScheduleError, match="SmallLossDiscard needs"):
        SmallLossDiscard(fraction, epochs)
