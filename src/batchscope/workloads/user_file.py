"""A user's workload: ``path/to/file.py:function``."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from batchscope.errors import WorkloadError
from batchscope.spec.workload import Workload
from batchscope.user_file import content, imported, named_failure, on_the_path


def load_file(reference: str, data_dir: str | Path | None = None) -> Workload:
    """Import ``path/to/file.py`` and call its ``function``, with ``data_dir`` where it has such a parameter.

    The file can import what lies beside it, as a script can. A workload without a name is called
    ``file.py:function``; one without a version gets the hash of the file's code, so that trials of an
    edited file are never taken for trials of the old one; comments and docstrings are free.

    Raises:
        WorkloadError: If the file or the function is not there, fails, or gives no ``Workload``.
    """
    file, _, function = reference.rpartition(":")
    if not file or function.endswith(".py"):
        raise WorkloadError(f"name the function of the workload file too: {reference}:FUNCTION")
    path = Path(file).expanduser().resolve()
    if not path.is_file():
        raise WorkloadError(
            f"there is no workload file {path}: name one that is there, or write one with\n"
            f"  batchscope init {shlex.quote(file)}"
        )
    with on_the_path(path.parent):
        build = _function(imported(path, "workload"), function, path)
        with named_failure(path, f"{function}() failed"):
            parameters = inspect.signature(build).parameters
            workload = build(**({"data_dir": data_dir} if "data_dir" in parameters else {}))
    if not isinstance(workload, Workload):
        raise WorkloadError(
            f"{reference}: {function}() must return a batchscope.Workload, got {type(workload).__name__}"
        )
    return replace(
        workload,
        name=workload.name or f"{path.name}:{function}",
        version=workload.version or content(path),
    )


def _function(module: ModuleType, name: str, path: Path) -> Callable[..., Any]:
    own = [
        other
        for other, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not other.startswith("_")
    ]
    found = getattr(module, name, None)
    if callable(found):
        return found  # type: ignore[no-any-return]
    fault = f"has no function {name!r}" if found is None else f"has {name!r}, which is no function"
    has = ", ".join(f"{path.name}:{other}" for other in own) or "no function at all"
    raise WorkloadError(f"{path} {fault}; it has {has}")
