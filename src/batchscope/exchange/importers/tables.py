"""A run from the two tables that ``batchscope export --format csv|parquet`` writes."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from batchscope.errors import DataError
from batchscope.exchange.importers.result import Imported, Problems, new_run
from batchscope.spec import documents
from batchscope.store.disk import read_table
from batchscope.store.formulas import undefused
from batchscope.store.schema import HYPERPARAMETER, MEASUREMENTS, TRIALS


def import_tables(path: str | Path, folder: str | Path) -> Imported:
    """Make a run of a folder that holds ``trials`` and ``measurements`` as CSV or Parquet, and ``study.yaml``.

    Raises:
        DataError: If a table is missing or cannot be read.
    """
    path, folder = Path(path), Path(folder)
    study = path / "study.yaml"
    if not study.is_file():
        raise DataError(f"{path} lacks study.yaml: give a folder that batchscope export has written")
    document = documents.load(study.read_text(encoding="utf-8", errors="replace"), str(study))
    trials, evaluations = _read(path, "trials", dict(TRIALS)), _read(path, "measurements", dict(MEASUREMENTS))
    document = {"imported": {"kind": "tables", "source": path.name}} | document
    with new_run(folder, document, Problems()) as store:
        store.commit(trials, evaluations)
    return Imported((folder,), len(trials), len(evaluations), ())


def _read(path: Path, table: str, types: dict[str, pl.DataType | type[pl.DataType]]) -> pl.DataFrame:
    try:
        if (path / f"{table}.parquet").is_file():
            return read_table(pl.read_parquet, path / f"{table}.parquet")
        source = path / f"{table}.csv"
        if not source.is_file():
            raise DataError(f"{path} holds neither {table}.parquet nor {table}.csv")
        frame = undefused(read_table(pl.read_csv, source, infer_schema=False))
        metrics = {name: pl.Float64 for name in frame.columns if "/" in name and not name.startswith(HYPERPARAMETER)}
        known = {name: kind for name, kind in {**types, **metrics}.items() if name in frame.columns}
        frame = frame.with_columns(pl.col(name).cast(kind) for name, kind in known.items())
        words = [name for name in frame.columns if name.startswith(HYPERPARAMETER)]
        numeric = [
            name
            for name in words
            if frame[name].cast(pl.Float64, strict=False).null_count() == frame[name].null_count()
        ]
        return frame.with_columns(pl.col(numeric).cast(pl.Float64))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise DataError(f"cannot read the {table} in {path}: {str(error).splitlines()[0]}") from None
