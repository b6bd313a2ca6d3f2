"""Runs of an MLflow experiment, through its library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from batchscope.errors import DataError
from batchscope.exchange.importers.result import ColumnError, Imported, Problems
from batchscope.exchange.importers.trackers import Tracked, check_metrics, extra, import_tracked, reading


def import_mlflow(
    uri: str,
    folder: str | Path,
    *,
    experiment: str,
    batch_size: str,
    metrics: Mapping[str, str],
    hyperparameters: Mapping[str, str] | None = None,
    goals: Sequence[str] = (),
) -> Imported:
    """Make a run of an MLflow experiment.

    Args:
        uri: The tracking address: a server, a database, or a folder ``mlruns``.
        folder: The run to make.
        experiment: The experiment's name.
        batch_size: The parameter that is the batch size.
        metrics: Our name of a metric to its key there.
        hyperparameters: Our name of a hyperparameter to its key there.
        goals: For ``analyze`` to find.

    Raises:
        DataError: If there is no such experiment, or the library cannot read it.
    """
    check_metrics(metrics)
    tracking = extra("mlflow.tracking", "mlflow")
    if "://" not in uri and not Path(uri).exists():
        raise DataError(f"there is no folder {uri}")  # the library would make it
    problems = Problems()
    with reading(uri):
        client = tracking.MlflowClient(tracking_uri=uri)
        found = client.get_experiment_by_name(experiment)
        if found is None:
            raise ColumnError(f"{uri} holds no experiment named {experiment!r}: type --experiment NAME")
        tracked = list(_tracked(client, found.experiment_id, batch_size, metrics, hyperparameters or {}, problems))
    return import_tracked(
        tracked, folder, kind="mlflow", source=experiment, workload=experiment, goals=goals, problems=problems
    )


def _tracked(
    client: Any,
    experiment: str,
    batch_size: str,
    metrics: Mapping[str, str],
    hyperparameters: Mapping[str, str],
    problems: Problems,
) -> Iterator[Tracked]:
    token = None
    while True:
        page = client.search_runs([experiment], page_token=token)
        for run in page:
            settings = {name: run.data.params.get(key) for name, key in hyperparameters.items()}
            found = Tracked(run.info.run_id, run.data.params.get(batch_size), run.info.status, settings)
            for name, key in metrics.items():
                for entry in client.get_metric_history(run.info.run_id, key):
                    found.log(entry.step, name, entry.value, problems)
            yield found
        token = page.token
        if not token:
            return
