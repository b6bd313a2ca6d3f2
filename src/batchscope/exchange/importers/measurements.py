"""Many small CSV files of measurements, read together: one file a trial, with a column ``step``."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from batchscope.exchange.importers.cleaning import numbers, whole_numbers
from batchscope.exchange.importers.result import Problems


@dataclass(frozen=True)
class ReadMeasurements:
    """``trial``, ``step`` and the metrics of many files, in the order of the files."""

    frame: pl.DataFrame
    metrics: list[str]


def read_evaluations(files: Sequence[tuple[str, Path]], problems: Problems) -> ReadMeasurements:
    """Read the measurements of these trials.

    Files with the same header are parsed as one. If that fails anywhere, they are read again one by one, so that
    what is wrong can be counted and the rest used.
    """
    alike: dict[bytes, list[tuple[str, bytes]]] = defaultdict(list)
    for trial, path in files:
        try:
            header, _, body = path.read_bytes().partition(b"\n")
        except OSError as error:
            problems.add("trials whose measurements.csv cannot be read", 1, f"{path} ({error.strerror})")
            continue
        if header.strip():
            alike[header.strip()].append((trial, body))
        else:
            problems.add("empty files of measurements", 1, str(path))
    frames = []
    for header, parts in alike.items():
        names = _names(header)
        if names is None:
            problems.add(
                "files of measurements whose header is not step and SET/METRIC columns, left out",
                len(parts),
                f"trial {parts[0][0]}",
            )
            continue
        together = _parse(names, parts)
        frames += [together] if together is not None else [_parse_slowly(names, part, problems) for part in parts]
    if not frames:
        return ReadMeasurements(pl.DataFrame(schema={"trial": pl.String, "step": pl.Int64}), [])
    frame = pl.concat(frames, how="diagonal")
    return ReadMeasurements(frame, [name for name in frame.columns if name not in {"trial", "step"}])


def _names(header: bytes) -> list[str] | None:
    """The columns of a header; None if it has no ``step`` or a name twice."""
    try:
        names = [name.strip().strip('"') for name in header.decode().split(",")]
    except UnicodeDecodeError:
        return None
    metrics = [name for name in names if name != "step"]
    fit = len(set(names)) == len(names) and all("/" in name and len(name) < 200 for name in metrics)
    return names if fit and "step" in names else None


def _parse(names: list[str], parts: list[tuple[str, bytes]]) -> pl.DataFrame | None:
    """All files at once; None if one of them is not plainly numbers."""
    bodies = [body if body.endswith(b"\n") or not body else body + b"\n" for _, body in parts]
    counts = np.array([body.count(b"\n") for body in bodies])
    types: dict[str, pl.DataType | type[pl.DataType]] = dict.fromkeys(names, pl.Float64)
    types["step"] = pl.Int64
    if not counts.sum():
        return None
    try:
        source = io.BytesIO(b"".join(bodies))
        frame = pl.read_csv(source, has_header=False, schema=types, quote_char=None)
    except pl.exceptions.PolarsError:
        return None
    if len(frame) != counts.sum() or frame["step"].null_count() or (frame["step"] < 0).any():
        return None
    ids = pl.Series("trial", [trial for trial, _ in parts]).gather(np.repeat(np.arange(len(parts)), counts))
    return frame.with_columns(ids).select("trial", *names)


def _parse_slowly(names: list[str], part: tuple[str, bytes], problems: Problems) -> pl.DataFrame:
    """One file, counting what is wrong with it."""
    trial, body = part
    empty = pl.DataFrame(schema={"trial": pl.String, "step": pl.Int64})
    if not body.strip():
        return empty
    types = dict.fromkeys(names, pl.String)
    try:
        frame = pl.read_csv(io.BytesIO(body), has_header=False, schema=types, encoding="utf8-lossy")
    except pl.exceptions.PolarsError as error:
        problems.add(
            "files of measurements that are no CSV, left out", 1, f"trial {trial}: {str(error).splitlines()[0]}"
        )
        return empty
    frame = whole_numbers(frame.with_columns(pl.lit(trial).alias("trial")), "step", "step", 0, problems)
    for name in names:
        if name != "step":
            frame = numbers(frame, name, name, problems)
    return frame.select("trial", *names)
