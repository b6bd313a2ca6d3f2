"""Drivers killed with SIGKILL: what is read back is whole units, and the end is the uninterrupted end."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from polars.testing import assert_frame_equal

from batchscope.store import Store
from store import store_units
from store.store_units import content, drive, units, whole

COUNT = len(list(units()))


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
@pytest.mark.parametrize("kills", [6, pytest.param(60, marks=pytest.mark.slow)])
def test_sigkill_at_random_moments_loses_no_committed_unit(tmp_path: Path, kills: int) -> None:
    generator = random.Random(kills)
    counts = [len(whole(count)[1]) for count in range(COUNT + 1)]
    seen, died, runs = 0, 0, 0
    while died < kills:
        folder = tmp_path / str(runs)
        if not folder.exists():
            Store.create(folder, "workload: x\n", {}).close()
        with subprocess.Popen(
            [sys.executable, store_units.__file__, str(folder), "0"], stdout=subprocess.PIPE
        ) as driver:
            assert driver.stdout is not None and driver.stdout.readline() == b"ready\n"
            time.sleep(generator.uniform(0, 0.15))
            driver.send_signal(signal.SIGKILL)
            died += driver.wait() == -signal.SIGKILL
        trials, evaluations = content(Store.open(folder))
        assert len(evaluations) in counts
        count = counts.index(len(evaluations))
        assert count >= seen  # nothing that was there before is lost
        if count:
            expected_trials, expected_evaluations = whole(count)
            assert_frame_equal(trials, expected_trials, check_column_order=False)
            assert_frame_equal(evaluations, expected_evaluations, check_column_order=False)
        seen = count
        if count == COUNT:
            seen, runs = 0, runs + 1
    with Store.open(tmp_path / "0", write=True) as store:  # the lock of the dead is taken over
        drive(store)
        for got, expected in zip(content(store), whole(COUNT), strict=True):
            assert_frame_equal(got, expected, check_column_order=False)
        assert store.warnings == []
