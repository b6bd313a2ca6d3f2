"""What computes units: keeps the packs of live groups in memory, and computes again what it does not have."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from batchscope import workloads
from batchscope.engine.choice import CannotTrain, Chosen, ProgramChoice, choose, in_words, program_of, serving
from batchscope.engine.evaluate import ends_evaluations_early, validation_size
from batchscope.engine.pack import Pack, State, weights_of
from batchscope.engine.program import Crossing, Measurements, Program, advance, diverged_at
from batchscope.engine.randomness import keeping_generators
from batchscope.engine.training import Loaded, Training
from batchscope.engine.watch import Watch
from batchscope.plan.race import SearchRound, StepRange, Unit
from batchscope.plan.rungs import Grid
from batchscope.spec.goal import Goal
from batchscope.spec.trial import Trial, by_optimizer
from batchscope.store.disk import Files
from batchscope.store.states import WEIGHTS, States, weights_name

# Training that may be lost, and computed again, when a worker dies.
CHECKPOINT_SECONDS = 5.0


class Checkpoints(Protocol):
    """Where packs are kept between processes; losing one costs time only."""

    def save(self, name: str, state: State) -> None:
        """Keep a state under a name."""

    def load(self, name: str) -> State | None:
        """The state last kept; None if there is none, or it is damaged."""

    def keep(self, name: str, weights: State) -> None:
        """Keep weights under a name for good."""


class FolderCheckpoints:
    """Checkpoints in a run folder."""

    def __init__(self, folder: Path) -> None:
        """Nothing is read yet."""
        self._states = States(Files(folder))
        self._weights = States(Files(folder), WEIGHTS)

    def save(self, name: str, state: State) -> None:
        """Write a state durably."""
        self._states.save(name, state)

    def load(self, name: str) -> State | None:
        """Read a state; a damaged one is set aside."""
        state, _ = self._states.load(name)
        if state is None:
            self._states.set_aside(name)
        return state

    def keep(self, name: str, weights: State) -> None:
        """Write weights durably."""
        self._weights.save(name, weights)


@dataclass(frozen=True)
class Result:
    """What came of a unit.

    Attributes:
        unit: Which.
        evaluations: Its measurements, K = members of the last step range.
        steps: For every member, the last evaluation; before the unit's end for one that is over.
        diverged: For every member, whether that evaluation found something that is not finite.
        train_seconds: Of one member, from step 0.
        evaluation_seconds: Likewise.
        failed: Why the chosen program could not compute it, and the loop did; empty where it could.
    """

    unit: Unit
    evaluations: Measurements
    steps: tuple[int, ...]
    diverged: tuple[bool, ...]
    train_seconds: float
    evaluation_seconds: float
    failed: str = ""


@dataclass(frozen=True)
class Skipped:
    """What came of the choice at a batch size whose updates cannot be computed at all.

    Attributes:
        reason: What the loop's step raised, in one line.
        error: To be raised where no batch size can be trained.
    """

    reason: str
    error: Exception


@dataclass
class _Held:
    pack: Pack
    saved_at: float = field(default=0.0)

    @property
    def bytes(self) -> int:
        return sum(value.nbytes for value in self.pack.state.values())


class Worker:
    """Computes units of one study on one device."""

    def __init__(
        self,
        loaded: Loaded,
        checkpoints: Checkpoints,
        context: str,
        interrupted: Callable[[], bool] = lambda: False,
        held_bytes: int | None = None,
    ) -> None:
        """Nothing is computed yet.

        Args:
            loaded: The study whose units they are, with its data placed on the device to train on.
            checkpoints: Where packs are kept between processes.
            context: What the ids of the trials share.
            interrupted: Asked at every evaluation.
            held_bytes: The most to keep of packs that are not being advanced: beyond it those that were advanced
                longest ago are kept as checkpoints only. None for no limit.
        """
        self._study, self._checkpoints, self._held_bytes = loaded.study, checkpoints, held_bytes
        self._loaded, self._context = loaded, context
        self._interrupted = interrupted
        self._programs: dict[tuple[int, str, str], Program] = {}  # by batch size, name and optimizer
        self._failed: dict[tuple[int, str], str] = {}
        self._held: dict[tuple[SearchRound, int], _Held] = {}
        self._full: dict[int, frozenset[int]] = {}
        self._fastest: dict[tuple[int, Goal], int] = {}

    def choose(self, batch_size: int, trials: Sequence[Trial]) -> ProgramChoice | Skipped:
        """Measure on some trials, as many as a pack may hold, which program is the fastest at a batch size."""
        groups = by_optimizer(trials)
        # First one that needs the loop: then all are trained by it.
        order = sorted(groups, key=lambda name: self._loaded.of(name).needs_loop is None)
        chosen: Chosen | None = None
        with keeping_generators(self._loaded.device):
            for name in order:
                training, own = Training(self._loaded.of(name), batch_size), groups[name]
                try:
                    if chosen is None:
                        chosen = choose(training, own, self._study.engine)
                    else:
                        chosen = serving(chosen, training, own, self._study.engine)
                except CannotTrain as error:
                    assert isinstance(error.__cause__, Exception)
                    theirs = workloads.in_words(error.__cause__, self._study.workload)
                    return Skipped(in_words(error.__cause__), theirs or error.__cause__)
                self._programs[batch_size, chosen.choice.program, name] = chosen.program
        assert chosen is not None
        return chosen.choice

    def run(self, unit: Unit, choice: ProgramChoice) -> Result | None:
        """Compute a unit; None if interrupted on the way.

        Where the chosen program fails, the loop computes it from the same state, and whatever comes after at this batch
        size: the loop takes any module, and is what the others are checked against.
        """
        key = unit.search_round.batch_size, choice.program
        with keeping_generators(self._loaded.device):
            if choice.program != "loop" and key not in self._failed:
                try:
                    return self._run(unit, self._program(unit, choice))
                except Exception as error:  # whatever a user's module does under a transform
                    self._failed[key] = f"from step {unit.start} on: {in_words(error)}"
                    self._programs.pop((*key, _optimizer(unit)), None)
            found = self._run(unit, self._program(unit, replace(choice, program="loop")))
        return found and replace(found, failed=self._failed.get(key, ""))

    def forget(self, batch_size: int) -> None:
        """Drop what is kept of a batch size that is finished."""
        for key in [key for key in self._programs if key[0] == batch_size]:
            del self._programs[key]
        for name in [name for name in self._held if name[0].batch_size == batch_size]:
            del self._held[name]

    def save(self) -> None:
        """Keep every pack in memory as a checkpoint too."""
        for (search_round, group), held in self._held.items():
            self._save(search_round, group, held)

    def _run(self, unit: Unit, program: Program) -> Result | None:
        pack = self._before_last_step_range(unit, program)
        if pack is None:
            return None
        last, watch = pack.only(unit.members), self._watch(unit)
        keep = partial(self._keep, unit)
        advanced = advance(
            program, last, unit.until, unit.evaluations, watch=watch, interrupted=self._interrupted, crossed=keep
        )
        if advanced is None:
            return None
        pack, measured = advanced
        held = self._held.pop((unit.search_round, unit.group), _Held(pack))
        held.pack = pack
        self._held[unit.search_round, unit.group] = held  # last: it was advanced last
        if pack.train_seconds * len(pack.trials) - held.saved_at > CHECKPOINT_SECONDS:
            self._save(unit.search_round, unit.group, held)
        self._spill()
        members = range(len(unit.members))
        return Result(
            unit,
            measured,
            steps=tuple(measured.ends.get(k, unit.until) for k in members),
            diverged=tuple(diverged_at(measured, k) is not None for k in members),
            train_seconds=pack.train_seconds,
            evaluation_seconds=pack.evaluation_seconds,
        )

    def _keep(self, unit: Unit, crossing: Crossing) -> None:
        """Keep the weights of a trial that may be the winner for a goal, where the study wants them."""
        if self._study.keep != "best" or unit.search_round.replicate:
            return
        size, step = unit.search_round.batch_size, crossing.step
        if any(step <= self._fastest.get((size, goal), math.inf) for goal in crossing.goals):
            self._fastest |= {(size, goal): min(step, self._fastest.get((size, goal), step)) for goal in crossing.goals}
            name = weights_name(size, crossing.trial.id(self._context), step)
            self._checkpoints.keep(name, weights_of(self._loaded, crossing.state))

    def _watch(self, unit: Unit) -> Watch:
        """What the evaluations of a unit are for: a function of the study, and of what its trials had reached
        before.
        """
        if not unit.reached:
            return Watch()
        goals, training = self._study.goals, self._training(unit)
        if not unit.ends or not ends_evaluations_early(training):
            return Watch(goals, unit.reached, ends=unit.ends)
        if training.batch_size not in self._full:
            evaluation, timeline = self._study.evaluation, training.timeline
            grid = Grid(evaluation.ratio, evaluation.first, timeline.last)
            self._full[training.batch_size] = grid.full_evaluations(timeline.examples, validation_size(training))
        return Watch(goals, unit.reached, self._full[training.batch_size])

    def _before_last_step_range(self, unit: Unit, program: Program) -> Pack | None:
        """The group's pack at the start of the last step range: from memory, from a checkpoint, or trained again."""
        pack = self._recall(unit)
        for step_range in unit.step_ranges[:-1]:
            if step_range.until > pack.step:
                advanced = advance(
                    program, pack.only(step_range.members), step_range.until, (), interrupted=self._interrupted
                )
                if advanced is None:
                    return None
                pack, _ = advanced
        return pack

    def _recall(self, unit: Unit) -> Pack:
        held = self._held.get((unit.search_round, unit.group))
        if held is not None and _is_before(held.pack, unit.step_ranges):
            return held.pack
        saved = self._checkpoints.load(_name(unit.search_round, unit.group)) if len(unit.step_ranges) > 1 else None
        if saved is not None:
            pack = Pack.from_tensors(saved, unit.trials, self._context, self._loaded.device)
            if pack is not None and _is_before(pack, unit.step_ranges):
                return pack
        return Pack.fresh(self._training(unit), unit.trials)

    def _save(self, search_round: SearchRound, group: int, held: _Held) -> None:
        self._checkpoints.save(_name(search_round, group), held.pack.to_tensors(self._context))
        held.saved_at = held.pack.train_seconds * len(held.pack.trials)

    def _spill(self) -> None:
        """Keep no more in memory than allowed; at least the pack that was advanced last."""
        if self._held_bytes is None:
            return
        held = sum(each.bytes for each in self._held.values())
        for (search_round, group), each in list(self._held.items())[:-1]:
            if held <= self._held_bytes:
                return
            self._save(search_round, group, each)
            del self._held[search_round, group]
            held -= each.bytes

    def _training(self, unit: Unit) -> Training:
        search_round = unit.search_round
        return Training(self._loaded.of(_optimizer(unit)), search_round.batch_size, search_round.replicate)

    def _program(self, unit: Unit, choice: ProgramChoice) -> Program:
        training, key = self._training(unit), (unit.search_round.batch_size, choice.program, _optimizer(unit))
        if key not in self._programs:
            self._programs[key] = program_of(choice, training)
        return self._programs[key]


def _optimizer(unit: Unit) -> str:
    """Of all trials of a unit."""
    (name,) = by_optimizer(unit.trials)
    return name


def _is_before(pack: Pack, step_ranges: tuple[StepRange, ...]) -> bool:
    """Whether a pack is what the step ranges before the last have made of the group at some point on the way."""
    members = tuple(trial.index for trial in pack.trials)
    return any(step_range.until == pack.step and step_range.members == members for step_range in step_ranges[:-1])


def _name(search_round: SearchRound, group: int) -> str:
    return f"{search_round.batch_size}-{search_round.revision}-{search_round.replicate}-{group}"
