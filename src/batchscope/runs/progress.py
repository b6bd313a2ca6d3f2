"""How far a run is, for a display."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from batchscope.spec.goal import Goal


@dataclass(frozen=True)
class BatchSizeProgress:
    """How far one batch size is.

    Attributes:
        batch_size: Which.
        share: Of its work that is done, roughly; 1.0 when finished.
        trials: Drawn so far.
        diverged: Of them.
        best: Goal to the fewest steps so far; None where no trial has reached it.
        choosing: Whether its programs are still being timed.
        skipped: Why it is left out; empty where it is not.
    """

    batch_size: int
    share: float
    trials: int
    diverged: int
    best: Mapping[Goal, int | None]
    choosing: bool = False
    skipped: str = ""


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        batch_sizes: One for each batch size.
        seconds: Since this driver began.
        train_seconds: Spent on training, over all workers.
        evaluation_seconds: Spent on evaluation, over all workers.
        remarks: What should be known before the run ends: goals that nothing came to, and trials that diverge.
    """

    batch_sizes: tuple[BatchSizeProgress, ...]
    seconds: float
    train_seconds: float
    evaluation_seconds: float
    remarks: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """Of the whole work that is done, roughly: batch sizes count alike."""
        return sum(size.share for size in self.batch_sizes) / len(self.batch_sizes)
