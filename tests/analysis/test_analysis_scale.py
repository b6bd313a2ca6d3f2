"""The published database has 168,160 trials and 71.6 million measurements; it must be analysed in a laptop's memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

STUDIES, TRIALS, EVALUATIONS = 454, 371, 426
ANALYSE = """
import json, resource, sys, time
import polars as pl
from batchscope import analysis
from batchscope.spec.goal import Goal
trials = pl.read_parquet(sys.argv[1] + "/trials.parquet")
evaluations = pl.scan_parquet(sys.argv[1] + "/evaluations-*.parquet")
start = time.perf_counter()
curve = analysis.steps_to_result(trials, evaluations, Goal.parse("validation/error < 0.25"))
analysis.best_under_budgets(trials, evaluations, "validation/error")
analysis.sensitivity(trials, evaluations, curve.goal)
analysis.contour(trials, evaluations, "validation/error")
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = {"seconds": time.perf_counter() - start, "memory_mib": memory / 1024, "batch_sizes": curve.table.height}
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="measures memory with getrusage")
def test_the_published_database_is_analysed_within_four_gigabytes(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    evaluations = np.unique(np.round(1.02 ** np.arange(700)).astype(np.int64))[:EVALUATIONS]
    rows = []
    for batch_size in range(1, STUDIES + 1):
        rate = generator.random(TRIALS)
        steps = (
            200 * (1 + 300 / batch_size) * np.exp(((rate - 0.5) / 0.3) ** 2 + 0.1 * generator.standard_normal(TRIALS))
        )
        names = [f"{batch_size:06x}{index:010x}" for index in range(TRIALS)]
        columns: dict[str, object] = {"trial": names, "index": range(TRIALS), "hyperparameter/learning_rate": rate}
        rows.append(pl.DataFrame(columns).with_columns(pl.lit(batch_size).cast(pl.Int64).alias("batch_size")))
        pl.DataFrame(
            {
                "trial": np.repeat(names, EVALUATIONS),
                "batch_size": np.full(TRIALS * EVALUATIONS, batch_size),
                "step": np.tile(evaluations, TRIALS),
                "validation/error": 0.5 ** (1 + evaluations / steps[:, None]).ravel(),
            }
        ).write_parquet(tmp_path / f"evaluations-{batch_size:03}.parquet")
    fixed = {"replicate": 0, "revision": 0, "status": "complete", "steps": int(evaluations[-1])}
    trials = pl.concat(rows).with_columns(pl.lit(value).alias(name) for name, value in fixed.items())
    trials.write_parquet(tmp_path / "trials.parquet")
    command = [sys.executable, "-c", ANALYSE, str(tmp_path)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(found)
    assert STUDIES * TRIALS * EVALUATIONS > 71_600_000
    assert found["batch_sizes"] == STUDIES
    assert found["memory_mib"] < 4096
