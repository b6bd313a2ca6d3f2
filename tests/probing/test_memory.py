"""Memory: what is available, a bound that makes allocations fail, the peak of a stretch of work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from batchscope.machine.memory import available_bytes
from batchscope.probing.memory_bound import bounded, is_out_of_memory

MIB = 2**20
linux = pytest.mark.skipif(sys.platform != "linux", reason="the bound is Linux's")


def test_what_allocators_say_is_known() -> None:
    for error in (
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
        RuntimeError("could not create a memory object"),
    ):
        assert is_out_of_memory(error)
    for other in (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("out of memory")):
        assert not is_out_of_memory(other)


def in_a_process(code: str) -> list[str]:
    """The words that code prints where no test before has left freed memory to take again."""
    start = (
        "import torch\nfrom batchscope.probing import memory_bound as memory\nMIB, CPU = 2**20, torch.device('cpu')\n"
    )
    done = subprocess.run([sys.executable, "-c", start + code], check=True, capture_output=True, text=True)
    return done.stdout.split()


@linux
def test_beyond_the_bound_an_allocation_fails_and_after_it_works() -> None:
    code = """
held = torch.zeros(64 * MIB)  # before the bound: not counted
with memory.bounded(CPU, 64 * MIB):
    inside = torch.zeros(8 * MIB)  # 32 MiB
    for allocate in (lambda: torch.zeros(16 * MIB), lambda: bytearray(128 * MIB)):
        try:
            allocate()
        except (RuntimeError, MemoryError) as error:
            print(memory.is_out_of_memory(error))
print(torch.zeros(16 * MIB).numel() // MIB)
"""
    assert in_a_process(code) == ["True", "True", "16"]


@linux
def test_bounds_nest_and_are_restored() -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    with bounded(torch.device("cpu"), 64 * MIB):
        tight = resource.getrlimit(resource.RLIMIT_DATA)
        with bounded(torch.device("cpu"), 512 * MIB):
            assert resource.getrlimit(resource.RLIMIT_DATA) == tight  # the outer one holds too
    with bounded(torch.device("cpu"), None):
        assert resource.getrlimit(resource.RLIMIT_DATA) == before
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


@linux
@pytest.mark.slow
def test_the_peak_is_of_the_stretch_not_of_the_past() -> None:
    code = """
peak = memory.PeakMemory(CPU, own_process=True)
torch.ones(64 * MIB)
print(peak.read() // MIB)
peak.reset()
kept = torch.ones(16 * MIB)
print(peak.read() // MIB)
"""
    first, second = map(int, in_a_process(code))
    assert 256 <= first < 256 + 16
    assert 64 <= second < 64 + 16


@linux
@pytest.mark.slow
def test_memory_freed_before_does_not_hide_what_is_taken_again() -> None:
    code = """
small = [torch.ones(1000) for _ in range(20_000)]  # 80 MB that the allocator keeps
last = small[-1]
del small
peak = memory.PeakMemory(CPU, own_process=True)
for _ in range(2):
    peak.reset()
    again = [torch.ones(1000) for _ in range(10_000)]
    print(peak.read() // MIB)
    del again
"""
    for growth in map(int, in_a_process(code)):
        assert 38 <= growth < 38 + 16


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_available_is_the_least_of_kernel_and_groups(tmp_path: Path) -> None:
    assert available_bytes(tmp_path) is None
    write(tmp_path, {"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable:    4000 kB\n"})
    assert available_bytes(tmp_path) == 4000 * 1024
    group = "sys/fs/cgroup/outer/inner"
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/outer/inner\n",
            f"{group}/memory.max": "max\n",
            f"{group}/memory.current": "500\n",
            "sys/fs/cgroup/outer/memory.max": "1000000\n",
            "sys/fs/cgroup/outer/memory.current": "400000\n",
            "sys/fs/cgroup/outer/memory.stat": "anon 300000\ninactive_file 100000\n",
        },
    )
    assert available_bytes(tmp_path) == 1_000_000 - 400_000 + 100_000  # the outer group's limit holds inside it


def test_groups_of_the_first_version(tmp_path: Path) -> None:
    base = "sys/fs/cgroup/memory/mine"
    write(
        tmp_path,
        {
            "proc/meminfo": "MemAvailable:    4000 kB\n",
            "proc/self/cgroup": "9:name=systemd:/\n4:memory:/mine\n0::/\n",
            f"{base}/memory.limit_in_bytes": "2000000\n",
            f"{base}/memory.usage_in_bytes": "1500000\n",
            f"{base}/memory.stat": "cache 9\ntotal_inactive_file 250000\n",
        },
    )
    assert available_bytes(tmp_path) == 750_000
