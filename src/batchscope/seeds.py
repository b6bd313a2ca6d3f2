"""Random numbers keyed by identity, never by position.

Every random draw in a run comes from a generator whose seed is a hash of what the draw is for: the study's seed, the
trial or replicate, the purpose, the epoch. Packs, workers and interruptions change the order of work, so a generator
that is merely *advanced* would make results depend on them; a keyed one cannot.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
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


def seed_python(seed: int) -> None:
    """Seed the global generators of Python and numpy, which augmentations and stochastic depth often draw from."""
    random.seed(seed)
    np.random.seed(seed % 2**32)


@contextmanager
def keeping_python() -> Iterator[None]:
    """Leave the global generators of Python and numpy as they were found."""
    before, numpys = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(numpys)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, all global generators of the CPU, torch's, Python's and numpy's, begin at ``seed``; then as before."""
    import torch  # here, because seeds are also of plans, which are read without torch

    with keeping_python(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        seed_python(seed)
        yield
