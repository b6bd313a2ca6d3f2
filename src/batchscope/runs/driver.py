"""One run of a study, from the first unit to the last: asks the races what is due, and writes what comes back."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import polars as pl

from batchscope import interrupts, workloads
from batchscope.amounts import number
from batchscope.analysis.reach import diverging, nearest
from batchscope.engine.choice import ProgramChoice
from batchscope.engine.training import DTYPES
from batchscope.errors import StoreError, StudyError
from batchscope.executors import starting
from batchscope.executors.local import (
    Choosing,
    Executor,
    Forgetting,
    Inline,
    Processes,
    Running,
    WorkerSetup,
)
from batchscope.executors.shared import SharedData
from batchscope.executors.worker import FolderCheckpoints, Result, Skipped
from batchscope.machine.devices import resolve_device
from batchscope.plan.race import Race, SearchRound, Unit
from batchscope.plan.sampling import first_trials
from batchscope.plan.search_rounds import BatchSize
from batchscope.runs import notes
from batchscope.runs.changed import refusal
from batchscope.runs.demand import demand
from batchscope.runs.finished import note
from batchscope.runs.planned import searches
from batchscope.runs.preflight import check_extension, check_goals, check_size, grids_of, timelines_of
from batchscope.runs.program_choices import Recorded, check_pins, failed, joined, pinned, replayed, written
from batchscope.runs.progress import BatchSizeProgress, Progress
from batchscope.runs.rows import Computed, Record, measurement_rows, outcomes, trial_row
from batchscope.runs.workers_and_packs import lay_out
from batchscope.spec.space import Space
from batchscope.spec.study import Study
from batchscope.spec.workload import Workload
from batchscope.store.provenance import collect
from batchscope.store.states import weights_name
from batchscope.store.store import Store

# The most work that a driver killed without warning has computed and not yet written.
COMMIT_SECONDS = 1.0
# Telling how far a run is takes a walk over all trials: often enough for an eye, rare enough to cost nothing.
TELL_SECONDS = 0.1


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, SIGTERM or SIGHUP, with everything that was finished written."""


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
        replay_choices: Path | None = None,
        max_memory: int | None = None,
    ) -> None:
        """Load the workload and check the study against it; nothing is written yet.

        Errors:
            BatchscopeError: If the study cannot be run here.
        """
        self._study, self._folder, self._on_progress = study, folder, on_progress
        if workload is None and workers != 0:
            starting.begin()
        device = resolve_device(device)
        known = (workload or workloads.load(study.workload, data_dir)).measuring(study.metrics)
        check_goals(study, known)
        check_size(known)
        self._timelines = timelines_of(study, known)
        self._grids = grids_of(study, self._timelines)
        self._context, self._identity = study.context(known.fingerprint()), known.identity()
        self._recorded = self._settled(None if replay_choices is None else replayed(replay_choices, study, device))
        need = demand(study, known, self._timelines, device)
        recorded = self._recorded
        wanted = 0 if workload is not None else workers
        self._layout = lay_out(study, need, wanted, device, recorded.choices, recorded.threads, max_memory)
        self._workload_notes = known.remarks
        self._shares = known if self._layout.workers else None
        self._device, self._data_dir, self._given = device, data_dir, workload
        self._sizes: dict[int, BatchSize] = {}
        self._choices: dict[int, ProgramChoice] = dict(self._recorded.choices)
        self._skipped: dict[int, str] = {}
        self._names: dict[tuple[SearchRound, int], str] = {}
        self._computed: list[Computed] = []
        self._changed: set[tuple[SearchRound, int]] = set()
        self._seconds: dict[str, tuple[float, float]] = {}
        self._spent = [0.0, 0.0]
        self._started = self._committed = time.monotonic()
        self._told = -math.inf
        self._remarks: list[str] = []
        self._warned = False

    def run(self) -> None:
        """Run what is missing.

        Raises:
            Interrupted: On Ctrl-C, with everything that was finished written.
        """
        with interrupts.kept(), self._open() as self._store:
            self._record = Record(self._store.trials(), self._store.measurements(), self._study.goals)
            executor: Executor | None = None
            try:
                executor = self._executor()
                self._work(executor)
            except KeyboardInterrupt:
                with suppress(StoreError):  # in the middle of a write: the next driver computes that second again
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
            if self._given is None:
                self._note({"finished": note(self._study, self._store)})

    def _open(self) -> Store:
        """The run folder: a new one, or one that holds a run of this study.

        Errors:
            StudyError: If the folder holds a run of another workload or algorithm, or evaluations that ended early
                without what this study asks for.
        """
        text = self._study.to_yaml()
        if not (self._folder / "study.yaml").exists():
            facts = {"seed": self._study.seed, "context": self._context, "device": self._device}
            facts["workload"] = self._identity
            facts["searches"] = searches(self._study, None)
            return Store.create(self._folder, text, collect(**facts, **self._chosen()))
        store = Store.open(self._folder, write=True)
        try:
            if notes.context(store.provenance, self._folder) != self._context:
                before = Study.from_text(store.study_text, source=str(self._folder / "study.yaml"))
                raise refusal(self._folder, before, self._study, store.provenance.get("workload"), self._identity)
            if store.study_text != text:
                check_extension(self._study, self._folder, store.measurements())
                store.write_study(text)
            chosen = self._chosen() | {"searches": searches(self._study, store.provenance)}
            if "remarks" in chosen:
                chosen["remarks"] = notes.joined_remarks(store.provenance, self._recorded.remarks)
            if chosen != {name: store.provenance.get(name) for name in chosen}:
                store.write_provenance({**store.provenance, **chosen})
        except BaseException:
            store.close()
            raise
        return store

    def _settled(self, other: Recorded | None) -> Recorded:
        """The choices that are made already: by an earlier driver of this folder, or by the run that is replayed."""
        own = Recorded(self._folder, {}, None)
        if (self._folder / "study.yaml").exists():
            provenance = Store.open(self._folder).provenance
            if provenance.get("context") == self._context:
                own = Recorded.of(self._folder, provenance)
        own = own if own.choices else Recorded(self._folder, {}, None)
        found = joined(pinned(self._study, own), other)
        check_pins(self._study, found)
        return found

    def _chosen(self) -> dict[str, object]:
        """What the provenance says of how the run is computed."""
        layout, recorded = self._layout, self._recorded
        facts: dict[str, object] = {
            "workers": layout.workers,
            "threads": layout.threads,
            "choices": written(self._choices),
        }
        facts |= {"remarks": list(recorded.remarks)} if recorded.remarks else {}
        return facts | ({"notes": list(self._workload_notes)} if self._workload_notes else {})

    def _executor(self) -> Executor:
        checkpoints, layout = FolderCheckpoints(self._folder), self._layout
        shares, study = self._shares, self._study
        data = None if shares is None else SharedData.of(shares, DTYPES[study.engine.dtype], study.seed)
        given = self._given
        if shares is not None and data is not None and not workloads.is_file(study.workload):
            given = data.skeleton(shares)
        self._shares = None
        setup = WorkerSetup(
            self._study,
            self._device,
            checkpoints,
            self._context,
            layout.threads,
            self._data_dir,
            given,
            data,
            layout.fit.held_bytes,
        )
        return Processes(setup, layout.workers) if layout.workers else Inline(setup)

    def _work(self, executor: Executor) -> None:
        waiting = 0
        for batch_size in self._study.batch_sizes:
            if batch_size in self._choices:
                waiting += self._begin(executor, batch_size)
            else:
                limit = self._layout.fit.pack_limits[batch_size] * len(self._study.search.spaces)
                trials = first_trials(self._study.search, batch_size, self._study.seed, limit)
                executor.submit(Choosing(batch_size, tuple(trials)))
                waiting += 1
        self._tell()
        while waiting:
            task, reply = executor.next()
            waiting -= 1
            if isinstance(task, Choosing) and isinstance(reply, ProgramChoice):
                self._settle(task.batch_size, reply, *([reply.remark] if reply.remark else []))
                waiting += self._begin(executor, task.batch_size)
            elif isinstance(task, Choosing) and isinstance(reply, Skipped):
                self._skip(task.batch_size, reply)
            elif isinstance(task, Running) and isinstance(reply, Result):
                waiting += self._take(executor, reply)
            if time.monotonic() - self._committed > COMMIT_SECONDS:
                self._commit()
            if time.monotonic() - self._told > TELL_SECONDS:
                self._tell()
        self._tell()

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
                        executor.submit(Running(unit, self._choices[race.search_round.batch_size]))
                        submitted += 1
            if race.finished:
                self._changed.update((race.search_round, trial.index) for trial in race.trials)
        size = self._sizes[races[0].search_round.batch_size]
        if size.finished:
            following = size.follow()
            if following:
                self._note_spaces(races[0].search_round.batch_size, size.spaces)
                return submitted + self._continue(executor, *following)
            self._finish(executor, races[0].search_round.batch_size)
        return submitted

    def _take(self, executor: Executor, result: Result) -> int:
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
            self._spent[0] += max(0.0, result.train_seconds - before[0])
            self._spent[1] += max(0.0, result.evaluation_seconds - before[1])
        race.record(unit, outcomes(result, self._study.goals))
        self._computed.append(Computed(result, ids, [self._record.steps(name) for name in ids]))
        self._changed.update((unit.search_round, index) for index in unit.members)
        return self._continue(executor, race)

    def _finish(self, executor: Executor, batch_size: int) -> None:
        """A batch size is done: its trials have their last status, and no state of theirs is needed again."""
        self._commit()
        self._note_spaces(batch_size, self._sizes[batch_size].spaces)
        for goal in self._study.goals:
            if self._sizes[batch_size].winner(goal) is None:
                races = self._sizes[batch_size].races.values()
                diverged = all(race.status(trial.index) == "diverged" for race in races for trial in race.trials)
                best = nearest(self._store.measurements(batch_size), goal, [batch_size], diverged=diverged)
                self._remarks.append(f"no trial at batch size {number(batch_size)} reached {goal}; {best}")
        self._store.compact(batch_size)
        winners = self._sizes[batch_size].winners()
        kept = [weights_name(batch_size, trial.id(self._context), step) for trial, step in winners]
        self._store.keep_weights(batch_size, kept)
        keys = self._store.state_keys()
        self._store.drop_states([key for key in keys if key.startswith(f"{batch_size}-")])
        executor.submit(Forgetting(batch_size))

    def _note_spaces(self, batch_size: int, spaces: Sequence[Mapping[str, Space]]) -> None:
        """Write what widening made of the space, before any trial of it: readers tell by it which trials count."""
        provenance = self._store.provenance
        known = provenance.get("spaces", {})
        revisions = {size: revised for size, revised in known.items() if size != str(batch_size)}
        if len(spaces) > 1:
            revisions[str(batch_size)] = notes.written_spaces(spaces)
        if revisions != known:
            self._store.write_provenance({**provenance, "spaces": revisions})

    def _commit(self) -> None:
        """Write what was computed since the last time."""
        rows = []
        for search_round, index in sorted(self._changed):
            race = self._race(search_round)
            trial = race.trial(index)
            name = self._name(race, index)
            # A study that was changed may ask for fewer steps than the folder has, or pass over them again.
            steps = max(race.steps(index), self._record.steps(name))
            seconds = self._seconds.get(name, self._record.seconds(name))
            examples = self._timelines[search_round.batch_size].examples(steps)
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
        """Report the progress."""
        self._told = time.monotonic()
        batch_sizes = []
        for batch_size in self._study.batch_sizes:
            size = self._sizes.get(batch_size)
            if size is None:
                skipped = self._skipped.get(batch_size, "")
                share, best = 1.0 if skipped else 0.0, dict.fromkeys(self._study.goals)
                batch_sizes.append(
                    BatchSizeProgress(batch_size, share, 0, 0, best, choosing=not skipped, skipped=skipped)
                )
                continue
            races = list(size.races.values())
            share = sum(race.share_done() for race in races) / len(races)
            statuses = [race.status(trial.index) for race in races for trial in race.trials]
            best = {goal: size.winner(goal) for goal in self._study.goals}
            batch_sizes.append(BatchSizeProgress(batch_size, share, len(statuses), statuses.count("diverged"), best))
        if not self._warned and not any(steps for size in batch_sizes for steps in size.best.values()):
            lost = diverging(sum(size.trials for size in batch_sizes), sum(size.diverged for size in batch_sizes))
            self._warned = bool(lost)
            self._remarks += [lost] if lost else []
        seconds = time.monotonic() - self._started
        self._on_progress(Progress(tuple(batch_sizes), seconds, self._spent[0], self._spent[1], tuple(self._remarks)))
