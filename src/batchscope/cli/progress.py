"""The progress of a run: a live table on a terminal, a line now and then where the output is piped."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.live import Live
from rich.table import Table
from rich.text import Text

from batchscope.amounts import counted, duration, number, percent
from batchscope.cli.show import console, printable
from batchscope.runs import BatchSizeProgress, Progress
from batchscope.spec.study import Study

# Seconds between two lines where the output is piped.
LINE_SECONDS = 10.0
BAR = 12
LEAST_SHARE = 0.01  # below which a number of it only frightens
REMARKS = 3  # shown under the live table


class Display:
    """Shows a run on standard error while it goes on."""

    def __init__(self, study: Study, folder: Path) -> None:
        """Nothing is shown yet."""
        self._study, self._console = study, console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._title = printable(f"{study.workload} into {folder}")
        self._shown, self._begun = 0.0, False
        self._finished: set[int] = set()
        self._told: set[str] = set()

    def __enter__(self) -> Self:
        """Begin."""
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End, leaving the terminal clean."""
        if self._console.is_terminal:
            self._live.stop()

    def update(self, progress: Progress) -> None:
        """Show how far the run is."""
        if self._console.is_terminal:
            self._live.update(self._table(progress), refresh=True)
            return
        if not self._begun:
            self._begun = True
            self._console.print(f"running {self._title}")
        for size in progress.batch_sizes:
            if size.share >= 1 and size.batch_size not in self._finished:
                self._finished.add(size.batch_size)
                if size.skipped:
                    self._console.print(printable(f"batch size {size.batch_size}: left out, {size.skipped}"))
                    continue
                best = ", ".join(f"{goal}: {number(steps)} steps" for goal, steps in size.best.items())
                self._console.print(
                    f"batch size {size.batch_size}: {best} ({size.trials} trials, {size.diverged} diverged)"
                )
        for remark in progress.remarks:
            if remark not in self._told:
                self._told.add(remark)
                self._console.print(printable(remark))
        if time.monotonic() - self._shown > LINE_SECONDS:
            self._shown = time.monotonic()
            self._console.print(footer(progress))

    def _table(self, progress: Progress) -> Table:
        wide = self._console.width >= 70
        table = Table(
            title=Text(self._title),
            caption=Text("\n".join([footer(progress), *map(printable, progress.remarks[:REMARKS])])),
            title_justify="left",
        )
        table.caption_justify = "left"
        table.add_column("batch size", justify="right")
        table.add_column("done", overflow="fold")
        if wide:
            table.add_column("trials", justify="right")
            table.add_column("diverged", justify="right")
        for goal in self._study.goals:
            table.add_column(Text(f"steps to {goal}" if wide else str(goal)), justify="right", overflow="fold")
        for size in progress.batch_sizes:
            counts = [str(size.trials), str(size.diverged)] if wide else []
            table.add_row(
                number(size.batch_size),
                _bar(size, BAR if wide else BAR // 2),
                *counts,
                *(number(size.best[goal]) for goal in size.best),
            )
        return table


def footer(progress: Progress) -> str:
    """How far it is, time spent and left, and what share of it was evaluation."""
    # Until a goal is reached nobody knows how long the race is: the share is of the budget, which few races use up.
    share = "less than 1%" if 0 < progress.share < LEAST_SHARE else percent(progress.share)
    parts = [f"{share} done", f"{duration(round(progress.seconds))} so far"]
    asked = [size for size in progress.batch_sizes if not size.skipped]
    reached = sum(None not in size.best.values() for size in asked)
    if 0 < progress.share and reached < len(asked):
        goals = "goals" if len(asked[0].best) > 1 else "goal"
        parts.append(f"{goals} reached at {reached} of {counted(len(asked), 'batch size')}")
    if 0.02 < progress.share < 1:
        left = progress.seconds * (1 - progress.share) / progress.share
        parts.append(f"at most about {duration(round(left))} left")
    choosing = [str(size.batch_size) for size in progress.batch_sizes if size.choosing]
    if choosing:
        parts.append(f"timing the programs of batch size {', '.join(choosing)}")
    busy = progress.train_seconds + progress.evaluation_seconds
    if busy:
        parts.append(f"{percent(progress.evaluation_seconds / busy)} of it evaluation")
    return ", ".join(parts)


def _bar(size: BatchSizeProgress, width: int) -> Text:
    if size.choosing or size.skipped:
        return Text("left out" if size.skipped else "timing the programs", style="yellow")
    filled = int(width * size.share)
    return Text("#" * filled + "." * (width - filled), style="green" if size.share >= 1 else "cyan")
