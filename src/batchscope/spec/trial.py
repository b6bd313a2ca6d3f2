"""A trial: one hyperparameter point at one batch size and seed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from batchscope.seeds import key
from batchscope.spec.space import OPTIMIZER

# Changes when the same trial would give other measurements: then trials of earlier versions are not taken over.
PROTOCOL_VERSION = 2


@dataclass(frozen=True)
class Trial:
    """One hyperparameter point at one batch size.

    Attributes:
        batch_size: The study's batch size, examples in one weight update.
        index: 0-based order of the point in the search at this batch size.
        hyperparameters: Name to value.
        study_seed: The study's seed.
        replicate: 0 for the search; 1, 2, ... for a point that is run again with new seeds.
        revision: 0 for the original space; 1, 2, ... after it was widened.
    """

    batch_size: int
    index: int
    hyperparameters: Mapping[str, float | str] = field(hash=False)
    study_seed: int
    replicate: int = 0
    revision: int = 0

    @property
    def seed(self) -> int:
        """The seed of everything that is this trial's own, such as its initial weights."""
        return key(self.study_seed, "trial", self.batch_size, self.index, self.replicate)

    def id(self, context: str) -> str:
        """16 hexadecimal digits of (context, batch size, hyperparameters, seed, protocol version).

        ``context`` stands for workload and algorithm: the same trial in another study has the same id.
        """
        what = [context, self.batch_size, sorted(self.hyperparameters.items()), self.seed, PROTOCOL_VERSION]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


def by_optimizer(trials: Iterable[Trial]) -> dict[str, list[Trial]]:
    """Trials by the optimizer of their point, in their order; all under "" where there is no choice."""
    found: dict[str, list[Trial]] = {}
    for trial in trials:
        found.setdefault(str(trial.hyperparameters.get(OPTIMIZER, "")), []).append(trial)
    return found
