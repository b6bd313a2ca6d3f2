"""The published database of Sh19: ``dataset/model/optimizer/batch_size/{study.json, trial_id/{metadata.json, ...}}``.

Every trial is imported. The published figures use the first 100 (for three workloads 50) COMPLETE trials of a study in
the order of their numbers (Sh19 section 4.1, footnotes 13 and 14); this rule is written down as ``selection`` and
applied when a run is analysed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from batchscope.errors import DataError
from batchscope.exchange.importers.cleaning import clean, trial_rows
from batchscope.exchange.importers.measurements import ReadMeasurements, read_evaluations
from batchscope.exchange.importers.result import Imported, Problems, check_free, check_goals, new_run
from batchscope.store.schema import HYPERPARAMETER

STATUSES = {"COMPLETE": "complete", "INCOMPLETE": "stopped", "INFEASIBLE": "diverged"}
SCALES = {"LINEAR_SCALE": "linear", "LOG_SCALE": "log", "REVERSE_LOG_SCALE": "reverse_log", "": "linear"}
METRICS = {"classification_error": "error", "cross_entropy_error": "loss"}
SETS = {"val": "validation"}
LARGEST_JSON = 2**24
TRIALS_PER_STUDY = 100
# Sh19 footnote 14: 50 trials each.
FEWER_TRIALS = {
    ("common_crawl", "transformer_base", "nesterov_momentum"): 50,
    ("lm1b", "lstm", "nesterov_momentum"): 50,
    ("lm1b", "transformer_shallow", "sgd"): 50,
}
# The goals of Sh19 figure 1, by data set and model.
GOALS = {
    ("mnist", "simple_cnn_base"): "validation/error < 0.01",
    ("fashion_mnist", "simple_cnn_base"): "validation/error < 0.1",
    ("cifar_10", "resnet_8"): "validation/error < 0.3",
    ("imagenet", "resnet_50"): "validation/error < 0.25",
    ("imagenet", "vgg_11"): "validation/error < 0.35",
    ("open_images_v4", "resnet_50"): "validation/average_precision > 0.31",
    ("lm1b", "transformer_base"): "validation/loss < 3.9",
    ("lm1b", "lstm"): "validation/loss < 3.9",
    ("common_crawl", "transformer_base"): "validation/loss < 3.9",
}


@dataclass(frozen=True)
class _Study:
    """One ``study.json`` and where it lies."""

    folder: Path
    batch_size: int
    content: dict[str, Any]


def metric_name(name: str) -> str:
    """Our name of a published metric: ``val/classification_error`` is ``validation/error``."""
    subset, _, metric = name.partition("/")
    return f"{SETS.get(subset, subset)}/{METRICS.get(metric, metric)}"


def import_batch_science(
    path: str | Path, folder: str | Path, *, goals: Sequence[str] = (), trials: int | None = None
) -> Imported:
    """Make a run of every workload (data set, model, optimizer) in the published layout.

    Args:
        path: The whole tree, one data set, one model, one workload, or one study.
        folder: The run to make if ``path`` is one workload or study; otherwise the folder of the runs, which then
            lie in it as the workloads lie in ``path``.
        goals: For ``analyze`` to find; otherwise those of Sh19 figure 1, where the workload is one of its.
        trials: How many COMPLETE trials of a study the analysis takes; otherwise as in Sh19.

    Raises:
        DataError: If there is no study in ``path``.
    """
    path, folder = Path(path), Path(folder)
    if not path.is_dir():
        raise DataError(f"there is no folder {path}")
    given = check_goals(list(goals))
    found = list(_workloads(path))
    if not found:
        raise DataError(f"{path} holds no study.json at any depth: give a folder of the layout dataset/model/optimizer")
    check_free(folder)
    total, runs, trial_count, evaluation_count = Problems(), [], 0, 0
    for workload, studies in found:
        inner = workload.relative_to(path) if workload.is_relative_to(path) else Path()
        target = folder / inner
        problems = Problems()
        read = [study for place in studies if (study := _read_study(place, problems))]
        if not read:
            _tell(total, problems, inner)
            continue
        with new_run(target, _document(read, inner, given, trials), problems) as store:
            for study in read:
                rows, evaluations = _tables(study, problems)
                if not rows.is_empty():
                    store.commit(rows, evaluations)
                trial_count += len(rows)
                evaluation_count += len(evaluations)
        runs.append(target)
        _tell(total, problems, inner)
    if not trial_count:
        raise DataError(f"{path} holds no trial that can be used: " + "; ".join(total.lines()))
    return Imported(tuple(runs), trial_count, evaluation_count, total.lines())


def _tell(total: Problems, problems: Problems, workload: Path) -> None:
    for what, count in problems.counts.items():
        place = problems.first[what]
        total.add(what, count, f"{workload}/{place}" if place and workload.parts else place)


def _workloads(path: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Every workload's folder and its studies' folders, which have numbers for names."""
    if (path / "study.json").is_file():
        yield path.parent, [path]
        return
    for place, folders, _ in os.walk(path):
        folders.sort()
        studies = [Path(place, name) for name in folders if Path(place, name, "study.json").is_file()]
        if studies:
            folders.clear()
            yield Path(place), studies


def _json(path: Path) -> dict[str, Any]:
    """A JSON object; ValueError with the reason if it is none."""
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise ValueError("is too large")
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is no JSON ({str(error):.100})") from None
    if not isinstance(value, dict):
        raise ValueError("holds no JSON object")
    return value


