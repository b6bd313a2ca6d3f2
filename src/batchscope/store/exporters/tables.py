"""The two tables of a run as CSV or Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import polars as pl

from batchscope.store.exporters.result import Exported, new_folder
from batchscope.store.store import Store


def export_tables(store: Store, folder: str | Path, file_format: Literal["csv", "parquet"]) -> Exported:
    """Write ``trials`` and ``measurements``, sorted, with ``study.yaml`` beside them.

    A missing value is an empty field in CSV, not-a-number is ``NaN``.
    """
    trials, looks = store.tables()
    with new_folder(Path(folder)) as place:
        (place / "study.yaml").write_text(store.study_text, encoding="utf-8")
        ordered = looks.sort("batch_size", "trial", "step")
        if file_format == "csv":
            trials.write_csv(place / "trials.csv")
            ordered.sink_csv(place / "measurements.csv")
        else:
            trials.write_parquet(place / "trials.parquet")
            ordered.sink_parquet(place / "measurements.parquet")
    return Exported(Path(folder), len(trials), looks.select(pl.len()).collect().item())
