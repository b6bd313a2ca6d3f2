"""The noise scale over the ranks of data parallel training: gloo processes on this machine."""

from __future__ import annotations

import multiprocessing
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from batchscope.meters import NoiseScale, Observation
from batchscope.meters.moments import moments_of_parts
from meters.known_gradients import Regression, squared_error

REGRESSION = Regression()
STEPS = 60


def micro_batch(rank: int, step: int, part: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What a rank trains on; no two alike."""
    return REGRESSION.batch(size, torch.Generator().manual_seed(1000 * step + 10 * rank + part))


def sizes(rank: int) -> tuple[int, ...]:
    """Micro-batches of a rank: not all of one size, and not the same on all ranks."""
    return (4, 4) if rank == 0 else (6,)


def train(rank: int, ranks: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/ranks", rank=rank, world_size=ranks)
    torch.manual_seed(rank)
    model = DistributedDataParallel(REGRESSION.model())
    meter = NoiseScale(model, source="parts", every=1, window=STEPS)
    for step in range(STEPS):
        model.zero_grad()
        for part, size in enumerate(sizes(rank)):
            inputs, targets = micro_batch(rank, step, part, size)
            with model.no_sync() if part + 1 < len(sizes(rank)) else nullcontext():
                losses = squared_error(model(inputs), targets)
                meter.observe(losses)
                torch.autograd.backward(losses.sum() * 512 / sum(sizes(rank)))
        meter.end_batch()
    torch.save([tuple(observation) for observation in meter.observations], f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def by_hand(ranks: int, step: int) -> tuple[float, float]:
    """The same from the gradients of all parts in one process: every rank counts the same."""
    shares, squares, counts, whole = [], [], [], torch.zeros(1, REGRESSION.dimension, dtype=torch.float64)
    for rank in range(ranks):
        for part, size in enumerate(sizes(rank)):
            inputs, targets = micro_batch(rank, step, part, size)
            model = REGRESSION.model()
            torch.autograd.backward(squared_error(model(inputs), targets).mean())
            assert model.weight.grad is not None
            shares.append(size / sum(sizes(rank)) / ranks)
            counts.append(size)
            squares.append(model.weight.grad.square().sum().item())
            whole += shares[-1] * model.weight.grad
    a, n = np.array(shares), np.array(counts)
    found = moments_of_parts(a @ np.array(squares), whole.square().sum().numpy(), (a / n).sum(), (a**2 / n).sum())
    return float(found.noise), float(found.signal)


@pytest.mark.parametrize("ranks", [2, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_ranks_measure_what_one_process_would(tmp_path: Path, ranks: int) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=train, args=(rank, ranks, str(tmp_path))) for rank in range(ranks)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    found = [[Observation(*row) for row in torch.load(tmp_path / f"{rank}.pt")] for rank in range(ranks)]
    assert all(other == found[0] for other in found[1:])
    for step in (0, 1, STEPS - 1):
        noise, signal = by_hand(ranks, step)
        assert found[0][step].noise["all"] == pytest.approx(noise, rel=1e-9)
        assert found[0][step].signal["all"] == pytest.approx(signal, rel=1e-9)
    for values, truth in (
        ([o.noise["all"] for o in found[0]], REGRESSION.noise),
        ([o.signal["all"] for o in found[0]], REGRESSION.signal),
    ):
        assert abs(np.mean(values) - truth) < 3 * np.std(values) / np.sqrt(STEPS)
