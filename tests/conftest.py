"""Shared by all tests: one thread (results must not depend on the machine) and the folder of real data."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

# Before they are loaded: threads of two processes on two cores wait for each other, in every operation.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)
# A machine that has other work to do is no fault of ours.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")

MEMORY, ENOUGH = Path("/dev/shm"), 4 << 30


def pytest_configure() -> None:
    """Folders of tests lie in memory where there is room: a disk that is synced after every file doubles their time."""
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ENOUGH:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


@pytest.fixture
def without_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of what a run computes: its page, which takes as long to write, has tests of its own."""
    monkeypatch.setattr("batchscope.report.page.render", lambda *_, **__: "")
    monkeypatch.setattr("batchscope.report.sections.sections", lambda *_: [])


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets: ``BATCHSCOPE_DATA``, else ``../shared/data`` beside the checkout."""
    root = Path(os.environ.get("BATCHSCOPE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"no data folder at {root}: set BATCHSCOPE_DATA to the folder with mnist/ and fashion_mnist/")
    return root
