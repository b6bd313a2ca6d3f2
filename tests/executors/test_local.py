"""Worker processes: how they start, and which of them gets what."""

from __future__ import annotations

import subprocess
import sys
from multiprocessing import forkserver
from pathlib import Path

import pytest

import batchscope as bs
from batchscope.executors import starting
from batchscope.executors.local import Shares
from batchscope.plan.race import SearchRound, StepRange, Unit

WORKLOAD = """
import os
from pathlib import Path

import torch

import batchscope as bs


def make():
    assert os.environ["FLAVOUR"] == Path(__file__).with_name("flavour").read_text()
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(64, 3, generator=generator)
    model = lambda: torch.nn.Linear(3, 2)
    loss = lambda outputs, targets: torch.nn.functional.cross_entropy(outputs, targets, reduction="none")
    pair = (inputs, (inputs[:, 0] > 0.5).long())
    return bs.Workload(model=model, loss=loss, train=pair, validation=pair)
"""
STUDY = """
workload: {file}:make
batch_sizes: [8]
search: {{trials: 2, confirm: {{seeds: 0}}, space: {{learning_rate: 0.1, momentum: 0.9}}}}
goals: ["validation/loss < 0.01"]
budget: {{steps: 4}}
engine: {{program: loop, pack_size: 1}}
"""


def test_workers_have_the_environment_that_their_driver_has_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they are forked from was started with an older one."""
    (tmp_path / "workload.py").write_text(WORKLOAD)
    study = bs.Study.from_text(STUDY.format(file=tmp_path / "workload.py"))
    for flavour in ("vanilla", "lemon"):
        (tmp_path / "flavour").write_text(flavour)
        monkeypatch.setenv("FLAVOUR", flavour)
        run = bs.run(study, tmp_path / flavour, workers=2)
        assert run.provenance["workers"] == 2 and set(run.trials["status"]) == {"complete"}


def test_workers_start_where_there_is_no_place_for_a_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OSError("AF_UNIX path too long")

    monkeypatch.setattr(forkserver, "ensure_running", refuse)
    assert starting.context().get_start_method() == "spawn"


def test_what_begins_the_imports_imports_little() -> None:
    code = "import sys, batchscope.cli.run; assert not {'torch', 'polars', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_worker_gets_its_share_of_every_batch_size() -> None:
    """Else the groups of the last batch size could all be one worker's, and the others would have nothing to do."""
    shares, found = Shares(2), set[tuple[int, int]]()
    places = dict[tuple[int, int], int]()
    for group, batch_size in [(0, 8), (0, 16), (1, 8), (0, 32), (1, 16), (1, 32), (0, 8), (1, 16)]:
        unit = Unit(SearchRound(batch_size), group, (StepRange(1, (0,)),), (1,), ())
        worker = shares.worker_of(unit, [0, 0])
        assert places.setdefault((group, batch_size), worker) == worker, "a group stays where its state is"
        found.add((worker, batch_size))
    assert found == {(worker, size) for worker in (0, 1) for size in (8, 16, 32)}
