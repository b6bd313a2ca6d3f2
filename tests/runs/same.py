"""Whether two finished run folders say the same, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
from polars.testing import assert_frame_equal

import batchscope as bs

# Wall-clock columns: the only ones in which two runs of one study differ.
TIMES = ("seconds", "train_seconds", "evaluation_seconds")


def tables(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Trials and measurements as another program reads them: straight from the Parquet files.

    Without times, and without ``since`` and ``commit``, which tell how often the driver wrote.
    """
    log = pl.read_parquet(folder / "trials" / "*.parquet", glob=True, missing_columns="insert")
    trials = log.sort("trial", "steps", "commit").group_by("trial", maintain_order=True).last()
    evaluations = pl.read_parquet(folder / "measurements" / "*.parquet", glob=True, missing_columns="insert")
    trials = trials.drop("since", "commit", *TIMES, strict=False)
    evaluations = evaluations.drop(TIMES, strict=False).sort("trial", "step")
    return trials.select(sorted(trials.columns)), evaluations.select(sorted(evaluations.columns))


def assert_same_run(folder: Path, reference: Path) -> None:
    """The same trials and statuses, the same measurements each once, the same summary, and nothing left over."""
    for ours, theirs in zip(tables(folder), tables(reference), strict=True):
        assert_frame_equal(ours, theirs, check_exact=True)
    evaluations = tables(folder)[1]
    assert not evaluations.select(pl.struct("trial", "step").is_duplicated().any()).item()
    ours, theirs = (json.loads((place / "summary.json").read_text()) for place in (folder, reference))
    assert ours == theirs
    assert (folder / "study.yaml").read_text() == (reference / "study.yaml").read_text()
    run = bs.open_run(folder)
    assert run.warnings == [] and run.driver is None
    left = [path for name in ("trials", "measurements") for path in (folder / name).glob(".*")]
    assert left == [] and not (folder / "damaged").exists()
