"""What experiment trackers have in common: trials with settings, and metrics that were logged at steps."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from batchscope.errors import BatchscopeError, DataError
from batchscope.exchange.importers.cleaning import LARGEST_STEP, clean, status_of, trial_rows
from batchscope.exchange.importers.csv import named, per_trial
from batchscope.exchange.importers.result import ColumnError, Imported, Problems, check_goals, new_run
from batchscope.store.schema import HYPERPARAMETER


@dataclass
class Tracked:
    """One trial as a tracker knows it.

    Attributes:
        name: Its name there.
        batch_size: Whatever stands for it there; None if nothing does.
        status: The tracker's word for what became of it.
        hyperparameters: Our name to the value there.
        evaluations: Step to our name of a metric to the value there.
        seconds: Step to the seconds trained until then, where known.
    """

    name: str
    batch_size: object
    status: str | None
    hyperparameters: dict[str, object]
    evaluations: dict[int, dict[str, float]] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)

    def log(self, step: object, metric: str, value: object, problems: Problems) -> None:
        """Take one logged value; what is no number, or has no step, is counted."""
        where = f"trial {self.name}, step {step!s:.40}"
        number = _number(value)
        if number is None:
            problems.add(f"values of {metric} that are no numbers, left out", 1, where)
            return
        at = _number(step)
        if at is None or not 0 <= at <= LARGEST_STEP or at != math.floor(at):
            problems.add("values without a whole step of at least 0, left out", 1, where)
            return
        row = self.evaluations.setdefault(int(at), {})
        if metric in row and row[metric] != number:
            problems.add(f"values of {metric} logged again at the same step, the last kept", 1, where)
        row[metric] = number


def extra(module: str, name: str) -> Any:
    """A library that is only needed for one source.

    Raises:
        DataError: If it is not installed, naming the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(f"this import needs {name} ({error}): type pip install 'batchscope[{name}]'") from None


@contextmanager
def reading(source: str) -> Iterator[None]:
    """Turn whatever a tracker's library raises into one answer.

    Raises:
        DataError: If it raises.
    """
    try:
        yield
    except BatchscopeError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(f"cannot read {source}: {reason[0]:.300}") from error


def check_metrics(metrics: Mapping[str, str]) -> None:
    """Refuse an import without metrics, or with a name that is not as in ``validation/loss``.

    Raises:
        ColumnError: If so.
    """
    if not metrics or not all(name.count("/") == 1 and all(name.split("/")) for name in metrics):
        raise ColumnError(
            f"name the metrics to import: type --metric validation/loss=NAME_THERE; got {sorted(metrics)}"
        )


def import_tracked(
    tracked: Iterable[Tracked],
    folder: str | Path,
    *,
    kind: str,
    source: str,
    workload: str,
    goals: Sequence[str],
    problems: Problems,
) -> Imported:
    """Make a run of these trials.

    Raises:
        DataError: If none of them can be used.
    """
    given = check_goals(list(goals))
    settings, evaluations = [], []
    for trial in tracked:
        batch_size = _number(trial.batch_size)
        if batch_size is None or batch_size < 1 or batch_size != math.floor(batch_size):
            problems.add(
                "trials without a whole batch size, left out", 1, f"trial {trial.name}: {trial.batch_size!r:.80}"
            )
            continue
        status = None if trial.status is None else status_of(trial.status, f"trial {trial.name}")
        key = {"trial": trial.name, "batch_size": int(batch_size)}
        values = {HYPERPARAMETER + name: _setting(value) for name, value in trial.hyperparameters.items()}
        settings.append({**key, "status": status, **values})
        evaluations += [
            {**key, "step": step, "examples": step * int(batch_size), "seconds": trial.seconds.get(step), **row}
            for step, row in sorted(trial.evaluations.items())
        ]
    if not evaluations:
        raise DataError(
            f"{source} holds nothing that can be used: " + "; ".join(problems.lines() or ("no measurements",))
        )
    rows = named(pl.DataFrame(settings, infer_schema_length=None, strict=False), problems)
    ids = dict(zip((row["trial"] for row in settings), rows["trial"], strict=True))
    table = pl.DataFrame(evaluations, infer_schema_length=None).with_columns(
        pl.col("trial").replace_strict(ids), pl.col("seconds").cast(pl.Float64)
    )
    metrics = [name for name in table.columns if "/" in name]
    table = clean(table.with_columns(pl.col(metrics).cast(pl.Float64)), metrics, problems)
    constant = [name for name in rows.columns if name == "status" or name.startswith(HYPERPARAMETER)]
    trials = trial_rows(per_trial(rows, constant, problems), table, metrics, problems)
    document = {"imported": {"kind": kind, "source": source}, "workload": workload, "goals": given}
    with new_run(Path(folder), document, problems) as store:
        store.commit(trials, table)
    return Imported((Path(folder),), len(trials), len(table), problems.lines())


def _number(value: object) -> float | None:
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return None
    if isinstance(value, int | float) or hasattr(value, "__float__"):
        return float(value)
    return None


def _setting(value: object) -> str | None:
    """As text: whether a hyperparameter is a number is decided for all trials together."""
    return None if value is None else str(value)[:200]
