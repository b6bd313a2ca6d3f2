"""The search rounds of a batch size: its search, the search of what widening added, the best points with new seeds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from batchscope.plan.confirmation import MARGIN, candidates, horizon
from batchscope.plan.race import Race, SearchRound
from batchscope.plan.rungs import Grid
from batchscope.plan.sampling import further_trials, trials
from batchscope.plan.widen import UNREACHED_EDGE, further_count, widened
from batchscope.spec.goal import Goal
from batchscope.spec.space import Range, Space
from batchscope.spec.study import Study
from batchscope.spec.trial import Trial

Leader = tuple[int | None, float | None, Trial]


class BatchSize:
    """The search rounds of one batch size. What follows depends on outcomes alone, so that a run that goes on asks the
    same.
    """

    def __init__(self, study: Study, batch_size: int, grid: Grid, pack_size: int) -> None:
        """Begin with the search of the study's own space."""
        self._study, self._batch_size, self._grid, self._pack_size = study, batch_size, grid, pack_size
        self.spaces: list[dict[str, Space]] = [study.search.spaces]
        search = study.search
        wanted = None if search.method == "grid" else search.count
        first = self._race(SearchRound(batch_size), trials(search, batch_size, study.seed), wanted)
        self.races: dict[SearchRound, Race] = {first.search_round: first}

    @property
    def finished(self) -> bool:
        """Whether every search round is, and none follows; ask after ``follow``."""
        return all(race.finished for race in self.races.values())

    def follow(self) -> list[Race]:
        """The search rounds that follow from those that are all finished; none where they are not, or nothing is
        left.
        """
        if not self.finished or any(search_round.replicate for search_round in self.races):
            return []
        following = self._widen() or self._confirm()
        self.races |= {race.search_round: race for race in following}
        return following

    def winner(self, goal: Goal) -> int | None:
        """The fewest steps to a goal that the search has found so far."""
        found = (race.winner(goal) for search_round, race in self.races.items() if not search_round.replicate)
        return min((steps for steps in found if steps is not None), default=None)

    def winners(self) -> list[tuple[Trial, int]]:
        """Of every goal that was reached, the fastest trial of the search and its steps."""
        leaders = (self._leader(goal) for goal in self._study.goals)
        return [(leader[2], leader[0]) for leader in leaders if leader is not None and leader[0] is not None]

    def _widen(self) -> list[Race]:
        """The search of what is added by moving out the sides that the best points lie near."""
        search = self._study.search
        revision = len(self.spaces)
        if search.method == "grid" or revision > search.widen.rounds:
            return []
        before = after = self.spaces[-1]
        for goal in self._study.goals:
            leader = self._leader(goal)
            if leader is not None:
                edge = search.widen.edge if leader[0] is not None else max(search.widen.edge, UNREACHED_EDGE)
                after = _union(after, widened(before, leader[2].hyperparameters, edge))
        if after == before:
            return []
        self.spaces.append(after)
        count = further_count(before, after, search.count)
        start = 1 + max(trial.index for race in self.races.values() for trial in race.trials)
        wider = search.with_spaces(after)
        source = further_trials(wider, before, self._batch_size, self._study.seed, revision, start)
        known = {goal: steps for goal in self._study.goals if (steps := self.winner(goal)) is not None}
        return [self._race(SearchRound(self._batch_size, revision), source, count, known)]

    def _confirm(self) -> list[Race]:
        """The best few points of every goal again, side by side on each of the new seeds."""
        confirm = self._study.search.confirm
        searches = list(self.races.values())
        chosen: dict[int, Trial] = {}
        fewest: list[int] = []
        for goal in self._study.goals:
            best = candidates([found for race in searches for found in race.reached(goal)], confirm.candidates)
            chosen |= {trial.index: trial for _, trial in best}
            fewest += [best[0][0]] if best else []
        if not chosen:
            return []
        grid = horizon(self._grid, fewest)
        return [
            self._race(
                SearchRound(self._batch_size, replicate=replicate),
                (replace(chosen[index], replicate=replicate) for index in sorted(chosen)),
                None,
                grid=grid,
            )
            for replicate in range(1, confirm.seeds + 1)
        ]

    def _leader(self, goal: Goal) -> Leader | None:
        leaders = [race.leader(goal) for search_round, race in self.races.items() if not search_round.replicate]
        found = [leader for leader in leaders if leader is not None]
        sign = 1 if goal.side == "<" else -1

        def rank(leader: Leader) -> tuple[float, float, int]:
            steps, value, trial = leader
            if steps is not None:
                return steps, -float("inf"), trial.index
            return float("inf"), sign * (value or 0.0), trial.index

        return min(found, key=rank, default=None)

    def _race(
        self,
        search_round: SearchRound,
        source: Iterator[Trial],
        wanted: int | None,
        known: dict[Goal, int] | None = None,
        grid: Grid | None = None,
    ) -> Race:
        study = self._study
        return Race(
            source,
            search_round=search_round,
            wanted=wanted,
            pack_size=self._pack_size,
            grid=grid or self._grid,
            goals=study.goals,
            policy="race" if search_round.replicate else study.policy,
            margin=MARGIN if search_round.replicate else study.margin,
            known=known,
        )


def _union(one: dict[str, Space], other: dict[str, Space]) -> dict[str, Space]:
    """For every optimizer the smallest space that holds both."""
    joined = {optimizer: dict(space) for optimizer, space in one.items()}
    for optimizer, name, dimension in ((key, name, d) for key, space in other.items() for name, d in space.items()):
        before = one[optimizer][name]
        if isinstance(before, Range) and isinstance(dimension, Range):
            ends = {"min": min(before.min, dimension.min), "max": max(before.max, dimension.max)}
            joined[optimizer][name] = before.model_copy(update=ends)
    return joined
