"""What branches of a training will train, in whole updates: points, window, factors, and the most that it costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from batchscope.amounts import counted, number, percent
from batchscope.engine.training import Training
from batchscope.errors import StudyError
from batchscope.plan.rungs import TRAINING_PASSES
from batchscope.tensors import size_of

# The window, where nobody says: this share of the training, or as much more as holds factors of two and four.
WINDOW, LONGEST_WINDOW = 0.04, 0.2
LARGEST_FACTOR = 32
# Fewer updates of a branch say more of how it begins than of its batch size.
FEWEST_UPDATES = 8
# The loss of a branch is the mean over so many evaluations, one after each of the last updates of the largest factor.
EVALUATIONS = 4
# Together they take so many examples for each of the window, a fifth of its training in passes.
EVALUATED = 0.2 * TRAINING_PASSES
FEWEST_EVALUATED = 100


@dataclass(frozen=True)
class BranchPlan:
    """What will be trained.

    Attributes:
        batch_size: Of the training.
        examples: Its length, in whole updates.
        starts: The points, in examples.
        at: The points, as shares.
        window: Examples of a branch.
        factors: At the most, ascending.
        replicates: Trainings.
        evaluated: Validation examples of an evaluation.
    """

    batch_size: int
    examples: int
    starts: tuple[int, ...]
    at: tuple[float, ...]
    window: int
    factors: tuple[int, ...]
    replicates: int
    evaluated: int

    @classmethod
    def of(
        cls,
        training: Training,
        *,
        at: Sequence[float],
        window: float | None,
        largest_factor: int,
        replicates: int,
    ) -> BranchPlan:
        """Check what is asked for, and bring it to whole updates.

        Raises:
            StudyError: If a value is out of its range, or the window holds too few updates.
        """
        if replicates < 2:
            raise StudyError(f"an interval needs at least 2 replicates, got {replicates}; write --replicates 3")
        size, steps = training.batch_size, training.timeline.last
        if window is None:
            window = min(max(WINDOW, 4 * FEWEST_UPDATES / steps), LONGEST_WINDOW)
        if not 0 < window < 1:
            raise StudyError(f"the window is a share of the training between 0 and 1, got {window:g}; --window 0.05")
        if not at or not all(0 < share <= 1 - window for share in at):
            raise StudyError(
                f"branches begin at shares of the training above 0 and up to {1 - window:g}, so that the window of "
                f"{percent(window)} fits, got {', '.join(f'{share:g}' for share in at) or 'none'}; --at 0.1,0.3,0.6"
            )
        if largest_factor < 2:
            raise StudyError(f"the largest factor must be at least 2, got {largest_factor}")
        updates = int(window * steps + 1e-9)
        most = min(
            largest_factor, updates // FEWEST_UPDATES, (training.loaded.workload.train_size or updates * size) // size
        )
        if most < 2:
            needed = math.ceil(2 * FEWEST_UPDATES / window)
            raise StudyError(
                f"{percent(window)} of the training is {counted(updates, 'update')}, and a branch at twice the batch "
                f"size needs {2 * FEWEST_UPDATES}: train for {number(needed)} steps or more, or give a larger --window"
            )
        factors = tuple(2**i for i in range(1, most.bit_length()))
        whole = updates // factors[-1] * factors[-1]
        starts = tuple(min(max(1, round(share * steps)), steps - whole) * size for share in sorted(set(at)))
        examples = size_of(training.loaded.validation)
        few = max(FEWEST_EVALUATED, round(EVALUATED * whole * size / EVALUATIONS))
        few = examples if training.loaded.workload.loss_per == "batch" else min(examples, few)
        return cls(size, steps * size, starts, tuple(sorted(set(at))), whole * size, factors, replicates, few)

    @property
    def at_most(self) -> float:
        """Trainings that it costs, if no point ends before its largest factor."""
        trained = here = 0
        for start, following in zip(self.starts, (*self.starts[1:], self.examples), strict=True):
            trained += start - here + self.window * (1 + len(self.factors))
            here = self.goes_on_from(start, following)
        evaluations = len(self.starts) * (1 + EVALUATIONS * (1 + len(self.factors)))
        return self.replicates * (trained + evaluations * self.evaluated / TRAINING_PASSES) / self.examples

    @property
    def marks(self) -> tuple[int, ...]:
        """Examples from a point on at which its branches are evaluated, ascending."""
        apart = self.factors[-1] * self.batch_size
        return tuple(self.window - i * apart for i in reversed(range(EVALUATIONS)))

    def goes_on_from(self, start: int, following: int) -> int:
        """Where the training goes on after a point: at the end of its window, unless the next begins before that."""
        return start + self.window if following >= start + self.window else start
