"""What is said of a run while it goes on: never a number that means nothing yet."""

from __future__ import annotations

from batchscope.cli.progress import footer
from batchscope.runs import BatchSizeProgress, Progress
from batchscope.spec.goal import Goal

EASY, HARD = Goal("validation/error", "<", 0.2), Goal("validation/error", "<", 0.1)


def said(*rows: tuple[float, int | None, int | None], skipped: str = "") -> str:
    sizes = [BatchSizeProgress(8, share, 4, 0, {EASY: easy, HARD: hard}) for share, easy, hard in rows]
    sizes += [BatchSizeProgress(1, 1.0, 0, 0, {EASY: None, HARD: None}, skipped=skipped)] if skipped else []
    return footer(Progress(tuple(sizes), 90.0, 60.0, 20.0))


def test_until_a_goal_is_reached_the_share_of_the_budget_is_no_news() -> None:
    words = "less than 1% done, 1 min 30 s so far, goals reached at 0 of 2 batch sizes, 25% of it evaluation"
    assert said((1e-5, None, None), (3e-4, 10, None)) == words
    assert "goals reached at 1 of 2 batch sizes" in said((0.1, 10, 20), (0.02, 10, None))


def test_what_is_known_is_told() -> None:
    assert said((0.0, None, None)).startswith("0% done, ")
    found = said((0.4, 10, 20), (0.6, 10, 20))
    assert found == "50% done, 1 min 30 s so far, at most about 1 min 30 s left, 25% of it evaluation"
    assert "reached" not in said((0.4, 10, 20), skipped="batch norm needs two examples")
