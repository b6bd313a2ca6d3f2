"""One batch size of a probe: what fits, and the blocks that were timed."""

from __future__ import annotations

from collections.abc import Sequence

from batchscope.amounts import duration
from batchscope.probing.requests import Fits, Timed, Visit
from batchscope.probing.throughput import Quartiles, quartiles
from batchscope.spec.probe import ProbedBatch, Spread

# Fewer give no quartiles worth the name.
LEAST_BLOCKS = 5
# So many blocks of each kind fill the time.
BLOCKS = 10
# Times the seconds that were asked for, what a batch size may take until it has its blocks.
MOST_OVERTIME = 4.0


class BatchSizeTimings:
    """Collects what all ranks found at one batch size; the slowest and the fullest of them count."""

    def __init__(self, batch_size: int, share: int) -> None:
        """Nothing is known yet.

        Args:
            batch_size: Over all ranks.
            share: Of one rank.
        """
        self.batch_size, self.share = batch_size, share
        self.micro_batch_size: int | None = None
        self.seconds = 0.0
        self.spent = 0.0
        self._fetch_seconds = 0.0
        self._peak: int | None = None
        self._reason = ""
        self.forget()

    def forget(self) -> None:
        """Drop what was timed."""
        self._step: list[list[float]] = []
        self._with_data: list[list[float]] = []
        self._updates = 0
        self._asked: Visit | None = None

    def settle(self, micro_batch_size: int, found: Sequence[Fits]) -> None:
        """It runs by such parts."""
        self.micro_batch_size = micro_batch_size
        self.seconds = max(one.seconds for one in found)
        self._fetch_seconds = max(one.fetch_seconds for one in found)
        peaks = [one.peak_bytes for one in found if one.peak_bytes is not None]
        self._peak = max(peaks) if len(peaks) == len(found) else None

    def fail(self, reason: str) -> None:
        """It cannot be had."""
        self.micro_batch_size, self._reason = None, reason

    def wants_more(self, seconds: float) -> bool:
        """Whether there is time for another block, or need of one."""
        if self.micro_batch_size is None:
            return False
        if len(self._step) < LEAST_BLOCKS:
            return not self._step or self.spent < MOST_OVERTIME * seconds
        return self.spent < seconds

    def next_visit(self, seconds: float) -> Visit:
        """A block that is short beside the whole, and long beside the clock."""
        assert self.micro_batch_size is not None
        updates = max(1, int(seconds / (2 * BLOCKS) / self.seconds))
        fetched = self._fetch_seconds < MOST_OVERTIME * seconds
        self._asked = Visit(self.share, self.micro_batch_size, updates, fetched)
        return self._asked

    def record(self, found: Sequence[Timed]) -> None:
        """What a visit found on each rank."""
        assert self._asked is not None
        self._step.append([one.step for one in found])
        loaded = [one.step_with_data for one in found if one.step_with_data is not None]
        if len(loaded) == len(found):
            self._with_data.append(loaded)
        self._updates += self._asked.updates
        self.seconds = max(one.step for one in found)
        self.spent += max(one.spent for one in found)

    def result(self) -> ProbedBatch:
        """As the document has it."""
        micro = self.micro_batch_size
        if micro is None:
            return ProbedBatch(
                batch_size=self.batch_size,
                micro_batch_size=None,
                accumulation_steps=None,
                step=None,
                step_with_data=None,
                examples_per_second=None,
                peak_bytes=None,
                updates=0,
                reason=self._reason,
            )
        step = _slowest(self._step)
        return ProbedBatch(
            batch_size=self.batch_size,
            micro_batch_size=micro,
            accumulation_steps=-(-self.share // micro),
            step=_spread(step),
            step_with_data=_spread(_slowest(self._with_data)) if self._with_data else None,
            examples_per_second=self.batch_size / step.median,
            peak_bytes=self._peak,
            updates=self._updates,
            note="; ".join(self._notes()),
        )

    def _notes(self) -> list[str]:
        notes = []
        if len(self._step) < LEAST_BLOCKS:
            count = "one block" if len(self._step) == 1 else f"{len(self._step)} blocks"
            notes.append(f"quartiles of only {count}: an update takes {duration(self.seconds)}; give more seconds")
        if not self._with_data:
            notes.append(
                f"not timed with data: fetching {self.share} examples takes about {duration(self._fetch_seconds)}; "
                "give more seconds"
            )
        return notes


def _slowest(blocks: Sequence[Sequence[float]]) -> Quartiles:
    """Of the rank with the largest median."""
    return max((quartiles(of_rank) for of_rank in zip(*blocks, strict=True)), key=lambda found: found.median)


def _spread(found: Quartiles) -> Spread:
    return Spread(median=found.median, low=found.low, high=found.high)
