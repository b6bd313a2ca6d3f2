"""Leave a process as it was found: random numbers, threads, and torch's switches."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch

_CUDNN = ("enabled", "benchmark", "deterministic")


@contextmanager
def untouched() -> Iterator[None]:
    """Restore, whatever happens inside, what the code of a model may have changed in this process.

    These are the random states of Python, NumPy, torch and, where CUDA is in use already, of all its devices; the
    number of threads; grad mode and default dtype; cuDNN's switches, deterministic algorithms and the precision of
    matrix products.
    """
    with ExitStack() as after:
        after.callback(random.setstate, random.getstate())
        after.callback(np.random.set_state, np.random.get_state())
        after.callback(torch.set_rng_state, torch.get_rng_state())
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            after.callback(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all())
        after.callback(torch.set_num_threads, torch.get_num_threads())
        after.callback(torch.set_grad_enabled, torch.is_grad_enabled())
        after.callback(torch.set_default_dtype, torch.get_default_dtype())
        after.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
        after.callback(_set_deterministic, _deterministic())
        cudnn: Any = torch.backends.cudnn
        for name in _CUDNN:
            after.callback(setattr, cudnn, name, getattr(cudnn, name))
        yield


def _deterministic() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def _set_deterministic(before: tuple[bool, bool]) -> None:
    enabled, warn_only = before
    torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
