"""The boundaries of the regimes: closed forms, their mirror, and their ends."""

from __future__ import annotations

import numpy as np
import pytest

from batchscope.analysis.regimes import Array, Regimes, perfect_scaling_until, regimes

SIZES: Array = np.exp2(np.arange(0, 14, 0.25))


def of(steps: Array, noise: float = 0.01) -> Regimes:
    samples = steps * np.exp(noise * np.random.default_rng(0).standard_normal((300, len(steps))))
    return regimes(SIZES, steps, None if samples is None else np.log(samples))


def test_the_two_asymptote_law_has_its_boundaries_in_closed_form() -> None:
    critical, tolerance = 100.0, 1.25
    found = of(60 * (1 + critical / SIZES))
    # B + B_crit <= 1.25 (B_1 + B_crit) and 1 + B_crit/B <= 1.25 (1 + B_crit/B_M), for a range from B_1 to B_M.
    first = tolerance * (SIZES[0] + critical) - critical
    last = critical / (tolerance * (1 + critical / SIZES[-1]) - 1)
    assert found.perfect_scaling_until.value == pytest.approx(first, rel=0.02)
    assert found.critical_batch_size.value == pytest.approx(critical, rel=0.01)
    assert found.maximum_useful_batch_size.value == pytest.approx(last, rel=0.02)
    assert found.law is not None
    assert found.law.law.sharpness == 1.0
    assert found.notes == ()


def test_steps_against_batch_size_mirror_examples_against_its_inverse() -> None:
    steps = 60 * (1 + (100 / SIZES) ** 1.7) ** (1 / 1.7)
    mirrored = (steps * SIZES)[::-1]
    sizes = (SIZES[-1] / SIZES)[::-1]
    straight, turned = regimes(SIZES, steps, np.log(steps[None])), regimes(sizes, mirrored, np.log(mirrored[None]))
    assert straight.perfect_scaling_until.value and turned.maximum_useful_batch_size.value
    product = straight.perfect_scaling_until.value * turned.maximum_useful_batch_size.value
    assert product == pytest.approx(SIZES[-1], rel=1e-6)


def test_the_boundary_is_found_between_batch_sizes() -> None:
    x = np.log([1.0, 2.0, 4.0, 8.0])
    curve = np.array([[0.0, 0.0, 0.2, 0.8]]) - x  # examples to the goal stay, then rise
    found = perfect_scaling_until(x, curve, np.exp(0.5))
    assert np.exp(found[0]) == pytest.approx(4 * 2**0.5)


def test_perfect_scaling_to_the_end_has_no_end() -> None:
    found = of(1e6 / SIZES)
    assert (found.perfect_scaling_until.value, found.perfect_scaling_until.high) == (None, None)
    assert found.critical_batch_size.value is None
    assert found.maximum_useful_batch_size.value is None
    assert len(found.notes) == 3
    assert "perfect scaling holds up to" in found.notes[0]


def test_no_gain_anywhere_has_no_perfect_scaling() -> None:
    found = of(np.full(len(SIZES), 100.0))
    for interval in (found.perfect_scaling_until, found.critical_batch_size):
        assert (interval.value, interval.low) == (None, None)
    assert "perfect scaling ends before" in found.notes[0]
    assert "below the measured ones" in found.notes[1]


def test_ends_that_overlap_at_a_kink_are_said_to() -> None:
    """Steps in proportion up to 64 and the same from there on: each end is a tolerance beyond the kink."""
    found = of(6400 / np.minimum(SIZES, 64.0))
    until, useful = found.perfect_scaling_until.value, found.maximum_useful_batch_size.value
    assert until == pytest.approx(64 * 1.25, rel=0.03) and useful == pytest.approx(64 / 1.25, rel=0.03)
    (note,) = (note for note in found.notes if "overlap" in note)
    assert note.endswith(
        "the end of perfect scaling and the maximum useful overlap: each is told with a tolerance of 1.25"
    )


def test_a_range_that_starts_in_the_middle_does_not_show_perfect_scaling() -> None:
    inside = SIZES > 90
    steps = 60 * (1 + 100 / SIZES[inside])
    assert regimes(SIZES[inside], steps, np.log(steps[None])).perfect_scaling_until.value is None


def test_a_range_that_ends_in_the_middle_does_not_show_the_maximum() -> None:
    inside = SIZES < 110
    steps = 60 * (1 + 100 / SIZES[inside])
    found = regimes(SIZES[inside], steps, np.log(steps[None]))
    assert found.maximum_useful_batch_size.value is None
    assert any("steps still fall" in note for note in found.notes)


def test_noise_widens_the_intervals() -> None:
    def octaves(noise: float) -> float:
        found = of(60 * (1 + 100 / SIZES), noise).critical_batch_size
        assert found.low and found.high
        return float(np.log2(found.high / found.low))

    assert octaves(0.02) < 0.5 * octaves(0.1)


def test_two_batch_sizes_have_no_regimes() -> None:
    found = regimes(SIZES[:2], np.array([10.0, 5.0]), np.log([[10.0, 5.0]]))
    assert found.perfect_scaling_until.value is None
    assert "at least 3 batch sizes" in found.notes[0]


def test_what_has_no_interval_is_no_number_and_says_why() -> None:
    # Steps known within a factor of a thousand: the samples put every boundary on either side of what was measured.
    sizes = np.array([4.0, 16.0, 64.0, 256.0])
    steps = 60 * (1 + 40 / sizes)
    logs = np.log(steps) + 3.5 * np.random.default_rng(0).standard_normal((1000, 4))
    found = regimes(sizes, steps, logs)
    assert found.critical_batch_size.value is None and "critical_batch_size" in found.undetermined
    reason = found.reason("critical_batch_size")
    assert reason is not None and "open on both sides" in reason and reason in found.notes
    for name in ("perfect_scaling_until", "critical_batch_size", "maximum_useful_batch_size"):
        end = getattr(found, name)
        assert end.value is None or (end.low, end.high) != (None, None)
        assert (end.value is None) == bool(found.reason(name))
    sure = regimes(sizes, steps, np.log(steps) + 0.01 * np.random.default_rng(0).standard_normal((1000, 4)))
    assert sure.undetermined == () and sure.reason("critical_batch_size") is None


def test_steps_that_rise_with_the_batch_size_are_named_and_do_not_bend_the_law() -> None:
    steps = 60 * (1 + 100 / SIZES)
    plain = of(steps)
    harmed = of(np.where(SIZES > 3000, 2 * steps, steps))
    note = next(note for note in harmed.notes if "steps rise" in note)
    assert f"{SIZES[SIZES > 3000][0]:g}" in note and not any("rise" in note for note in plain.notes)
    assert harmed.critical_batch_size.value == pytest.approx(plain.critical_batch_size.value, rel=0.03)
    assert harmed.maximum_useful_batch_size.value == pytest.approx(plain.maximum_useful_batch_size.value, rel=0.15)
