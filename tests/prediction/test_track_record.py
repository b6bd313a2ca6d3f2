"""What is printed because of how good predictions have been: correction, widening, and that it holds nine in ten."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from batchscope.interval import Interval
from batchscope.prediction.track_record import (
    METHODS,
    Scored,
    best_method,
    corrected,
    record_of,
    track_record,
)
from batchscope.spec.prediction import steps_at


def scored(measured: float, value: float, width: float = 1.1, base: int = 4) -> Scored:
    """A training whose curve is that of the law, with the measured critical batch size."""
    curve = {size: steps_at(size, measured, base, 100.0) for size in (4, 16, 64)}
    found = Interval(value, value / width, value * width)
    return Scored("w", "sgd", "g", base, 100, Interval(measured, measured, measured), curve, {"gradient_noise": found})


def test_a_method_that_is_off_by_a_constant_is_corrected_and_not_widened() -> None:
    record = record_of("gradient_noise", [scored(30.0 * i, 10.0 * i) for i in range(1, 12)])
    assert record.ratio == pytest.approx(3) and record.widened == pytest.approx(1)
    assert (record.trainings, record.held) == (11, 11)
    assert record.curve_widened == pytest.approx(1)
    found = corrected(Interval(10.0, 5.0, None), record)
    assert [found.value, found.low] == pytest.approx([30, 15]) and found.high is None


def test_every_interval_is_judged_by_the_others_and_nine_in_ten_hold() -> None:
    rng = np.random.default_rng(0)
    rows = [scored(50 * math.exp(rng.normal(0, 1)), 50.0) for _ in range(12)]
    record = record_of("gradient_noise", rows)
    assert record.held >= 0.9 * len(rows)
    assert record.widened > 2
    shown = corrected(Interval(50.0, 50 / 1.1, 50 * 1.1), record)
    assert shown.low is not None and shown.high is not None
    assert sum(shown.low <= (row.measured.value or 0) <= shown.high for row in rows) >= 0.9 * len(rows)


def test_a_training_of_the_same_kind_is_held_nine_times_in_ten() -> None:
    """Of 300 new ones, each by a record of 12 others."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(300):
        ratios = np.exp(rng.normal(0.5, 0.8, 13))
        record = record_of("gradient_noise", [scored(20 * ratio, 20.0) for ratio in ratios[1:]])
        found = corrected(Interval(20.0, 18.0, 22.0), record)
        assert found.low is not None and found.high is not None
        held += found.low <= 20 * ratios[0] <= found.high
    assert 0.86 <= held / 300 <= 0.99


def test_without_a_record_nothing_is_known() -> None:
    record = record_of("branches", [])
    assert record.trainings == 0 and record.widened >= 100
    assert best_method({"branches": None, "gradient_noise": Interval(5.0, 4.0, 6.0)}, []) == "gradient_noise"
    assert best_method({"branches": None, "gradient_noise": Interval(None, 4.0, None)}, []) is None


def test_the_record_of_the_package_is_whole_and_holds_what_it_says() -> None:
    rows = track_record()
    assert len(rows) >= 8
    assert {"digits/softmax", "digits/mlp-32", "noisy_quadratic/100"} <= {row.workload for row in rows}
    assert {"sgd", "momentum", "nesterov", "adam"} == {row.optimizer for row in rows}
    for method in METHODS:
        record = record_of(method, rows)
        assert record.held >= 0.9 * record.trainings
    assert record_of("gradient_noise", rows).trainings == len(rows)


def test_the_page_tells_the_record_of_the_package() -> None:
    page = (Path(__file__).parents[2] / "docs" / "predictions.md").read_text()
    for row in track_record():
        found = [row.by.get(method) for method in METHODS]
        ratios = [
            "-" if one is None or not one.value else f"{one.value / (row.measured.value or 1):.2f}" for one in found
        ]
        (line,) = [one for one in page.splitlines() if one.startswith(f"| {row.workload}, {row.optimizer} |")]
        assert line.endswith(f"| {' | '.join(ratios)} |"), line
    records = [record_of(method, track_record()) for method in METHODS]
    assert f"moved out by a factor of | {' | '.join(f'{one.widened:.2f}' for one in records)} |" in page
