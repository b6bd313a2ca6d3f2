"""90% intervals hold the truth about nine times in ten: steps and regimes, on studies whose truth is known.

The whole table, with more studies, is in docs/statistics.md; ``simulated_studies.py`` prints it.
"""

from __future__ import annotations

import numpy as np
import pytest

from analysis.simulated_studies import SURFACES, Surface, confirmation_coverage, coverage, noisy_quadratic_pool

NAMES = ("steps", "perfect_scaling_until", "critical_batch_size", "maximum_useful_batch_size")


def slack(studies: int) -> float:
    """Two standard errors of a share near 0.9."""
    return float(2 * np.sqrt(0.9 * 0.1 / studies))


def test_coverage_over_a_few_studies_of_three_kinds() -> None:
    studies = 12
    kinds = (SURFACES[0], SURFACES[4], SURFACES[8])
    pools = [(surface.pool(surface.trials * 200, np.random.default_rng(0)), surface.trials) for surface in kinds]
    shares = [coverage(pool, trials, studies) for pool, trials in pools]
    for name in NAMES:
        mean = np.mean([share[name] for share in shares])
        assert 0.85 - slack(3 * studies) <= mean <= 0.95 + slack(3 * studies), name


@pytest.mark.slow
@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
def test_coverage_on_response_surfaces(surface: Surface) -> None:
    pool = surface.pool(surface.trials * 1000, np.random.default_rng(0))
    shares = coverage(pool, surface.trials, 150)
    assert 0.85 <= shares["steps"] <= (0.995 if surface.sobol else 0.96)
    for name in NAMES[1:]:
        assert 0.85 - slack(150) <= shares[name], name
        assert surface.sobol or shares[name] <= 0.95 + slack(150), name


@pytest.mark.slow
@pytest.mark.parametrize("momentum", [False, True], ids=["learning rate", "momentum"])
def test_coverage_on_the_noisy_quadratic(momentum: bool) -> None:
    shares = coverage(noisy_quadratic_pool(32 * 200, np.random.default_rng(0), momentum), 32, 150)
    for name in NAMES:
        assert 0.85 - slack(150) <= shares[name] <= 0.95 + slack(150), name


@pytest.mark.slow
@pytest.mark.parametrize("sharpness", [1.0, 2.0])
def test_coverage_of_confirmed_curves(sharpness: float) -> None:
    shares = confirmation_coverage(0.1, sharpness, 150)
    for name in NAMES:
        assert 0.85 - slack(150) <= shares[name] <= 0.95 + slack(150), name
