"""Trials of an Optuna study, with the values that they reported at steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from batchscope.errors import DataError
from batchscope.exchange.importers.result import ColumnError, Imported, Problems
from batchscope.exchange.importers.trackers import Tracked, check_metrics, extra, import_tracked, reading


def import_optuna(
    storage: str, folder: str | Path, *, study: str, batch_size: str, metric: str, goals: Sequence[str] = ()
) -> Imported:
    """Make a run of an Optuna study: the intermediate values of its trials, by step.

    Args:
        storage: The storage's address, such as ``sqlite:///studies.db``, or the path of an SQLite or journal file; it
            is only read.
        folder: The run to make.
        study: The study's name.
        batch_size: The parameter or user attribute that is the batch size.
        metric: Our name of what the trials report, such as ``validation/error``.
        goals: For ``analyze`` to find.

    Raises:
        ColumnError: If the storage holds no such study.
    """
    check_metrics({metric: metric})
    optuna = extra("optuna", "optuna")
    problems = Problems()
    with reading(storage):
        try:
            loaded = optuna.load_study(study_name=study, storage=_storage(optuna, storage))
        except KeyError:
            raise ColumnError(f"{storage} holds no study named {study!r}: type --study NAME") from None
        trials = loaded.get_trials(deepcopy=False)
    tracked = _tracked(trials, batch_size, metric, problems)
    return import_tracked(tracked, folder, kind="optuna", source=study, workload=study, goals=goals, problems=problems)


def _storage(optuna: Any, storage: str) -> Any:
    """The storage, opened without making a file or a table."""
    path = Path(storage.removeprefix("sqlite:///"))
    if "://" in storage and not storage.startswith("sqlite:///"):
        return storage
    if not path.is_file():
        raise DataError(f"there is no Optuna storage {path}")
    with path.open("rb") as file:
        sqlite = file.read(15) == b"SQLite format 3"
    if sqlite:
        address = f"sqlite:///file:{path.resolve()}?mode=ro&uri=true"
        return optuna.storages.RDBStorage(address, skip_table_creation=True)
    return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))


def _tracked(trials: Sequence[Any], batch_size: str, metric: str, problems: Problems) -> Iterator[Tracked]:
    for trial in trials:
        state = trial.state.name
        if state == "WAITING":
            problems.add("trials that have not begun, left out", 1, f"trial {trial.number}")
            continue
        settings = {**trial.user_attrs, **trial.params}
        hyperparameters = {name: value for name, value in trial.params.items() if name != batch_size}
        found = Tracked(str(trial.number), settings.get(batch_size), state, hyperparameters)
        for step, value in trial.intermediate_values.items():
            found.log(step, metric, value, problems)
        if not trial.intermediate_values:
            problems.add("trials that reported nothing at any step", 1, f"trial {trial.number}")
        yield found
