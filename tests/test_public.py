"""The public surface is one list, and importing the package costs next to nothing."""

from __future__ import annotations

import subprocess
import sys

import batchscope as bs

PUBLIC = {
    "BatchscopeError",
    "ByHand",
    "Goal",
    "Probe",
    "Run",
    "Stream",
    "Study",
    "Workload",
    "branch",
    "meters",
    "nn",
    "open_run",
    "optim",
    "predict",
    "probe",
    "recommend",
    "run",
    "schedules",
}


def test_the_public_names_are_these_and_all_of_them_load() -> None:
    assert set(bs.__all__) == PUBLIC
    for name in PUBLIC:
        assert getattr(bs, name) is not None
    assert set(dir(bs)) == PUBLIC | {"__version__"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(bs, "nonsense")


def test_importing_the_package_loads_no_torch() -> None:
    code = "import sys, batchscope, batchscope.cli.main; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_analysing_tables_loads_no_torch() -> None:
    code = "import sys, batchscope.analysis; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
