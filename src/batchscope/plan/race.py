"""Who is advanced how far: all trials of a batch size climb the same rungs until the fastest is known.

S(B) is a minimum over trials, so a trial that is beyond the best step count so far cannot win. When one trial crosses
the goal inside a rung, every other has been advanced past that step too: the minimum is exact and the race is over. The
rest run on to ``margin`` times the winner, because an interval for the minimum needs the runners-up; what is beyond is
right-censored. Together they take at most twice the steps that all of them would take to the winner's.

``halving`` climbs the same rungs and drops the worst at each of them: it is cheaper and approximate, because a trial
that starts slowly may be dropped before it wins.

A race decides from outcomes alone and never from their order, so a race that is fed the outcomes of an interrupted run
asks for exactly the units that are missing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from batchscope.plan.halving import places, survivors
from batchscope.plan.rungs import Grid
from batchscope.spec.goal import Goal
from batchscope.spec.trial import Trial, by_optimizer

# Draws for every wanted trial before a space that mostly diverges is taken as it is.
LARGEST_DRAW = 5

# Above this margin the runners-up themselves take more than twice the winner's steps.
LEAST_LIMIT = 2.0

Policy = Literal["race", "full", "halving"]
Status = Literal["running", "complete", "diverged", "stopped", "pruned"]


@dataclass(frozen=True)
class StepRange:
    """Some trials trained together until a step."""

    until: int
    members: tuple[int, ...]


@dataclass(frozen=True, order=True)
class SearchRound:
    """One race: the search at a batch size, a revision of it, or its best points again with new seeds.

    Attributes:
        batch_size: Of all its trials.
        revision: 0 for the original space; 1, 2, ... after it was widened.
        replicate: 0 for a search; 1, 2, ... for new seeds.
    """

    batch_size: int
    revision: int = 0
    replicate: int = 0


@dataclass(frozen=True)
class Unit:
    """A group of trials advanced by one rung.

    The state before the last step range is a pure function of the step ranges before it, so a unit can be computed
    anywhere: from a state kept in memory, from a checkpoint, or from nothing.

    Attributes:
        search_round: The race.
        group: Which group of it.
        step_ranges: All step ranges of the group from step 0; the last is what is to be done.
        evaluations: Steps of the last step range at which its trials are evaluated.
        trials: Those of the first step range.
        reached: For each member the goals that it had reached before, as bits in the study's order; it is over once it
            has reached all, if ``ends``.
        ends: Whether goals end trials.
    """

    search_round: SearchRound
    group: int
    step_ranges: tuple[StepRange, ...]
    evaluations: tuple[int, ...]
    trials: tuple[Trial, ...]
    reached: tuple[int, ...] = ()
    ends: bool = True

    @property
    def members(self) -> tuple[int, ...]:
        """Indices of the trials to be advanced."""
        return self.step_ranges[-1].members

    @property
    def start(self) -> int:
        """The step from which they are advanced."""
        return self.step_ranges[-2].until if len(self.step_ranges) > 1 else 0

    @property
    def until(self) -> int:
        """The step to which they are advanced."""
        return self.step_ranges[-1].until


@dataclass(frozen=True)
class Outcome:
    """What became of one trial in one unit.

    Attributes:
        steps: The last evaluation; below the unit's ``until`` only for a trial that diverged, or has reached all its
            goals.
        diverged: Whether that evaluation found something that is not finite.
        reached: Goal to the first evaluation of this unit that was beyond it.
        best: Goal to the best value of its metric in this unit.
    """

    steps: int
    diverged: bool
    reached: Mapping[Goal, int]
    best: Mapping[Goal, float] = field(default_factory=dict)


@dataclass
class _Progress:
    steps: int = 0
    diverged: bool = False
    reached: dict[Goal, int] = field(default_factory=dict)
    best: dict[Goal, float] = field(default_factory=dict)
    dropped: bool = False


@dataclass
class _Group:
    trials: tuple[Trial, ...]
    step_ranges: tuple[StepRange, ...] = ()


class Race:
    """The trials of one search round, from the first point drawn to the last status."""

    def __init__(
        self,
        trials: Iterator[Trial],
        *,
        search_round: SearchRound,
        wanted: int | None,
        pack_size: int,
        grid: Grid,
        goals: Sequence[Goal],
        policy: Policy = "race",
        margin: float = 1.5,
        known: Mapping[Goal, int] | None = None,
    ) -> None:
        """Draw the first trials.

        Args:
            trials: In the order in which they are to be drawn; finite for a grid.
            search_round: Which race this is.
            wanted: How many feasible ones; None takes every trial there is and replaces none.
            pack_size: Trials to a group.
            grid: Evaluations and rungs.
            goals: What they race for.
            policy: ``race`` stops when the fastest is known; ``full`` trains to the budget; ``halving`` is a race
                that drops the worst trials at every rung.
            margin: How far beyond the fastest the others run, as a multiple of its steps.
            known: The fewest steps to each goal that earlier search rounds have found at this batch size.
        """
        self.search_round, self.wanted, self._known = search_round, wanted, dict(known or {})
        self._source, self._pack_size = trials, pack_size
        self._grid, self._goals, self._policy, self._margin = grid, tuple(goals), policy, margin
        self._progress: dict[int, _Progress] = {}
        self._trials: dict[int, Trial] = {}
        self._groups: list[_Group] = []
        self._due: list[Unit] = []
        self._out: set[Unit] = set()
        self._target = grid.rungs()[0]
        self.finished = False
        self._draw(wanted)
        self._open()

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Every trial drawn so far, in their order."""
        return tuple(self._trials.values())

    def trial(self, index: int) -> Trial:
        """The trial of an index."""
        return self._trials[index]

    def take(self) -> tuple[Unit, ...]:
        """Units that can be computed now, in any order; each is given out once."""
        due, self._due = tuple(self._due), []
        self._out.update(due)
        return due

    def record(self, unit: Unit, outcomes: Mapping[int, Outcome]) -> None:
        """Take the outcomes of a unit that was given out, by trial index."""
        self._out.remove(unit)
        self._groups[unit.group].step_ranges = unit.step_ranges
        for index in unit.members:
            outcome, progress = outcomes[index], self._progress[index]
            progress.steps, progress.diverged = outcome.steps, outcome.diverged
            for goal, step in outcome.reached.items():
                progress.reached.setdefault(goal, step)
            for goal, value in outcome.best.items():
                before = progress.best.get(goal)
                progress.best[goal] = value if before is None else goal.better(value, before)
        if not self._due and not self._out:
            self._decide()

    def winner(self, goal: Goal) -> int | None:
        """The fewest steps at which a trial has reached the goal so far."""
        return min((p.reached[goal] for p in self._progress.values() if goal in p.reached), default=None)

    def reached(self, goal: Goal) -> list[tuple[int, Trial]]:
        """The steps of every trial that has reached the goal so far, and the trial."""
        found = ((index, p.reached[goal]) for index, p in self._progress.items() if goal in p.reached)
        return [(steps, self._trials[index]) for index, steps in found]

    def leader(self, goal: Goal) -> tuple[int | None, float | None, Trial] | None:
        """The best trial so far: its steps to the goal if it has reached it, its best value, itself."""
        if not any(goal in p.best or goal in p.reached for p in self._progress.values()):
            return None

        def rank(index: int) -> tuple[float, float, int]:
            progress = self._progress[index]
            if goal in progress.reached:  # ties go to the first, as in the analysis
                return progress.reached[goal], -math.inf, index
            value = progress.best.get(goal, math.inf if goal.side == "<" else -math.inf)
            return math.inf, value if goal.side == "<" else -value, index

        index = min(self._progress, key=rank)
        progress = self._progress[index]
        return progress.reached.get(goal), progress.best.get(goal), self._trials[index]

    def status(self, index: int) -> Status:
        """Of one trial; final once the race is finished."""
        progress = self._progress[index]
        if self._reached_all(progress) and (self._policy != "full" or progress.diverged):
            return "complete"
        if progress.diverged:
            return "diverged"
        if progress.dropped:
            return "pruned"
        if progress.steps >= self._grid.last:
            return "complete"
        return "stopped" if self.finished else "running"

    def steps(self, index: int) -> int:
        """The last evaluation of one trial."""
        return self._progress[index].steps

    def share_done(self) -> float:
        """A rough share of the work that is done, for a progress display: 1.0 when finished."""
        if self.finished:
            return 1.0
        done = sum(min(p.steps, self._target) for p in self._progress.values())
        return done / (self._horizon() * max(1, len(self._progress)))

    def _horizon(self) -> int:
        slowest = self._slowest_winner()
        if self._policy == "full" or slowest == math.inf:
            return self._grid.last
        horizon = self._grid.at_least(self._margin * slowest)
        if horizon > LEAST_LIMIT * slowest and self._margin <= LEAST_LIMIT:
            return self._grid.at_most(LEAST_LIMIT * slowest)  # evaluations are far apart
        return horizon

    def _slowest_winner(self) -> float:
        """The fewest steps known to the goal that takes the most; infinite while one is not reached."""
        found = ({goal: step for goal in self._goals if (step := self.winner(goal)) is not None}, self._known)
        return max(min((steps[goal] for steps in found if goal in steps), default=math.inf) for goal in self._goals)

    def _bits(self, index: int) -> int:
        reached = self._progress[index].reached
        return sum(1 << i for i, goal in enumerate(self._goals) if goal in reached)

    def _reached_all(self, progress: _Progress) -> bool:
        return all(goal in progress.reached for goal in self._goals)

    def _ended(self, progress: _Progress) -> bool:
        done = self._policy != "full" and self._reached_all(progress)
        return progress.diverged or progress.dropped or done

    def _runs(self, index: int) -> bool:
        progress = self._progress[index]
        return not self._ended(progress) and progress.steps < self._target

    def _draw(self, count: int | None) -> int:
        drawn = list(itertools.islice(self._source, count))
        self._trials |= {trial.index: trial for trial in drawn}
        self._progress |= {trial.index: _Progress() for trial in drawn}
        for trials in by_optimizer(drawn).values():  # a pack has one
            packs = range(0, len(trials), self._pack_size)
            self._groups += [_Group(tuple(trials[start : start + self._pack_size])) for start in packs]
        return len(drawn)

    def _open(self) -> None:
        for number, group in enumerate(self._groups):
            members = tuple(trial.index for trial in group.trials if self._runs(trial.index))
            if members:
                step_ranges = (*group.step_ranges, StepRange(self._target, members))
                evaluations = self._grid.between(group.step_ranges[-1].until if group.step_ranges else 0, self._target)
                reached, ends = tuple(map(self._bits, members)), self._policy == "race"
                self._due.append(Unit(self.search_round, number, step_ranges, evaluations, group.trials, reached, ends))

    def _decide(self) -> None:
        """All trials stand at the target: replace the infeasible, raise the target, or end."""
        while not self._due:
            if self._replace_infeasible():
                self._open()
                continue
            horizon = self._horizon()
            if self._target >= horizon or not any(map(self._could_go_on, self._trials)):
                self.finished = True
                return
            # What an earlier search round needed is no news of this one, whose own winner may be far below.
            settled = self._slowest_winner() <= self._target
            rung = next(rung for rung in self._grid.rungs() if rung > self._target)
            target = horizon if settled else min(rung, horizon)
            if self._policy == "halving":
                self._drop(places(self._grid.last, target))
            self._target = target
            self._open()

    def _could_go_on(self, index: int) -> bool:
        progress = self._progress[index]
        return not self._ended(progress) and progress.steps < self._grid.last

    def _drop(self, count: int) -> None:
        """Drop the trials that are for no goal among the best ``count``."""
        feasible = {i: p for i, p in self._progress.items() if not p.dropped and (not p.diverged or p.reached)}
        kept = survivors({i: (p.reached, p.best) for i, p in feasible.items()}, self._goals, count)
        for index, progress in feasible.items():
            progress.dropped = index not in kept and not self._ended(progress)

    def _replace_infeasible(self) -> bool:
        # Once some were dropped, one that diverges is one less to drop.
        if self.wanted is None or any(p.dropped for p in self._progress.values()):
            return False
        infeasible = sum(p.diverged and not self._reached_all(p) for p in self._progress.values())
        room = LARGEST_DRAW * self.wanted - len(self._trials)
        missing = min(self.wanted - (len(self._trials) - infeasible), room)
        return missing > 0 and self._draw(missing) > 0
