"""The two tables of a run as CSV or Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import polars as pl

from batchscope.exchange.exporters.result import Counted, Exported, counting, every, new_folder
from batchscope.store.formulas import defused
from batchscope.store.store import Store


def export_tables(
    store: Store, folder: str | Path, file_format: Literal["csv", "parquet"], counted: Counted = every
) -> Exported:
    """Write ``trials`` and ``measurements``, sorted, with ``study.yaml`` beside them.

    A missing value is an empty field in CSV, not-a-number is ``NaN``, and a text that a spreadsheet would take for a
    formula is quoted with ``'``: ``formulas.undefused`` gives it back.
    """
    trials, evaluations = counting(store, counted)
    with new_folder(Path(folder)) as place:
        (place / "study.yaml").write_text(store.study_text, encoding="utf-8")
        ordered = evaluations.sort("batch_size", "trial", "step")
        if file_format == "csv":
            with (place / "trials.csv").open("wb") as file:
                defused(trials).write_csv(file)
            with (place / "measurements.csv").open("wb") as file:
                defused(ordered).sink_csv(file)
        else:
            with (place / "trials.parquet").open("wb") as file:
                trials.write_parquet(file)
            with (place / "measurements.parquet").open("wb") as file:
                ordered.sink_parquet(file)
    return Exported(Path(folder), len(trials), evaluations.select(pl.len()).collect().item())
