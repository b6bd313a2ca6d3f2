"""Who is advanced how far: all trials of a batch size climb the same rungs until the fastest is known.

S(B) is a minimum over trials, so a trial that is beyond the best step count so far cannot win. When one trial crosses
the goal inside a rung, every other has been advanced past that step too: the minimum is exact and the race is over. The
rest run on to ``margin`` times the winner, because an interval for the minimum needs the runners-up; what is beyond is
right-censored.

A race decides from outcomes alone and never from their order, so a race that is fed the outcomes of an interrupted run
asks for exactly the units that are missing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from batchscope.plan.rungs import Grid
from batchscope.spec.goal import Goal
from batchscope.spec.trial import Trial

# Draws for every wanted trial before a space that mostly diverges is taken as it is.
LARGEST_DRAW = 5

Status = Literal["running", "complete", "diverged", "censored", "pruned"]


@dataclass(frozen=True)
class Leg:
    """Some trials trained together until a step."""

    until: int
    members: tuple[int, ...]


@dataclass(frozen=True)
class Unit:
    """A group of trials advanced by one rung.

    The state before the last leg is a pure function of the legs before it, so a unit can be computed anywhere: from a
    state kept in memory, from a checkpoint, or from nothing.

    Attributes:
        batch_size: The batch size that the group is trained at.
        group: Which group of the race.
        legs: All legs of the group from step 0; the last is what is to be done.
    """

    batch_size: int
    group: int
    legs: tuple[Leg, ...]

    @property
    def members(self) -> tuple[int, ...]:
        """Indices of the trials to be advanced."""
        return self.legs[-1].members

    @property
    def start(self) -> int:
        """The step from which they are advanced."""
        return self.legs[-2].until if len(self.legs) > 1 else 0

    @property
    def until(self) -> int:
        """The step to which they are advanced."""
        return self.legs[-1].until


@dataclass(frozen=True)
class Outcome:
    """What became of one trial in one unit.

    Attributes:
        steps: The last look; below the unit's ``until`` only for a trial that diverged.
        diverged: Whether that look found something that is not finite.
        reached: Goal to the first look of this unit that was beyond it.
    """

    steps: int
    diverged: bool
    reached: Mapping[Goal, int]


@dataclass
class _Progress:
    steps: int = 0
    diverged: bool = False
    reached: dict[Goal, int] = field(default_factory=dict)


@dataclass
class _Group:
    members: tuple[int, ...]
    legs: tuple[Leg, ...] = ()


class Race:
    """The trials of one batch size, from the first point drawn to the last status."""

    def __init__(
        self,
        trials: Iterator[Trial],
        *,
        batch_size: int,
        wanted: int | None,
        pack_size: int,
        grid: Grid,
        goals: Sequence[Goal],
        policy: Literal["race", "full"] = "race",
        margin: float = 1.5,
    ) -> None:
        """Draw the first trials.

        Args:
            trials: In the order in which they are to be drawn; finite for a grid.
            batch_size: Of all of them.
            wanted: How many feasible ones; None takes every trial there is and replaces none.
            pack_size: Trials to a group.
            grid: Looks and rungs.
            goals: What they race for.
            policy: ``race`` stops when the fastest is known; ``full`` trains to the budget.
            margin: How far beyond the fastest the others run, as a multiple of its steps.
        """
        self.batch_size, self.wanted = batch_size, wanted
        self._source, self._pack_size = trials, pack_size
        self._grid, self._goals, self._policy, self._margin = grid, tuple(goals), policy, margin
        self._trials: list[Trial] = []
        self._progress: list[_Progress] = []
        self._groups: list[_Group] = []
        self._due: list[Unit] = []
        self._out: set[Unit] = set()
        self._target = grid.rungs()[0]
        self.finished = False
        self._draw(wanted)
        self._open()

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Every trial drawn so far, by index."""
        return tuple(self._trials)

    def take(self) -> tuple[Unit, ...]:
        """Units that can be computed now, in any order; each is given out once."""
        due, self._due = tuple(self._due), []
        self._out.update(due)
        return due

    def record(self, unit: Unit, outcomes: Mapping[int, Outcome]) -> None:
        """Take the outcomes of a unit that was given out, by trial index."""
        self._out.remove(unit)
        self._groups[unit.group].legs = unit.legs
        for index in unit.members:
            outcome, progress = outcomes[index], self._progress[index]
            progress.steps, progress.diverged = outcome.steps, outcome.diverged
            for goal, step in outcome.reached.items():
                progress.reached.setdefault(goal, step)
        if not self._due and not self._out:
            self._decide()

    def winner(self, goal: Goal) -> int | None:
        """The fewest steps at which a trial has reached the goal so far."""
        return min((p.reached[goal] for p in self._progress if goal in p.reached), default=None)

    def status(self, index: int) -> Status:
        """Of one trial; final once the race is finished."""
        progress = self._progress[index]
        if self._reached_all(progress) and (self._policy == "race" or progress.diverged):
            return "complete"
        if progress.diverged:
            return "diverged"
        if progress.steps >= self._grid.last:
            return "complete"
        return "censored" if self.finished else "running"

    def steps(self, index: int) -> int:
        """The last look of one trial."""
        return self._progress[index].steps

    def share_done(self) -> float:
        """A rough share of the work that is done, for a progress display: 1.0 when finished."""
        if self.finished:
            return 1.0
        done = sum(min(p.steps, self._target) for p in self._progress)
        return done / (self._horizon() * max(1, len(self._progress)))

    def _horizon(self) -> int:
        winners = [self.winner(goal) for goal in self._goals]
        if self._policy == "full" or None in winners:
            return self._grid.last
        return self._grid.at_least(self._margin * max(step for step in winners if step is not None))

    def _reached_all(self, progress: _Progress) -> bool:
        return all(goal in progress.reached for goal in self._goals)

    def _runs(self, index: int) -> bool:
        progress = self._progress[index]
        done = self._policy == "race" and self._reached_all(progress)
        return not progress.diverged and not done and progress.steps < self._target

    def _draw(self, count: int | None) -> int:
        drawn = list(itertools.islice(self._source, count))
        start = len(self._trials)
        self._trials += drawn
        self._progress += [_Progress() for _ in drawn]
        indices = range(start, start + len(drawn))
        self._groups += [_Group(tuple(indices[i : i + self._pack_size])) for i in range(0, len(drawn), self._pack_size)]
        return len(drawn)

    def _open(self) -> None:
        for number, group in enumerate(self._groups):
            members = tuple(index for index in group.members if self._runs(index))
            if members:
                self._due.append(Unit(self.batch_size, number, (*group.legs, Leg(self._target, members))))

    def _decide(self) -> None:
        """All trials stand at the target: replace the infeasible, raise the target, or end."""
        while not self._due:
            if self._replace_infeasible():
                self._open()
                continue
            horizon = self._horizon()
            if self._target >= horizon or not any(self._could_go_on(index) for index in range(len(self._trials))):
                self.finished = True
                return
            rungs = (rung for rung in self._grid.rungs() if rung > self._target)
            self._target = horizon if horizon < self._grid.last else next(rungs)
            self._open()

    def _could_go_on(self, index: int) -> bool:
        progress = self._progress[index]
        done = self._policy == "race" and self._reached_all(progress)
        return not progress.diverged and not done and progress.steps < self._grid.last

    def _replace_infeasible(self) -> bool:
        if self.wanted is None:
            return False
        infeasible = sum(p.diverged and not self._reached_all(p) for p in self._progress)
        room = LARGEST_DRAW * self.wanted - len(self._trials)
        missing = min(self.wanted - (len(self._trials) - infeasible), room)
        return missing > 0 and self._draw(missing) > 0
