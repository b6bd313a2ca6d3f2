"""What a model's code changes in a process is as it was afterwards."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from batchscope.probing.untouched import untouched


def draws() -> list[float]:
    return [random.gauss(), random.random(), float(np.random.randn()), torch.rand(1).item()]


def test_draws_go_on_as_if_nothing_had_been() -> None:
    def begin() -> None:
        random.seed(3)
        np.random.seed(3)
        torch.manual_seed(3)
        random.gauss()  # a second normal number waits, which is state too
        np.random.randn()

    begin()
    expected = draws()
    begin()
    with pytest.raises(RuntimeError, match="whatever"), untouched():
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        draws()
        raise RuntimeError("whatever happens")
    assert draws() == expected


def test_switches_are_restored() -> None:
    cudnn = torch.backends.cudnn
    before = (cudnn.benchmark, cudnn.deterministic, torch.get_num_threads(), torch.get_default_dtype())
    with untouched():
        cudnn.benchmark, cudnn.deterministic = not cudnn.benchmark, not cudnn.deterministic
        torch.set_num_threads(2)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        torch.set_float32_matmul_precision("medium")
        torch.use_deterministic_algorithms(True, warn_only=True)
    assert (cudnn.benchmark, cudnn.deterministic, torch.get_num_threads(), torch.get_default_dtype()) == before
    assert torch.is_grad_enabled() and torch.get_float32_matmul_precision() == "highest"
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
