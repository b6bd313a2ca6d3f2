"""Shared data: the same tensors in every process, in memory once."""

from __future__ import annotations

import multiprocessing
import os
import sys
from dataclasses import replace
from multiprocessing import reduction
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from batchscope import workloads
from batchscope.engine.training import in_random_order
from batchscope.executors.shared import NAME, SharedData
from batchscope.spec.examples import as_tensors
from batchscope.tensors import leaves
from engine.workbench import classification

pytestmark = pytest.mark.skipif(os.name != "posix", reason="descriptors are handed over on POSIX systems only")
LARGE = 32 * 2**20


def test_every_tensor_comes_back_in_the_dtype_of_the_training() -> None:
    plain = classification()
    inputs, targets = plain.train  # type: ignore[misc]
    nested = replace(plain, train=({"left": inputs[:, :3], "right": (inputs.contiguous(), inputs > 0)}, targets))
    nested.train[0]["left"] = inputs[:, :3].contiguous()  # type: ignore[index]
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        shared = SharedData.of(nested, dtype, seed=3)
        assert shared is not None
        found = shared.into(nested)
        assert found.test is None
        assert shared.ordered
        validation = in_random_order(nested.validation, 3)  # type: ignore[arg-type]
        for ours, theirs in ((found.train, nested.train), (found.validation, validation)):
            for mapped, given in zip(leaves(ours), leaves(theirs), strict=True):  # type: ignore[arg-type]
                expected = given.to(dtype) if given.is_floating_point() else given
                assert mapped.dtype == expected.dtype and torch.equal(mapped, expected)
                assert mapped.data_ptr() % 64 == 0
        shared.close()


def test_what_is_no_plain_pair_of_tensors_stays_as_it_is() -> None:
    plain = classification()
    inputs, targets = plain.train  # type: ignore[misc]
    strided = replace(plain, train=(inputs.T.contiguous().T, targets))
    shared = SharedData.of(strided, torch.float32, 3)
    assert shared is not None and shared.into(strided).train is strided.train
    neither = replace(strided, validation=(inputs.T.contiguous().T, targets))
    assert SharedData.of(neither, torch.float32, 3) is None
    as_dataset = replace(plain, train=TensorDataset(inputs, targets))
    assert isinstance(SharedData.of(as_dataset, torch.float32, 3).into(as_dataset).train, tuple)  # type: ignore[union-attr]


class Counted(Dataset[Any]):
    """Examples with an augmentation, which takes time: every access is counted."""

    def __init__(self, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        self.inputs, self.targets, self.reads = inputs, targets, 0

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        self.reads += 1
        return self.inputs[index] + torch.rand(()), self.targets[index]


def test_held_out_examples_of_a_dataset_are_read_once_for_all_workers() -> None:
    plain = classification()
    given = replace(plain, validation=Counted(*plain.validation), test=Counted(*plain.validation))  # type: ignore[misc]
    shared = SharedData.of(given, torch.float32, 3)
    assert shared is not None and shared.ordered
    for held_out in (given.validation, given.test):
        assert isinstance(held_out, Counted) and held_out.reads == len(held_out)
    found = shared.into(given)
    alone = in_random_order(as_tensors(given.validation), 3)
    for ours, theirs in zip(leaves(found.validation), leaves(alone), strict=True):  # type: ignore[arg-type]
        assert torch.equal(ours, theirs), "what is random in an example is that of its place"
    assert isinstance(found.test, tuple)


def test_a_skeleton_is_the_workload_without_examples_where_it_can_be_sent() -> None:
    digits = workloads.load("digits/mlp-32")
    shared = SharedData.of(digits, torch.float32, 3)
    assert shared is not None
    bare = shared.skeleton(digits)
    assert bare is not None
    assert not bare.train and not bare.validation and bare.test is None
    assert len(reduction.ForkingPickler.dumps(bare)) < 2000
    assert shared.into(bare).fingerprint() == shared.into(digits).fingerprint()
    assert shared.skeleton(replace(digits, loss=lambda outputs, targets: outputs)) is None
    inputs, targets = digits.train  # type: ignore[misc]
    own = replace(digits, validation=(inputs.mT.contiguous().mT, targets))
    half = SharedData.of(own, torch.float32, 3)
    assert half is not None and half.skeleton(own) is None


def test_writing_into_the_data_changes_no_other_workers() -> None:
    shared = SharedData.of(classification(), torch.float64, 3)
    assert shared is not None
    one, other = shared.into(classification()), shared.into(classification())
    next(leaves(one.train)).zero_()  # type: ignore[arg-type]
    assert next(leaves(other.train)).abs().sum() > 0  # type: ignore[arg-type]


def _hold(pipe: Connection, shared: SharedData) -> None:
    """A process that reads all of the data, then says what its memory is."""
    inputs = next(leaves(shared.into(classification()).train))  # type: ignore[arg-type]
    total = float(inputs.sum())
    pipe.send(total)
    pipe.recv()
    pipe.send(mapped_kilobytes(Path("/proc/self/smaps").read_text()))
    pipe.recv()


def mapped_kilobytes(smaps: str) -> dict[str, int]:
    """Rss, Pss and private memory of the mapping of the data."""
    lines = smaps.splitlines()
    start = next(number for number, line in enumerate(lines) if NAME in line)
    fields = dict(line.split(":")[:2] for line in lines[start + 1 : start + 24])
    return {name: int(fields[name].split()[0]) for name in ("Rss", "Pss", "Private_Dirty")}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.slow
def test_processes_hold_the_data_once_between_them() -> None:
    data = torch.arange(LARGE // 4, dtype=torch.float32).reshape(-1, 16)
    workload = replace(classification(), train=(data, torch.zeros(len(data), dtype=torch.long)))
    shared = SharedData.of(workload, torch.float32, 3)
    assert shared is not None
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for _ in range(2):
        ours, theirs = context.Pipe()
        process = context.Process(target=_hold, args=(theirs, shared), daemon=True)
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    assert [pipe.recv() for pipe in pipes] == pytest.approx([float(data.sum())] * 2, rel=1e-6)  # threads sum in parts
    found = []
    for pipe in pipes:
        pipe.send("measure")
        found.append(pipe.recv())
    for pipe in pipes:
        pipe.send("end")
    for process in processes:
        process.join()
        assert process.exitcode == 0
    for memory in found:
        assert memory["Rss"] >= LARGE // 1024  # all of it is there
        assert memory["Private_Dirty"] == 0
    assert sum(memory["Pss"] for memory in found) <= 1.05 * memory["Rss"]
    assert not [path for path in Path("/dev/shm").glob(f"*{NAME}*")]
