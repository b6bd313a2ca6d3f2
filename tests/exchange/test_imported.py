"""The published rule: the first COMPLETE trials in the order of their numbers."""

from __future__ import annotations

import polars as pl
import pytest

from batchscope.errors import StoreError
from batchscope.exchange.imported import in_our_words, selected
from batchscope.spec.goal import Goal

TRIALS = pl.DataFrame(
    [(64, 10, "complete"), (64, 9, "complete"), (64, 2, "diverged"), (64, 1, "stopped"), (64, 3, "complete")]
    + [(8, number, "complete") for number in (5, 4, 100)],
    schema={"batch_size": pl.Int64, "index": pl.Int64, "status": pl.String},
    orient="row",
).with_columns(pl.format("b{}-{}", "batch_size", "index").alias("trial"))


def test_the_first_complete_trials_of_each_batch_size_count() -> None:
    rule = {"selection": {"statuses": ["complete"], "trials": 2}}
    assert sorted(selected(TRIALS, rule)["trial"]) == ["b64-3", "b64-9", "b8-4", "b8-5"]
    assert selected(TRIALS, {}).equals(TRIALS)
    both = {"selection": {"statuses": ["complete", "diverged"], "trials": 100}}
    assert len(selected(TRIALS, both)) == 7


@pytest.mark.parametrize("rule", [[], {}, {"statuses": "complete", "trials": 1}, {"statuses": [], "trials": 0}])
def test_another_rule_is_refused(rule: object) -> None:
    with pytest.raises(StoreError, match="write selection"):
        selected(TRIALS, {"selection": rule})


def test_a_goal_in_published_words() -> None:
    goal = Goal.parse("val/classification_error < 0.3")
    assert str(in_our_words(goal, {"imported": {"kind": "batch-science"}})) == "validation/error < 0.3"
    assert in_our_words(goal, {"imported": {"kind": "csv"}}) is goal
    assert in_our_words(goal, {}) is goal
