"""S18 in small: raising the batch size gives the learning curve of decaying the rate, with fewer updates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import batchscope as bs
from batchscope.plan.timeline import Timeline

EXAMPLE = Path(__file__).parents[2] / "examples" / "batch_schedules.yaml"
EPOCHS = np.arange(2, 61)


def curves(variant: str, folder: Path) -> tuple[np.ndarray, int]:
    overrides = [f"algorithm.batch_schedule.variant={variant}", "search.trials=6", "engine.program=vmap"]
    study = bs.Study.from_yaml(EXAMPLE, overrides)
    run = bs.run(study, folder / variant, workers=0)
    (updates,) = set(run.trials["steps"])
    assert updates == Timeline(study, 16, 1297).last
    evaluations = run.measurements.collect().sort("trial", "step").group_by("trial", maintain_order=True)
    rows = [np.interp(EPOCHS, g["epoch"].to_numpy(), g["validation/loss"].to_numpy()) for _, g in evaluations]
    return np.array(rows), updates


@pytest.mark.slow
def test_the_three_variants_have_one_learning_curve(tmp_path: Path) -> None:
    found = {variant: curves(variant, tmp_path) for variant in ("decay", "hybrid", "increase")}
    updates = {variant: count for variant, (_, count) in found.items()}
    assert updates == {"decay": 4863, "hybrid": 2139, "increase": 1827}
    reference = found["decay"][0]
    for variant in ("hybrid", "increase"):
        rows = found[variant][0]
        spread = np.sqrt((rows.var(0, ddof=1) + reference.var(0, ddof=1)) / 2)
        assert (np.abs(rows.mean(0) - reference.mean(0)) < spread).all()
