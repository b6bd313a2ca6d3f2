"""Random numbers keyed by identity, never by position.

Every random draw in a run comes from a generator whose seed is a hash of what the draw is for: the study's seed, the
trial or replicate, the purpose, the epoch. Packs, workers and interruptions change the order of work, so a generator
that is merely *advanced* would make results depend on them; a keyed one cannot.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

Part = int | str | float | bool | None


def key(*parts: Part) -> int:
    """A 63-bit seed that depends on every part and on nothing else.

    ``key("a", "bc") != key("ab", "c")`` and ``key(1) != key("1")``: parts are hashed with their types and bounds.
    """
    text = json.dumps(parts, separators=(",", ":"), allow_nan=False)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_generator(*parts: Part) -> np.random.Generator:
    """A numpy generator keyed by ``parts``."""
    return np.random.default_rng(key(*parts))


def torch_generator(*parts: Part, device: str | torch.device = "cpu") -> torch.Generator:
    """A torch generator keyed by ``parts``, on ``device``."""
    import torch  # here, because tables are analysed without it

    return torch.Generator(device=device).manual_seed(key(*parts))
