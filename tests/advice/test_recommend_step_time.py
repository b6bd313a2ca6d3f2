"""Seconds of a step: the ring all-reduce against the algorithm itself, and what a probe knows of a size."""

from __future__ import annotations

import math

import numpy as np
import pytest

from advice.exact_recommendations import EACH, FIXED, probe, seconds
from batchscope.advice.step_time import Link, loading_share, shares, step_time
from batchscope.errors import AnalysisError
from batchscope.spec.probe import Spread


def ring(values: np.ndarray, link: Link) -> float:
    """Run the ring algorithm on ``values`` (N, N chunks, elements); sums in place, returns the seconds it takes."""
    devices = len(values)
    assert link.bandwidth is not None
    clock = 0.0
    for phase in range(2):
        for turn in range(devices - 1):
            before = values.copy()
            for sender in range(devices):
                chunk, receiver = (sender - turn + phase) % devices, (sender + 1) % devices
                if phase == 0:
                    values[receiver, chunk] += before[sender, chunk]
                else:
                    values[receiver, chunk] = before[sender, chunk]
            clock += link.latency * 1e-6 + values[0, 0].nbytes / (link.bandwidth * 1e9)
    return clock


@pytest.mark.parametrize("devices", [1, 2, 3, 4, 8])
def test_the_closed_form_is_what_the_ring_takes(devices: int) -> None:
    values = np.random.default_rng(0).standard_normal((devices, devices, 1000))
    total = values.sum(0)
    link = Link(bandwidth=0.5, latency=7.0)
    size = values[0].nbytes
    taken = ring(values, link)
    np.testing.assert_allclose(values, np.broadcast_to(total, values.shape), rtol=1e-12, atol=1e-14)
    assert link.all_reduce(size, devices) == pytest.approx(taken, rel=1e-12)


def test_the_all_reduce_in_numbers() -> None:
    assert Link(bandwidth=1.0).all_reduce(10**9, 1) == 0
    assert Link(bandwidth=1.0).all_reduce(10**9, 2) == pytest.approx(1.0)
    assert Link(bandwidth=1.0).all_reduce(10**9, 4) == pytest.approx(1.5)
    assert Link(latency=5.0).all_reduce(10**9, 4) == pytest.approx(2 * 3 * 5e-6)


@pytest.mark.parametrize("wrong", [{"bandwidth": 0.0}, {"bandwidth": -1.0}, {"latency": -1.0}, {"latency": math.inf}])
def test_a_link_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(AnalysisError, match="say"):
        Link(**wrong)


def test_a_measured_size_is_as_measured() -> None:
    found = step_time(probe(spread=0.1), 256)
    assert (found.seconds, found.micro_batch_size, found.accumulation_steps) == (seconds(256), 64, 4)
    assert found.measured and found.deviation == pytest.approx(0.1, rel=1e-3)


def test_a_size_between_is_modelled_with_the_error_of_the_model_in_passes_that_were_run() -> None:
    found = step_time(probe(spread=0.1, error=0.2), 200)
    assert found.seconds == pytest.approx(FIXED + EACH * 200)
    assert not found.measured and not found.beyond
    assert (found.micro_batch_size, found.accumulation_steps) == (50, 4)
    assert found.deviation == pytest.approx(math.hypot(math.log(1.2) / 1.645, 0.1), rel=1e-3)


def test_beyond_the_measured_sizes_only_when_asked() -> None:
    for size in (3, 2048):
        with pytest.raises(AnalysisError, match="outside what the probe measured, 4 to 1,024"):
            step_time(probe([4, 32, 1024]), size)
    found = step_time(probe([4, 32, 1024]), 2048, extrapolate=True)
    assert found.beyond and found.seconds == pytest.approx(seconds(2048))


def test_several_ranks_measured_their_shares_of_the_batch() -> None:
    ranks = probe([8, 32, 128], world_size=4)
    assert shares(ranks) == [2, 8, 32]
    # Eight examples on each of four ranks were one batch of 32.
    assert step_time(ranks, 8).seconds == seconds(32) and step_time(ranks, 8).measured
    between = step_time(ranks, 16)
    assert not between.measured and between.seconds == pytest.approx(seconds(64))
    with pytest.raises(AnalysisError, match="33 examples on a device are outside what the probe measured, 2 to 32"):
        step_time(ranks, 33)


def test_a_size_that_does_not_fit_is_said_to() -> None:
    whole = probe([1, 2])
    empty = {"micro_batch_size": None, "accumulation_steps": None, "step": None, "step_with_data": None}
    row = whole.batches[1].model_copy(update=empty | {"reason": "out of memory"})
    with pytest.raises(AnalysisError, match="2 examples do not fit on a device: out of memory"):
        step_time(whole.model_copy(update={"batches": (whole.batches[0], row)}), 2, extrapolate=True)


def test_without_a_model_only_measured_sizes_are_known() -> None:
    with pytest.raises(AnalysisError, match="did not measure 3"):
        step_time(probe([2], time_model=None), 3)


def test_waiting_for_data_is_told() -> None:
    whole = probe([1, 2])
    slow = Spread(median=1.5 * seconds(2), low=1.4 * seconds(2), high=1.6 * seconds(2))
    rows = (whole.batches[0], whole.batches[1].model_copy(update={"step_with_data": slow}))
    assert loading_share(whole) == 0
    assert loading_share(whole.model_copy(update={"batches": rows})) == pytest.approx(0.5)
