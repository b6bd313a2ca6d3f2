"""One run of a study, from the first unit to the last: asks the races what is due, and writes what comes back."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from batchscope import workloads
from batchscope.engine.choice import PACK_SIZES, Choice
from batchscope.errors import StoreError, StudyError
from batchscope.executors.local import (
    Choosing,
    Executor,
    Forgetting,
    Inline,
    Processes,
    Running,
    Setup,
    available_cores,
)
from batchscope.executors.worker import FolderCheckpoints, Result
from batchscope.plan.race import Heat, Race, Unit
from batchscope.runs import notes
from batchscope.runs.heats import BatchSize
from batchscope.runs.preflight import check_goals, grids_of, resolve_device, timelines_of
from batchscope.runs.rows import NO_LOOKS, Record, measurement_rows, outcomes, trial_row
from batchscope.spec.goal import Goal
from batchscope.spec.study import Study
from batchscope.spec.workload import Workload
from batchscope.store.provenance import collect
from batchscope.store.store import Store

# The most work that a driver killed without warning has computed and not yet written.
COMMIT_SECONDS = 1.0


@dataclass(frozen=True)
class Lane:
    """How far one batch size is.

    Attributes:
        batch_size: Which.
        share: Of its work that is done, roughly; 1.0 when finished.
        trials: Drawn so far.
        diverged: Of them.
        best: Goal to the fewest steps so far; None where no trial has reached it.
    """

    batch_size: int
    share: float
    trials: int
    diverged: int
    best: Mapping[Goal, int | None]


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        lanes: One for each batch size.
        seconds: Since this driver began.
        train_seconds: Spent on training, over all workers.
        evaluation_seconds: Spent on evaluation, over all workers.
    """

    lanes: tuple[Lane, ...]
    seconds: float
    train_seconds: float
    evaluation_seconds: float

    @property
    def share(self) -> float:
        """Of the whole work that is done, roughly: batch sizes count alike."""
        return sum(lane.share for lane in self.lanes) / len(self.lanes)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with everything that was finished written."""


class Driver:
    """Runs what is missing of a study in a folder."""

    def __init__(
        self,
        study: Study,
        folder: Path,
        *,
        workload: Workload | None,
        workers: int | None,
        device: str,
        data_dir: Path | None,
        on_progress: Callable[[Progress], None],
    ) -> None:
        """Load the workload and check the study against it; nothing is written yet.

        Errors:
            BatchscopeError: If the study cannot be run here.
        """
        self._study, self._folder, self._on_progress = study, folder, on_progress
        device = resolve_device(device)
        known = workload or workloads.load(study.workload, data_dir)
        check_goals(study, known)
        self._timelines = timelines_of(study, known)
        self._grids = grids_of(study, self._timelines)
        self._context = study.context(known.fingerprint())
        cores = available_cores()
        self._workers = (cores if device == "cpu" else 1) if workers is None else workers
        if workload is not None:
            self._workers = 0
        threads = study.engine.threads
        self._threads = max(1, cores // max(1, self._workers)) if threads == "auto" else threads
        self._device, self._data_dir, self._given = device, data_dir, workload
        self._sizes: dict[int, BatchSize] = {}
        self._choices: dict[int, Choice] = {}
        self._looks: list[pl.DataFrame] = []
        self._changed: set[tuple[Heat, int]] = set()
        self._seconds: dict[str, tuple[float, float]] = {}
        self._spent = [0.0, 0.0]
        self._started = self._committed = time.monotonic()

    def run(self) -> None:
        """Run what is missing.

        Raises:
            Interrupted: On Ctrl-C, with everything that was finished written.
        """
        with self._open() as self._store:
            self._record = Record(self._store.trials(), self._store.measurements(), self._study.goals)
            executor: Executor | None = None
            try:
                executor = self._executor()
                self._work(executor)
            except KeyboardInterrupt:
                self._commit()
                if executor is not None:
                    executor.stop()
                raise Interrupted from None
            except BaseException:
                with suppress(StoreError):  # after a failed write, which is what there is to say
                    self._commit()
                raise
            finally:
                if executor is not None:
                    executor.close()
            self._commit()

    def _open(self) -> Store:
        """The run folder: a new one, or one that holds a run of this study.

        Raises:
            StudyError: If the folder holds a run of another workload or algorithm.
        """
        text = self._study.to_yaml()
        if not (self._folder / "study.yaml").exists():
            facts = {"seed": self._study.seed, "context": self._context, "device": self._device}
            sizes = {"workers": self._workers, "threads": self._threads}
            return Store.create(self._folder, text, collect(**facts, **sizes, choices={}))
        store = Store.open(self._folder, write=True)
        try:
            if notes.context(store.provenance, self._folder) != self._context:
                raise StudyError(
                    f"{self._folder} holds a run of another workload, algorithm, evaluation grid or dtype:\n"
                    f"{_difference(store.study_text, text)}\n"
                    "give another folder with -o, or run the study of that folder"
                )
            if store.study_text != text:
                store.write_study(text)
        except BaseException:
            store.close()
            raise
        return store

    def _executor(self) -> Executor:
        checkpoints = FolderCheckpoints(self._folder)
        setup = Setup(self._study, self._device, checkpoints, self._threads, self._data_dir, self._given)
        return Processes(setup, self._workers) if self._workers else Inline(setup)

    def _work(self, executor: Executor) -> None:
        limit = min(PACK_SIZES[-1], self._study.search.count)
        self._choices |= notes.choices(self._store.provenance, self._folder)
        waiting = 0
        for batch_size in self._study.batch_sizes:
            if batch_size in self._choices:
                waiting += self._begin(executor, batch_size)
            else:
                executor.submit(Choosing(batch_size, limit))
                waiting += 1
        self._tell()
        while waiting:
            task, reply = executor.next()
            waiting -= 1
            if isinstance(task, Choosing) and isinstance(reply, Choice):
                self._choices[task.batch_size] = reply
                chosen = {str(size): asdict(choice) for size, choice in sorted(self._choices.items())}
                self._store.write_provenance({**self._store.provenance, "choices": chosen})
                waiting += self._begin(executor, task.batch_size)
            elif isinstance(task, Running) and isinstance(reply, Result):
                waiting += self._take(executor, reply)
            if time.monotonic() - self._committed > COMMIT_SECONDS:
                self._commit()
            self._tell()

    def _begin(self, executor: Executor, batch_size: int) -> int:
        pack_size = self._choices[batch_size].pack_size
        self._sizes[batch_size] = BatchSize(self._study, batch_size, self._grids[batch_size], pack_size)
        return self._continue(executor, *self._sizes[batch_size].races.values())

    def _continue(self, executor: Executor, *races: Race) -> int:
        """Record what is known of the units that are due, and submit the others; how many those are."""
        submitted = 0
        for race in races:
            while units := race.take():
                for unit in units:
                    known = self._record.outcomes(unit, self._ids(unit))
                    if known is not None:
                        race.record(unit, known)
                    else:
                        executor.submit(Running(unit, self._choices[race.heat.batch_size]))
                        submitted += 1
            if race.finished:
                self._changed.update((race.heat, trial.index) for trial in race.trials)
        size = self._sizes[races[0].heat.batch_size]
        if size.finished:
            following = size.follow()
            if following:
                return submitted + self._continue(executor, *following)
            self._finish(executor, races[0].heat.batch_size)
        return submitted

    def _take(self, executor: Executor, result: Result) -> int:
        """Record a unit that was computed; how many more follow from it."""
        unit, race = result.unit, self._race(result.unit.heat)
        ids = self._ids(unit)
        for name in ids:
            before = self._seconds.get(name, self._record.seconds(name))
            self._seconds[name] = (result.train_seconds, result.evaluation_seconds)
            self._spent[0] += max(0.0, result.train_seconds - before[0])
            self._spent[1] += max(0.0, result.evaluation_seconds - before[1])
        race.record(unit, outcomes(result, self._study.goals))
        self._looks.append(measurement_rows(result, ids, [self._record.steps(name) for name in ids]))
        self._changed.update((unit.heat, index) for index in unit.members)
        return self._continue(executor, race)

    def _finish(self, executor: Executor, batch_size: int) -> None:
        """A batch size is done: its trials have their last status, and no state of theirs is needed again."""
        self._commit()
        spaces = self._sizes[batch_size].spaces
        if len(spaces) > 1:
            written = [{name: d.model_dump(exclude_none=True) for name, d in space.items()} for space in spaces]
            provenance = self._store.provenance
            revisions = {**provenance.get("spaces", {}), str(batch_size): written}
            self._store.write_provenance({**provenance, "spaces": revisions})
        self._store.compact(batch_size)
        keys = self._store.state_keys()
        self._store.drop_states([key for key in keys if key.startswith(f"{batch_size}-")])
        executor.submit(Forgetting(batch_size))

    def _commit(self) -> None:
        """Write what was computed since the last time."""
        rows = []
        for heat, index in sorted(self._changed):
            race = self._race(heat)
            trial = race.trial(index)
            name = trial.id(self._context)
            # A study that was changed may ask for fewer steps than the folder has, or pass over them again.
            steps = max(race.steps(index), self._record.steps(name))
            seconds = self._seconds.get(name, self._record.seconds(name))
            examples = self._timelines[heat.batch_size].examples(steps)
            rows.append(trial_row(trial, name, race.status(index), steps, examples, seconds))
        if rows:
            trials = pl.from_dicts(rows, infer_schema_length=None)
            self._store.commit(trials, pl.concat([NO_LOOKS, *self._looks], how="diagonal"))
        self._changed.clear()
        self._looks.clear()
        self._committed = time.monotonic()

    def _race(self, heat: Heat) -> Race:
        return self._sizes[heat.batch_size].races[heat]

    def _ids(self, unit: Unit) -> list[str]:
        by_index = {trial.index: trial for trial in unit.trials}
        return [by_index[index].id(self._context) for index in unit.members]

    def _tell(self) -> None:
        """Report the progress."""
        lanes = []
        for batch_size in self._study.batch_sizes:
            size = self._sizes.get(batch_size)
            if size is None:
                lanes.append(Lane(batch_size, 0.0, 0, 0, dict.fromkeys(self._study.goals)))
                continue
            races = list(size.races.values())
            share = sum(race.share_done() for race in races) / len(races)
            statuses = [race.status(trial.index) for race in races for trial in race.trials]
            best = {goal: size.winner(goal) for goal in self._study.goals}
            lanes.append(Lane(batch_size, share, len(statuses), statuses.count("diverged"), best))
        self._on_progress(Progress(tuple(lanes), time.monotonic() - self._started, *self._spent))


def _difference(before: str, after: str) -> str:
    """The lines in which two study files differ, ``-`` for the folder's and ``+`` for the one given."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), "folder", "given", lineterm="", n=0)
    return "\n".join(f"  {line}" for line in lines if not line.startswith("@@"))
