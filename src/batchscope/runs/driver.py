"""One run of a study, from the first unit to the last: asks the races what is due, and writes what comes back."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress

import polars as pl

from batchscope import interrupts, workloads
from batchscope.amounts import number
from batchscope.analysis.reach import nearest
from batchscope.engine.choice import ProgramChoice
from batchscope.errors import StoreError, StudyError
from batchscope.executors.local import Choosing, Executor, Forgetting, Inline, Processes, Running
from batchscope.executors.worker import Result, Skipped
from batchscope.plan.race import Race, SearchRound, Unit
from batchscope.plan.sampling import first_trials
from batchscope.plan.search_rounds import BatchSize
from batchscope.runs import notes
from batchscope.runs.finished import note
from batchscope.runs.prepared import Prepared, opened
from batchscope.runs.program_choices import failed, written
from batchscope.runs.progress import Progress
from batchscope.runs.reporter import Reporter
from batchscope.runs.rows import Computed, Record, measurement_rows, outcomes, trial_row
from batchscope.spec.space import Space
from batchscope.store.states import weights_name
from batchscope.store.store import Store

# The most work that a driver killed without warning has computed and not yet written.
COMMIT_SECONDS = 1.0


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, SIGTERM or SIGHUP, with everything that was finished written."""


def drive(run: Prepared, on_progress: Callable[[Progress], None]) -> None:
    """Run what is missing of a study in its folder.

    Args:
        run: Which.
        on_progress: Called when units of work are done, at most ten times a second.

    Raises:
        Interrupted: On Ctrl-C, SIGTERM or SIGHUP, with everything that was finished written.
    """
    with interrupts.kept(), opened(run) as store:
        try:
            with closing(_executor(run)) as executor:
                driver = Driver(run, store, executor, on_progress)
                try:
                    driver.work()
                except BaseException as error:
                    with suppress(StoreError):  # in the middle of a write: the next driver computes that second again
                        driver.commit()
                    if isinstance(error, KeyboardInterrupt):
                        executor.stop()
                    raise
        except KeyboardInterrupt:
            raise Interrupted from None
        if not run.given:
            store.write_provenance({**store.provenance, "finished": note(run.study, store)})


def _executor(run: Prepared) -> Executor:
    return Processes(run.setup, run.layout.workers) if run.layout.workers else Inline(run.setup)


