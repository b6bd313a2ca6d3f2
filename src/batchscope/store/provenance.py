"""Where a run comes from: versions, hardware, command and commit."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from batchscope.machine.cores import processor_name
from batchscope.store.schema import SCHEMA_VERSION

_PACKAGES = ("batchscope", "torch", "numpy", "scipy", "polars", "safetensors", "scikit-learn", "pydantic")


def collect(**more: object) -> dict[str, Any]:
    """What is needed to judge and repeat a run, plus ``more`` (such as ``seed``). No host or user names."""
    return {
        "schema": SCHEMA_VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]] if sys.argv else [],
        "commit": _commit(),
        "versions": {"python": platform.python_version()} | _versions(),
        "platform": {
            "system": platform.system(),
            "release": platform.release(),
            "machine": platform.machine(),
        },
        "hardware": _hardware(),
        **more,
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _commit() -> str | None:
    """The commit of the folder that the run was started in, with ``+changes`` if files differ from it."""

    def git(*arguments: str) -> str:
        command = ["git", "--no-optional-locks", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _hardware() -> dict[str, Any]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found: dict[str, Any] = {"cpu": processor_name(), "cores": usable, "memory_bytes": _memory()}
    torch = sys.modules.get("torch")  # reading tables must not load it
    if torch is not None:
        found["torch_threads"] = torch.get_num_threads()
        if torch.cuda.is_available():
            found["cuda"] = torch.version.cuda
            found["devices"] = [torch.cuda.get_device_name(device) for device in range(torch.cuda.device_count())]
    return found


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
