"""Tells a display how far a run is."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

from batchscope.analysis.reach import diverging
from batchscope.plan.search_rounds import BatchSize
from batchscope.runs.progress import BatchSizeProgress, Progress
from batchscope.spec.study import Study

# Telling how far a run is takes a walk over all trials: often enough for an eye, rare enough to cost nothing.
TELL_SECONDS = 0.1


class Reporter:
    """What has been spent and what should be known, told when it is due."""

    def __init__(self, study: Study, on_progress: Callable[[Progress], None]) -> None:
        """The clock begins."""
        self._study, self._on_progress = study, on_progress
        self._started, self._told = time.monotonic(), -math.inf
        self._train_seconds = self._evaluation_seconds = 0.0
        self._remarks: list[str] = []
        self._warned = False

    @property
    def is_due(self) -> bool:
        """Whether it was told long enough ago."""
        return time.monotonic() - self._told > TELL_SECONDS

    def spend(self, train: float, evaluation: float) -> None:
        """Count the seconds of a trial; a unit that was computed again may have taken less than before."""
        self._train_seconds += max(0.0, train)
        self._evaluation_seconds += max(0.0, evaluation)

    def remark(self, words: str) -> None:
        """Note what should be known before the run ends."""
        self._remarks.append(words)

    def tell(self, sizes: Mapping[int, BatchSize], skipped: Mapping[int, str]) -> None:
        """Report the progress.

        Args:
            sizes: By batch size, those that have begun.
            skipped: Why others are left out.
        """
        self._told = time.monotonic()
        rows = [self._row(size, sizes.get(size), skipped.get(size, "")) for size in self._study.batch_sizes]
        if not self._warned and not any(steps for row in rows for steps in row.best.values()):
            lost = diverging(sum(row.trials for row in rows), sum(row.diverged for row in rows))
            self._warned = bool(lost)
            self._remarks += [lost] if lost else []
        spent = time.monotonic() - self._started, self._train_seconds, self._evaluation_seconds
        self._on_progress(Progress(tuple(rows), *spent, tuple(self._remarks)))

    def _row(self, batch_size: int, size: BatchSize | None, skipped: str) -> BatchSizeProgress:
        if size is None:
            share, best = 1.0 if skipped else 0.0, dict.fromkeys(self._study.goals)
            return BatchSizeProgress(batch_size, share, 0, 0, best, choosing=not skipped, skipped=skipped)
        races = list(size.races.values())
        share = sum(race.share_done() for race in races) / len(races)
        statuses = [race.status(trial.index) for race in races for trial in race.trials]
        best = {goal: size.winner(goal) for goal in self._study.goals}
        return BatchSizeProgress(batch_size, share, len(statuses), statuses.count("diverged"), best)
