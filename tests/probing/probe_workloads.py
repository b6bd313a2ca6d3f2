"""Workloads that another process can make again: their parts are named functions of this module."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import batchscope as bs
from batchscope.errors import BatchscopeError

INPUTS = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
LABELS = INPUTS.sum(-1).gt(0).long()
MIB = 2**20


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs, targets, reduction="none")


def make() -> bs.Workload:
    return bs.Workload(model=model, loss=loss, train=(INPUTS, LABELS), validation=(INPUTS, LABELS), name="tensors")


class Hungry(nn.Module):
    """Six tensors of 8 MiB for each example at most, forward and backward together."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, examples: Tensor) -> Tensor:
        held = self.scale * torch.ones(len(examples), 8 * MIB // 4)
        return held.square().mean(-1)


def square(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs


def hungry() -> bs.Workload:
    return replace(make(), model=Hungry, loss=square, name="hungry")


class Killed(nn.Module):
    """Dies as if the kernel had killed it, at more than 8 examples."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 2)

    def forward(self, examples: Tensor) -> Tensor:
        if len(examples) > 8:
            os.kill(os.getpid(), signal.SIGKILL)
        found: Tensor = self.layer(examples)
        return found


def killed() -> bs.Workload:
    return replace(make(), model=Killed, name="killed")


def normalised() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))


def with_batch_norm() -> bs.Workload:
    return replace(make(), model=normalised, name="batch norm")


def mean_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs, targets)


def wrong_loss() -> bs.Workload:
    return replace(make(), loss=mean_loss, name="wrong loss")


class Limited(nn.Module):
    """Memory for so many examples."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit, self.layer = limit, nn.Linear(6, 2)

    def forward(self, examples: Tensor) -> Tensor:
        if len(examples) > self.limit:
            raise MemoryError
        found: Tensor = self.layer(examples)
        return found


class Handed:
    """A model function that breaks the rule to build a fresh module, and draws what it should not."""

    def __init__(self, net: nn.Module) -> None:
        self.net = net

    def __call__(self) -> nn.Module:
        torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark
        random.random()
        np.random.rand()
        return self.net


def unpicklable(workload: bs.Workload) -> bs.Workload:
    """The same, which no other process can make."""
    return replace(workload, loss=lambda outputs, targets: workload.loss(outputs, targets))


def of_two_ranks(rank: int, file: str, answers: Any) -> None:
    """One of two ranks: the second has less memory, then fails, then both are given an uneven batch."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    limit = 6 if rank == 1 else 100
    workload = unpicklable(replace(make(), model=lambda: Limited(limit)))
    no_module: Any = lambda: 3  # noqa: E731
    wrong = replace(workload, model=no_module)
    words = []
    probe = bs.probe(workload, batch_sizes=[4, 32], seconds=0.02, threads=1, device="cpu")
    for of_first, of_second, size in ((workload, wrong, 4), (workload, workload, 3)):
        try:
            bs.probe(of_second if rank else of_first, batch_sizes=[size], seconds=0.02, threads=1, device="cpu")
        except BatchscopeError as error:
            words.append(str(error))
    answers.put((rank, probe.to_json(), words))
    torch.distributed.destroy_process_group()


class Examples(Dataset[tuple[Tensor, int]]):
    def __len__(self) -> int:
        return len(INPUTS)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return INPUTS[index], int(LABELS[index])


def examples(seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    order = torch.randperm(len(INPUTS), generator=torch.Generator().manual_seed(seed))
    for index in order.tolist():
        yield INPUTS[index], LABELS[index]


def draw(generator: torch.Generator, count: int) -> tuple[Tensor, Tensor]:
    inputs = torch.randn(count, 6, generator=generator)
    return inputs, inputs.sum(-1).gt(0).long()


def of_dataset() -> bs.Workload:
    return replace(make(), train=Examples(), name="dataset")


def of_iterable() -> bs.Workload:
    return replace(make(), train=examples, name="iterable")


def of_stream() -> bs.Workload:
    return replace(make(), train=bs.Stream(draw), name="stream")


def chatty() -> bs.Workload:
    print("a line on standard output")
    return make()
