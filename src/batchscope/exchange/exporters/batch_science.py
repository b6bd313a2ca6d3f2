"""A run in the layout of the published database of Sh19."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from batchscope.exchange.exporters.result import Counted, Exported, counting, every, new_folder
from batchscope.exchange.importers.batch_science import METRICS, SCALES, SETS, STATUSES
from batchscope.spec import documents
from batchscope.spec.goal import EXAMPLES, is_metric
from batchscope.store.schema import HYPERPARAMETER
from batchscope.store.store import Store

_STATUS = {"pruned": "INCOMPLETE", "running": "INCOMPLETE"} | {ours: theirs for theirs, ours in STATUSES.items()}
_SCALE = {ours: theirs for theirs, ours in SCALES.items() if theirs}
_METRIC = {ours: theirs for theirs, ours in METRICS.items()}
_SET = {ours: theirs for theirs, ours in SETS.items()}


def published_name(metric: str) -> str:
    """The published name of a metric: the inverse of ``importers.batch_science.metric_name``."""
    subset, _, name = metric.partition("/")
    return f"{_SET.get(subset, subset)}/{_METRIC.get(name, name)}"


def export_batch_science(store: Store, folder: str | Path, counted: Counted = every) -> Exported:
    """Write ``dataset/model/optimizer/batch_size/{study.json, trial_id/{metadata.json, measurements.csv}}``.

    The layout has no place for seconds, confirmation runs, why a trial was stopped early, or what is known of an
    evaluation that ended early; ``notes`` counts them.
    """
    trials, evaluations = counting(store, counted)
    document = documents.load(store.study_text, "study.yaml")
    names = _names(document)
    notes = []
    repeated = trials.filter(pl.col("replicate") != 0)
    if len(repeated):
        notes.append(f"{len(repeated)} confirmation runs left out: the layout has no place for them")
        trials = trials.filter(pl.col("replicate") == 0)
    stopped = trials.filter(pl.col("status").is_in(["pruned", "running", "stopped"]))
    if len(stopped):
        notes.append(f"{len(stopped)} trials that were stopped early or still run are INCOMPLETE")
    if EXAMPLES in evaluations.collect_schema().names():
        early = evaluations.filter(pl.col(EXAMPLES) < pl.col(EXAMPLES).max()).select(pl.len()).collect().item()
        notes.append(
            f"{early} evaluations ended early: their fields are empty, and no goal but the study's can be asked for"
        )
    written = 0
    with new_folder(Path(folder)) as place:
        for (batch_size,), group in trials.partition_by("batch_size", as_dict=True).items():
            study = place.joinpath(*names, str(batch_size))
            study.mkdir(parents=True)
            content = _study(document, batch_size, group, names)
            _write_json(study / "study.json", content)
            part = evaluations.filter(pl.col("batch_size") == batch_size).sort("trial", "step").collect()
            written += _write_trials(study, group, part)
    return Exported(Path(folder), len(trials), written, tuple(notes))


def _names(document: Mapping[str, Any]) -> tuple[str, str, str]:
    """Data set, model and optimizer, each fit to name a folder."""
    algorithm, search = document.get("algorithm"), document.get("search")
    optimizer = algorithm.get("optimizer") if isinstance(algorithm, dict) else None
    optimizer = "_".join(search.get("optimizers") or ()) or optimizer if isinstance(search, dict) else optimizer
    parts = re.split(r"[/:]+", str(document.get("workload", "")))
    parts = [fit for part in parts if (fit := re.sub(r"[^\w.=+-]+", "_", part).strip("._")[:100])]
    parts += ["unknown", "unknown"][len(parts) :] if len(parts) < 2 else []
    if optimizer or len(parts) == 2:
        return parts[0], "_".join(parts[1:]), re.sub(r"\W+", "_", str(optimizer or "unknown"))
    return parts[0], "_".join(parts[1:-1]), parts[-1]


def _study(
    document: Mapping[str, Any], batch_size: int, trials: pl.DataFrame, names: tuple[str, str, str]
) -> dict[str, Any]:
    studies = document.get("studies")
    kept = studies.get(str(batch_size)) if isinstance(studies, dict) else None
    search = document.get("search")
    space = (kept or {}).get("space") if kept else _space(search) if isinstance(search, dict) else None
    complete = trials.filter(pl.col("status") == "complete")["steps"]
    steps = (kept or {}).get("train_steps")
    return {
        "batch_size": batch_size,
        "dataset": names[0],
        "early_stopping": bool((kept or {}).get("early_stopping", False)),
        "model": names[1],
        "optimizer": names[2],
        "parameter_configs": {name: _config(config) for name, config in (space or {}).items()},
        "train_steps": steps if steps is not None else complete.min() or 0,
    }


def _space(search: Mapping[str, Any]) -> dict[str, Any] | None:
    """A study's space; where it has several optimizers, each with its name before those of its own."""
    optimizers = search.get("optimizers")
    if not optimizers:
        return search.get("space")
    own = {f"{optimizer}/{name}": config for optimizer, space in optimizers.items() for name, config in space.items()}
    return {"optimizer": list(optimizers), **own}


def _config(config: object) -> dict[str, Any]:
    if isinstance(config, dict) and "min" in config:
        kind = "INTEGER" if config.get("type") == "integer" else "DOUBLE"
        scale = "" if kind == "INTEGER" else _SCALE[config.get("scale", "linear")]
        return {"max_value": config["max"], "min_value": config["min"], "scale": scale, "type": kind}
    values = config.get("values") if isinstance(config, dict) else config if isinstance(config, list) else [config]
    return {"feasible_points": values, "type": "DISCRETE"}


def _write_trials(study: Path, trials: pl.DataFrame, evaluations: pl.DataFrame) -> int:
    numbers = trials["index"] if not trials["index"].is_duplicated().any() else pl.Series(range(len(trials)))
    metrics = [name for name in evaluations.columns if is_metric(name) and evaluations[name].count()]
    by_trial = evaluations.partition_by("trial", as_dict=True, maintain_order=True)
    columns = [name for name in trials.columns if name.startswith(HYPERPARAMETER)]
    written = 0
    for number, row in zip(numbers, trials.iter_rows(named=True), strict=True):
        place = study / str(number)
        place.mkdir()
        parameters = {name.removeprefix(HYPERPARAMETER): row[name] for name in columns if row[name] is not None}
        status, steps = _STATUS[row["status"]], row["steps"]
        _write_json(
            place / "metadata.json",
            {"parameters": parameters, "status": status, "steps": steps, "trial_id": number},
        )
        part = by_trial.get((row["trial"],), evaluations.clear())
        table = part.select("step", *(pl.col(name).alias(published_name(name)) for name in metrics))
        with (place / "measurements.csv").open("wb") as file:
            table.write_csv(file)
        written += len(part)
    return written


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
