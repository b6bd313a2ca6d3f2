"""TensorBoard event folders, one folder a trial, through TensorBoard's own reader."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from batchscope.errors import DataError
from batchscope.exchange.importers.result import ColumnError, Imported, Problems
from batchscope.exchange.importers.trackers import Tracked, check_metrics, extra, import_tracked, reading


def import_tensorboard(
    path: str | Path,
    folder: str | Path,
    *,
    batch_size: str,
    metrics: Mapping[str, str],
    hyperparameters: Mapping[str, str] | None = None,
    goals: Sequence[str] = (),
) -> Imported:
    r"""Make a run of the event folders below ``path``.

    Event files do not hold settings, so these are read from the folders' names.

    Args:
        path: The log folder.
        folder: The run to make.
        batch_size: A regular expression whose one group is the batch size, such as ``bs(\d+)``.
        metrics: Our name of a metric to its tag there.
        hyperparameters: Our name of a hyperparameter to a regular expression as for ``batch_size``.
        goals: For ``analyze`` to find.

    Raises:
        DataError: If there are no event files.
    """
    check_metrics(metrics)
    path = Path(path)
    patterns = {name: _pattern(text) for name, text in (hyperparameters or {}).items()}
    size = _pattern(batch_size)
    folders = sorted({file.parent for file in path.rglob("events.out.tfevents*")})
    if not folders:
        raise DataError(f"{path} holds no event files (events.out.tfevents...)")
    reader = extra("tensorboard.backend.event_processing.event_accumulator", "tensorboard")
    problems = Problems()
    with reading(str(path)):
        tracked = list(_tracked(reader, path, folders, size, metrics, patterns, problems))
    return import_tracked(
        tracked, folder, kind="tensorboard", source=path.name, workload=path.name, goals=goals, problems=problems
    )


def _pattern(text: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise ColumnError(f"{text!r} is no regular expression: {error}") from None
    if pattern.groups != 1:
        raise ColumnError(f"{text!r} needs one group in parentheses, as in bs(\\d+)")
    return pattern


def _tracked(
    reader: Any,
    path: Path,
    folders: Sequence[Path],
    size: re.Pattern[str],
    metrics: Mapping[str, str],
    patterns: Mapping[str, re.Pattern[str]],
    problems: Problems,
) -> Iterator[Tracked]:
    for folder in folders:
        name = folder.relative_to(path).as_posix() if folder != path else folder.name
        settings = {key: match[1] for key, pattern in patterns.items() if (match := pattern.search(name))}
        match = size.search(name)
        found = Tracked(name, match[1] if match else None, None, {key: settings.get(key) for key in patterns})
        events = reader.EventAccumulator(str(folder), size_guidance={reader.SCALARS: 0, reader.TENSORS: 0})
        events.Reload()
        tags = events.Tags()
        for metric, tag in metrics.items():
            if tag in tags[reader.SCALARS]:
                for event in events.Scalars(tag):
                    found.log(event.step, metric, event.value, problems)
            elif tag in tags[reader.TENSORS]:
                for event in events.Tensors(tag):
                    found.log(event.step, metric, _scalar(event.tensor_proto), problems)
            else:
                problems.add(f"trials without the tag {tag}", 1, name)
        yield found


def _scalar(tensor: Any) -> object:
    """The value of a scalar summary that was written as a tensor."""
    if len(tensor.float_val) == 1:
        return float(tensor.float_val[0])
    if len(tensor.double_val) == 1:
        return float(tensor.double_val[0])
    content = tensor.tensor_content
    return memoryview(content).cast("f")[0] if len(content) == 4 else None
