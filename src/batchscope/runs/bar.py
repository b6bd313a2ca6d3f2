"""A bar for who runs a study in Python: on a terminal and in a notebook, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from batchscope.amounts import counted

if TYPE_CHECKING:
    from batchscope.runs.progress import Progress


@contextmanager
def bar(title: str, console: Console | None = None) -> Iterator[Callable[[Progress], None]]:
    """What shows how far a run is, while it lasts; it does nothing where nobody could see it.

    Args:
        title: Before the bar.
        console: Where; by default standard error, or the notebook.
    """
    seen = console or Console(stderr=True)
    if not (seen.is_terminal or seen.is_jupyter):
        yield lambda progress: None
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.percentage:.0f}%"))
    further = (TimeElapsedColumn(), TextColumn("{task.fields[trials]}"))
    with Bar(*columns, *further, console=seen, transient=True) as shown:
        task = shown.add_task(title, total=1.0, trials="")

        def update(progress: Progress) -> None:
            trials = counted(sum(size.trials for size in progress.batch_sizes), "trial")
            shown.update(task, completed=progress.share, trials=trials)

        yield update