class Driver:
    """One run from its first unit to its last, over an open folder and an executor."""

    def __init__(
        self, run: Prepared, store: Store, executor: Executor, on_progress: Callable[[Progress], None]
    ) -> None:
        """Read what the folder has; nothing is submitted yet."""
        self._study, self._context, self._run = run.study, run.context, run
        self._store, self._executor = store, executor
        self._record = Record(store.trials(), store.measurements(), run.study.goals)
        self._choices: dict[int, ProgramChoice] = dict(run.recorded.choices)
        self._sizes: dict[int, BatchSize] = {}
        self._skipped: dict[int, str] = {}
        self._names: dict[tuple[SearchRound, int], str] = {}
        self._seconds: dict[str, tuple[float, float]] = {}
        self._reporter = Reporter(run.study, on_progress)
        # What was computed since the last commit.
        self._computed: list[Computed] = []
        self._changed: set[tuple[SearchRound, int]] = set()
        self._committed = time.monotonic()

    def work(self) -> None:
        """Submit what is due, and what follows from its results, until nothing is; everything is written then."""
        waiting = 0
        for batch_size in self._study.batch_sizes:
            if batch_size in self._choices:
                waiting += self._begin(batch_size)
            else:
                limit = self._run.layout.fit.pack_limits[batch_size] * len(self._study.search.spaces)
                trials = first_trials(self._study.search, batch_size, self._study.seed, limit)
                self._executor.submit(Choosing(batch_size, tuple(trials)))
                waiting += 1
        self._tell()
        while waiting:
            task, reply = self._executor.next()
            waiting -= 1
            if isinstance(task, Choosing) and isinstance(reply, ProgramChoice):
                self._settle(task.batch_size, reply, *([reply.remark] if reply.remark else []))
                waiting += self._begin(task.batch_size)
            elif isinstance(task, Choosing) and isinstance(reply, Skipped):
                self._skip(task.batch_size, reply)
            elif isinstance(task, Running) and isinstance(reply, Result):
                waiting += self._take(reply)
            if time.monotonic() - self._committed > COMMIT_SECONDS:
                self.commit()
            if self._reporter.is_due:
                self._tell()
        self._tell()
        self.commit()

    def _settle(self, batch_size: int, choice: ProgramChoice, *remarks: str) -> None:
        """Note how a batch size is computed from here on, and what there is to say of it."""
        self._choices[batch_size] = choice
        self._note({"choices": written(self._choices)}, *remarks)

    def _skip(self, batch_size: int, skipped: Skipped) -> None:
        """Leave a batch size out whose updates cannot be computed; where none can, the workload is at fault."""
        self._skipped[batch_size] = skipped.reason
        lonely = "more than 1 value per channel" in skipped.reason
        hint = "; batch norm needs two examples or more in an update" if lonely else ""
        if len(self._skipped) == len(self._study.batch_sizes):
            if lonely:
                raise StudyError(
                    f"batch_sizes: {batch_size} cannot be trained: {skipped.reason}{hint}; write 2 or more"
                )
            with workloads.explained(self._study.workload):
                raise skipped.error
        self._note(
            {"skipped": dict(self._skipped)},
            f"batch size {batch_size} is left out, because its updates fail: {skipped.reason}{hint}",
        )

    def _note(self, facts: dict[str, object], *remarks: str) -> None:
        provenance = {**self._store.provenance, **facts}
        if remarks:
            provenance["remarks"] = notes.joined_remarks(provenance, remarks)
        self._store.write_provenance(provenance)

    def _begin(self, batch_size: int) -> int:
        pack_size = self._choices[batch_size].pack_size
        self._sizes[batch_size] = BatchSize(self._study, batch_size, self._run.grids[batch_size], pack_size)
        return self._continue(*self._sizes[batch_size].races.values())

    def _continue(self, *races: Race) -> int:
        """Record what is known of the units that are due, and submit the others; how many those are."""
        submitted = 0
        for race in races:
            while units := race.take():
                for unit in units:
                    known = self._record.outcomes(unit, self._ids(unit))
                    if known is not None:
                        race.record(unit, known)
                    else:
                        self._executor.submit(Running(unit, self._choices[race.search_round.batch_size]))
                        submitted += 1
            if race.finished:
                self._changed.update((race.search_round, trial.index) for trial in race.trials)
        size = self._sizes[races[0].search_round.batch_size]
        if size.finished:
            following = size.follow()
            if following:
                self._note_spaces(races[0].search_round.batch_size, size.spaces)
                return submitted + self._continue(*following)
            self._finish(races[0].search_round.batch_size)
        return submitted

    def _take(self, result: Result) -> int:
        """Record a unit that was computed; how many more follow from it."""
        unit, race = result.unit, self._race(result.unit.search_round)
        size, choice = unit.search_round.batch_size, self._choices[unit.search_round.batch_size]
        if result.failed and choice.program != "loop":
            remark = f"batch size {size} went on with engine.program=loop: {choice.program} failed {result.failed}"
            self._settle(size, failed(choice, result.failed), remark)
        ids = self._ids(unit)
        for name in ids:
            before = self._seconds.get(name, self._record.seconds(name))
            self._seconds[name] = (result.train_seconds, result.evaluation_seconds)
            self._reporter.spend(result.train_seconds - before[0], result.evaluation_seconds - before[1])
        race.record(unit, outcomes(result, self._study.goals))
        self._computed.append(Computed(result, ids, [self._record.steps(name) for name in ids]))
        self._changed.update((unit.search_round, index) for index in unit.members)
        return self._continue(race)

    def _finish(self, batch_size: int) -> None:
        """A batch size is done: its trials have their last status, and no state of theirs is needed again."""
        self.commit()
        self._note_spaces(batch_size, self._sizes[batch_size].spaces)
        for goal in self._study.goals:
            if self._sizes[batch_size].winner(goal) is None:
                races = self._sizes[batch_size].races.values()
                diverged = all(race.status(trial.index) == "diverged" for race in races for trial in race.trials)
                best = nearest(self._store.measurements(batch_size), goal, [batch_size], diverged=diverged)
                self._reporter.remark(f"no trial at batch size {number(batch_size)} reached {goal}; {best}")
        self._store.compact(batch_size)
        winners = self._sizes[batch_size].winners()
        kept = [weights_name(batch_size, trial.id(self._context), step) for trial, step in winners]
        self._store.keep_weights(batch_size, kept)
        keys = self._store.state_keys()
        self._store.drop_states([key for key in keys if key.startswith(f"{batch_size}-")])
        self._executor.submit(Forgetting(batch_size))

    def _note_spaces(self, batch_size: int, spaces: Sequence[Mapping[str, Space]]) -> None:
        """Write what widening made of the space, before any trial of it: readers tell by it which trials count."""
        provenance = self._store.provenance
        known = provenance.get("spaces", {})
        revisions = {size: revised for size, revised in known.items() if size != str(batch_size)}
        if len(spaces) > 1:
            revisions[str(batch_size)] = notes.written_spaces(spaces)
        if revisions != known:
            self._store.write_provenance({**provenance, "spaces": revisions})

    def commit(self) -> None:
        """Write what was computed since the last time."""
        rows = []
        for search_round, index in sorted(self._changed):
            race = self._race(search_round)
            trial = race.trial(index)
            name = self._name(race, index)
            # A study that was changed may ask for fewer steps than the folder has, or pass over them again.
            steps = max(race.steps(index), self._record.steps(name))
            seconds = self._seconds.get(name, self._record.seconds(name))
            examples = self._run.timelines[search_round.batch_size].examples(steps)
            rows.append(trial_row(trial, name, race.status(index), steps, examples, seconds))
        if rows:
            trials = pl.from_dicts(rows, infer_schema_length=None)
            self._store.commit(trials, measurement_rows(self._computed))
        self._changed.clear()
        self._computed.clear()
        self._committed = time.monotonic()

    def _race(self, search_round: SearchRound) -> Race:
        return self._sizes[search_round.batch_size].races[search_round]

    def _ids(self, unit: Unit) -> list[str]:
        race = self._race(unit.search_round)
        return [self._name(race, index) for index in unit.members]

    def _name(self, race: Race, index: int) -> str:
        if (race.search_round, index) not in self._names:
            self._names[race.search_round, index] = race.trial(index).id(self._context)
        return self._names[race.search_round, index]

    def _tell(self) -> None:
        self._reporter.tell(self._sizes, self._skipped)