def _read_study(folder: Path, problems: Problems) -> _Study | None:
    try:
        content = _json(folder / "study.json")
        batch_size = content.get("batch_size", folder.name)
        if isinstance(batch_size, bool) or int(batch_size) != float(batch_size) or int(batch_size) < 1:
            raise ValueError(f"has the batch size {batch_size!r}")
        if folder.name != str(int(batch_size)):
            problems.add("studies whose folder is not named for their batch size; study.json believed", 1, folder.name)
        return _Study(folder, int(batch_size), content)
    except (ValueError, TypeError, OverflowError) as error:
        problems.add("studies whose study.json is unfit, left out", 1, f"{folder.name}/study.json {error}")
        return None


def _document(studies: list[_Study], inner: Path, goals: list[str], trials: int | None) -> dict[str, Any]:
    first = studies[0].content
    dataset, model, optimizer = (str(first.get(name, "unknown"))[:100] for name in ("dataset", "model", "optimizer"))
    known = GOALS.get((dataset, model))
    count = trials or FEWER_TRIALS.get((dataset, model, optimizer), TRIALS_PER_STUDY)
    return {
        "imported": {"kind": "batch-science", "source": str(inner) if inner.parts else studies[0].folder.parent.name},
        "workload": f"{dataset}/{model}/{optimizer}",
        "goals": goals or ([known] if known else []),
        "selection": {"statuses": ["complete"], "trials": count},
        "studies": {str(study.batch_size): _space(study.content) for study in studies},
    }


def _space(content: dict[str, Any]) -> dict[str, Any]:
    """The search space of a study in our words, and its budget."""
    space: dict[str, Any] = {}
    configs = content.get("parameter_configs")
    for name, config in configs.items() if isinstance(configs, dict) else ():
        if not isinstance(config, dict):
            continue
        if config.get("type") == "DISCRETE" or "feasible_points" in config:
            space[str(name)] = {"values": _plain(config.get("feasible_points"))}
        else:
            scale = SCALES.get(str(config.get("scale", "")), "linear")
            space[str(name)] = {"min": _plain(config.get("min_value")), "max": _plain(config.get("max_value"))}
            space[str(name)] |= {"scale": scale} | ({"type": "integer"} if config.get("type") == "INTEGER" else {})
    budget = {"train_steps": _plain(content.get("train_steps")), "early_stopping": bool(content.get("early_stopping"))}
    return {"space": space, **budget}


def _plain(value: object) -> object:
    """Numbers, words and lists of them; nothing deeper."""
    if isinstance(value, list):
        return [_plain(item) for item in value[:1000] if not isinstance(item, list)]
    return value if isinstance(value, int | float) or value is None else str(value)[:200]


def _tables(study: _Study, problems: Problems) -> tuple[pl.DataFrame, pl.DataFrame]:
    rows: list[dict[str, Any]] = []
    files: list[tuple[str, Path]] = []
    numbered, others = [], 0
    with os.scandir(study.folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if entry.name.isascii() and entry.name.isdigit() and len(entry.name) < 16:
                    numbered.append(int(entry.name))
                else:
                    others += 1
    problems.add("folders whose name is no trial number, left out", others, study.folder.name)
    for number in sorted(numbered):
        if row := _trial(study, number, problems):
            rows.append(row)
            files.append((row["trial"], study.folder / str(number) / "measurements.csv"))
    if not rows:
        problems.add("studies without any trial", 1, study.folder.name)
        return pl.DataFrame(), pl.DataFrame()
    read: ReadMeasurements = read_evaluations(files, problems)
    evaluations = read.frame.rename({name: metric_name(name) for name in read.metrics})
    evaluations = evaluations.with_columns(pl.lit(study.batch_size, pl.Int64).alias("batch_size"))
    evaluations = evaluations.with_columns((pl.col("step") * study.batch_size).alias("examples"))
    metrics = [metric_name(name) for name in read.metrics]
    evaluations = clean(evaluations, metrics, problems)
    trials = pl.DataFrame(rows, infer_schema_length=None, strict=False)
    return trial_rows(trials, evaluations, metrics, problems), evaluations


def _trial(study: _Study, number: int, problems: Problems) -> dict[str, Any] | None:
    place = f"{study.folder.name}/{number}"
    try:
        content = _json(study.folder / str(number) / "metadata.json")
        status = STATUSES[str(content.get("status"))]
    except ValueError as error:
        problems.add("trials whose metadata.json is unfit, left out", 1, f"{place}/metadata.json {error}")
        return None
    except KeyError:
        problems.add("trials of unknown status, left out", 1, f"{place}: {content.get('status')!r:.80}")
        return None
    if content.get("trial_id", number) != number:
        problems.add("trials whose folder is not named for their trial_id; the folder believed", 1, place)
    steps = content.get("steps")
    if not isinstance(steps, int | float) or isinstance(steps, bool) or not 0 <= steps < 2**53:
        problems.add("trials that do not state their steps", 1, place)
        steps = None
    parameters = content.get("parameters")
    values = parameters if isinstance(parameters, dict) else {}
    return {
        "trial": f"b{study.batch_size}-{number}",
        "batch_size": study.batch_size,
        "index": number,
        "status": status,
        "steps": None if steps is None else int(steps),
        **{f"{HYPERPARAMETER}{name}": _hyperparameter(value) for name, value in values.items()},
    }


def _hyperparameter(value: object) -> object:
    if isinstance(value, bool | int | float):
        return float(value) if abs(value) < np.inf or value != value else None
    return str(value)[:200]
