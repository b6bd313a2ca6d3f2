"""Learning-rate rules on surfaces whose best rate is known."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.hand_made import Trial, tables
from batchscope.analysis import rule_check
from batchscope.errors import AnalysisError
from batchscope.spec.goal import Goal

GOAL = Goal.parse("validation/error < 0.5")


def study(exponent: float, *, momentum: float | None = None, rates: int = 40) -> tuple[Trial, ...]:
    """Trials on a grid of rates; the best effective rate is 0.01 B**exponent, and half an octave off costs 60%."""
    trials = []
    for batch_size in (1, 4, 16, 64, 256):
        for index, rate in enumerate(np.geomspace(1e-3, 1e2, rates)):
            octaves = np.log2(rate / (0.01 * batch_size**exponent))
            steps = min(100 * np.exp(2 * octaves**2), 1e4)
            values = {at: 0.1 if at >= steps else 0.9 for at in (50, 100, 110, 120, 130, 140, 150, 160)}
            point = {"learning_rate": float(rate)}
            if momentum is not None:
                point = {"learning_rate": float(rate) * (1 - momentum), "momentum": momentum}
            status = "complete" if steps <= 160 else "stopped" if octaves < 5 else "diverged"
            trials.append(Trial(f"{batch_size} {index}", batch_size, values, status, index, point=point))
    return tuple(trials)


@pytest.mark.parametrize(("exponent", "right"), [(0.0, "constant"), (0.5, "square-root"), (1.0, "linear")])
def test_the_right_rule_holds_and_the_others_break(exponent: float, right: str) -> None:
    found = rule_check(*tables(*study(exponent, rates=150)), GOAL)
    breaks = {row["rule"]: (row["holds_until"], row["breaks_at"]) for row in found.breaks.iter_rows(named=True)}
    assert breaks.pop(right) == (256, None)
    assert {breaks_at for _, breaks_at in breaks.values()} <= {4, 16, 64}
    assert found.base_batch_size == 1


def test_with_momentum_the_effective_rate_is_scaled() -> None:
    found = rule_check(*tables(*study(1.0, momentum=0.9, rates=150)), GOAL)
    assert found.rate == "learning_rate / (1 - momentum)"
    tuned = found.table.filter(rule="linear").get_column("tuned").to_numpy()
    np.testing.assert_allclose(np.log2(tuned / (0.01 * np.array([1, 4, 16, 64, 256]))), 0, atol=0.3)
    assert found.breaks.filter(rule="linear").item(0, "holds_until") == 256


def test_with_too_few_trials_on_the_way_it_stays_open() -> None:
    near = [trial for trial in study(1.0) if trial.values[160] == 0.1]
    table = rule_check(*tables(*near), GOAL).table
    assert set(table.get_column("status")) == {"holds", "open"}


@pytest.mark.parametrize(("slow", "status"), [(1, "open"), (2, "breaks")])
def test_a_rule_breaks_once_chance_alone_would_hardly_be_so_slow(slow: int, status: str) -> None:
    """Three good trials and no slow one among them: the next is good three times in four, and slow twice 1 in 16."""
    rates = [0.04, 0.05, 0.06, *np.linspace(0.02, 0.03, slow)]
    base = Trial("base", 1, {100: 0.1}, point={"learning_rate": 0.01})
    trials = [
        Trial(str(index), 4, {100: 0.1} if index < 3 else {400: 0.9}, index=index, point={"learning_rate": float(rate)})
        for index, rate in enumerate(rates)
    ]
    table = rule_check(*tables(base, *trials), GOAL).table.filter(rule="constant", batch_size=4)
    assert table.item(0, "status") == status


def test_a_base_must_have_reached_the_goal() -> None:
    run = tables(*study(1.0))
    assert rule_check(*run, GOAL, base_batch_size=16).table.get_column("batch_size").min() == 16
    with pytest.raises(AnalysisError, match="got 7; choose of: 1, 4, 16, 64, 256"):
        rule_check(*run, GOAL, base_batch_size=7)
    with pytest.raises(AnalysisError, match="no batch size did"):
        rule_check(*run, Goal.parse("validation/error < 0.01"))
    with pytest.raises(AnalysisError, match="named learning_rate"):
        rule_check(*tables(Trial("a", 8, {1: 0.1})), GOAL)


def test_rates_of_several_optimizers_are_not_compared() -> None:
    """Adam's rates are a hundred times smaller for the same speed, and it has no momentum."""
    both = [
        Trial("sgd", 1, {100: 0.1}, point={"learning_rate": 0.1, "momentum": 0.9, "optimizer": "momentum"}),
        Trial("adam", 2, {50: 0.1}, point={"learning_rate": 0.001, "optimizer": "adam"}),
    ]
    with pytest.raises(AnalysisError, match="trials of one optimizer, .* got adam and momentum"):
        rule_check(*tables(*both), GOAL)


def test_a_trial_without_momentum_has_none() -> None:
    """As where runs of one optimizer are imported, some with the momentum left out."""
    some = [
        Trial("with", 1, {100: 0.1}, point={"learning_rate": 0.1, "momentum": 0.5}),
        Trial("without", 2, {50: 0.1}, point={"learning_rate": 0.4}),
    ]
    table = rule_check(*tables(*some), GOAL).table
    assert table.filter(rule="linear").get_column("tuned").to_list() == pytest.approx([0.2, 0.4])
