"""Runs of a Weights & Biases project, through its library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from batchscope.exchange.importers.result import Imported, Problems
from batchscope.exchange.importers.trackers import Tracked, check_metrics, extra, import_tracked, reading


def import_wandb(
    project: str,
    folder: str | Path,
    *,
    batch_size: str,
    metrics: Mapping[str, str],
    hyperparameters: Mapping[str, str] | None = None,
    step: str = "_step",
    goals: Sequence[str] = (),
) -> Imported:
    """Make a run of a project ``ENTITY/PROJECT``.

    Args:
        project: As in the address of its page.
        folder: The run to make.
        batch_size: The key in the configuration that is the batch size.
        metrics: Our name of a metric to its key in the history.
        hyperparameters: Our name of a hyperparameter to its key in the configuration.
        step: The key in the history that counts weight updates. ``_step`` counts calls of ``wandb.log``: give another
            where these differ.
        goals: For ``analyze`` to find.
    """
    check_metrics(metrics)
    wandb = extra("wandb", "wandb")
    problems = Problems()
    if step == "_step":
        problems.add("run history read by _step, which counts log calls: give --step if updates are counted elsewhere")
    with reading(project):
        api = wandb.Api()
        tracked = list(_tracked(api.runs(project), batch_size, metrics, hyperparameters or {}, step, problems))
    return import_tracked(
        tracked, folder, kind="wandb", source=project, workload=project, goals=goals, problems=problems
    )


def _tracked(
    runs: Any,
    batch_size: str,
    metrics: Mapping[str, str],
    hyperparameters: Mapping[str, str],
    step: str,
    problems: Problems,
) -> Iterator[Tracked]:
    for run in runs:
        settings = {name: run.config.get(key) for name, key in hyperparameters.items()}
        found = Tracked(str(run.name or run.id), run.config.get(batch_size), str(run.state), settings)
        found.name = f"{found.name} ({run.id})"
        for row in run.scan_history():
            for name, key in metrics.items():
                if row.get(key) is not None:
                    found.log(row.get(step), name, row[key], problems)
        yield found
