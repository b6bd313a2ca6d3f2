"""What the evaluations of a unit are for: which goals are open for each trial, and when a trial is over."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from batchscope.spec.goal import EXAMPLES, Goal

Row = Sequence[float | None]


@dataclass(frozen=True)
class Watch:
    """What is asked of K trials.

    Attributes:
        goals: A trial is over once it has reached all of them, if anything but divergence ends it.
        reached: For each trial the goals that it had reached before, as bits in the order of ``goals``.
        full: Evaluations at which everything is evaluated; None for all of them. At others an evaluation ends early for
            a trial that is out of reach of its open goals.
        ends: Whether a trial that has reached all goals is over.
    """

    goals: tuple[Goal, ...] = ()
    reached: tuple[int, ...] = ()
    full: frozenset[int] | None = None
    ends: bool = True

    @property
    def bounds(self) -> tuple[str, ...]:
        """The columns for what evaluations that ended early have found."""
        if self.full is None:
            return ()
        return tuple(dict.fromkeys(goal.bound for goal in self.goals))


class Standing:
    """How K trials stand while a unit is computed.

    A goal is open until it is reached. The hardest goal of each metric stays open, so that a study can be extended by
    harder ones: no evaluation that was beyond such a goal has ended early.

    Attributes:
        ends: For a trial that is over, its last evaluation.
    """

    def __init__(self, watch: Watch, trials: int) -> None:
        """As the trials stood before."""
        self.ends: dict[int, int] = {}
        self._watch, self._trials = watch, trials
        bits = watch.reached or (0,) * trials
        self._reached = [{goal for i, goal in enumerate(watch.goals) if mask >> i & 1} for mask in bits]
        self._kept = {
            goal
            for goal in watch.goals
            if all(goal.decides(other) for other in watch.goals if other.bound == goal.bound)
        }

    @property
    def alive(self) -> list[int]:
        """Trials that are not over."""
        return [k for k in range(self._trials) if k not in self.ends]

    def open(self, k: int, data: str = "validation") -> list[Goal]:
        """The goals on metrics of some data that trial ``k`` is watched for."""
        reached = self._reached[k] - self._kept
        return [goal for goal in self._watch.goals if goal.data == data and goal not in reached]

    def decided(self, examples: Sequence[int], total: int, data: str = "validation") -> dict[str, list[float | None]]:
        """What evaluations that ended early say: which bounds they found, and how many validation examples they took.

        Args:
            examples: For each trial, how many were evaluated.
            total: How many there are.
            data: Of which they are.
        """
        if self._watch.full is None:
            return {}
        bounds = [name for name in self._watch.bounds if name.startswith(f"{data}/")]
        found: dict[str, list[float | None]] = {name: [None] * self._trials for name in bounds}
        for k in self.alive:
            for goal in self.open(k, data) if examples[k] < total else ():
                before = found[goal.bound][k]
                # The easiest goal that the trial is not beyond says the most.
                worse = max if goal.side == "<" else min
                found[goal.bound][k] = goal.threshold if before is None else worse(goal.threshold, before)
        if data != "validation":
            return found
        taken: list[float | None] = [None if k in self.ends else float(count) for k, count in enumerate(examples)]
        return {EXAMPLES: taken, **found}

    def note(self, step: int, values: Mapping[str, Row]) -> dict[int, set[Goal]]:
        """Take what was measured at an evaluation; the goals that trials have reached there, and not before."""
        goals, crossed = self._watch.goals, dict[int, set[Goal]]()
        for k in self.alive:
            seen = {name: value for name, row in values.items() if (value := row[k]) is not None}
            beyond = {goal for goal in goals if goal.is_reached(seen.get(goal.metric, math.nan))}
            if fresh := beyond - self._reached[k]:
                crossed[k] = fresh
            self._reached[k] |= beyond
            finite = all(map(math.isfinite, seen.values()))
            if not finite or (self._watch.ends and goals and len(self._reached[k]) == len(goals)):
                self.ends[k] = step
        return crossed
