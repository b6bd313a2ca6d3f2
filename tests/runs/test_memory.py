"""Memory: what is estimated is what is taken, and a limit is kept."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from batchscope import runs
from batchscope.engine.choice import ProgramChoice
from batchscope.engine.training import Loaded
from batchscope.errors import StudyError
from batchscope.executors.worker import Worker
from batchscope.machine.memory import available_bytes
from batchscope.plan.race import SearchRound, StepRange, Unit
from batchscope.plan.sampling import first_trials
from batchscope.runs.demand import Demand, MiB, demand
from batchscope.runs.memory_plan import fit
from batchscope.runs.preflight import timelines_of
from batchscope.runs.workers_and_packs import lay_out
from engine.workbench import classification, study
from engine.zoo import MODELS

NEED = Demand(
    libraries=400 * MiB,
    data=100 * MiB,
    state=MiB,
    step={8: 2 * MiB, 512: 50 * MiB},
    evaluation=MiB,
    trials=20,
    loops=False,
)
PACKS = {8: [1, 4, 8, 16, 20], 512: [1, 4, 8, 16, 20]}


def test_a_limit_takes_workers_first_then_states_to_disk_then_packs() -> None:
    free = fit(NEED, 2, PACKS, None)
    assert (free.workers, free.pack_limits, free.held_bytes) == (2, {8: 20, 512: 20}, None)
    # Libraries of driver and workers, data, and 20 trials of 3 states and a step for each worker; 40 states are kept.
    assert free.bytes == (3 * 400 + 100 + 2 * 20 * (3 + 50) + 40) * MiB
    one = fit(NEED, 2, PACKS, free.bytes - 41 * MiB)
    assert one.workers == 1 and one.pack_limits[512] == 20 and one.held_bytes is None
    spilled = fit(NEED, 2, PACKS, free.bytes - 30 * MiB)
    assert spilled.workers == 2 and spilled.held_bytes == 5 * MiB
    small = fit(NEED, 2, PACKS, (2 * 400 + 100 + 8 * 53) * MiB)
    assert small.workers == 1 and small.pack_limits == {8: 20, 512: 8} and small.held_bytes == 0
    with pytest.raises(StudyError) as caught:
        fit(NEED, 2, PACKS, (2 * 400 + 100 + 52) * MiB)
    assert "one worker with 1 trial at once needs about 953 MiB at batch size 512" in str(caught.value)
    assert "--max-memory 1001MiB" in str(caught.value)
    pinned = {8: [16], 512: [16]}
    with pytest.raises(StudyError, match=r"type a smaller pack \(engine\.pack_size=8\)"):
        fit(NEED, 2, pinned, 1000 * MiB)
    loops = replace(NEED, loops=True)  # one trial's step at a time, whatever the pack
    assert fit(loops, 2, PACKS, None).bytes == (3 * 400 + 100 + 2 * (20 * 3 + 50) + 40) * MiB


@pytest.mark.parametrize(
    ("overrides", "workers"), [(("search.trials=1",), 1), (("search.trials=2", "engine.pack_size=2"), 1), ((), 2)]
)
def test_no_more_workers_than_groups_and_no_idle_core(
    overrides: tuple[str, ...], workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchscope.runs.workers_and_packs.available_cores", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    asked = study(*(overrides or ("search.trials=2", "engine.pack_size=1")), "engine.threads=auto")
    need = replace(NEED, step={8: MiB})
    layout = lay_out(asked, need, None, "cpu", {}, None, 2**50)
    assert (layout.workers, layout.threads) == (workers, 4 // workers)
    assert lay_out(asked, need, 3, "cpu", {}, None, 2**50).workers == 3  # what is asked for is done
    assert lay_out(asked, need, None, "cpu", {}, 3, 2**50).threads == 3  # a run goes on with the threads it began with


def test_what_is_available_is_the_least_of_machine_and_control_groups(tmp_path: Path) -> None:
    def write(name: str, text: str) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    assert available_bytes(tmp_path) is None
    write("proc/meminfo", "MemTotal: 9000 kB\nMemAvailable:    8000 kB\n")
    assert available_bytes(tmp_path) == 8000 * 1024
    write("proc/self/cgroup", "0::/outer/inner\n")
    for group, limit in (("outer/inner", "max"), ("outer", "5000000")):
        write(f"sys/fs/cgroup/{group}/memory.max", limit)
        write(f"sys/fs/cgroup/{group}/memory.current", "3000000")
        write(f"sys/fs/cgroup/{group}/memory.stat", "anon 2000000\ninactive_file 1000000\n")
    assert available_bytes(tmp_path) == 3_000_000


def test_the_state_and_the_activations_of_a_network_are_those_of_its_shapes() -> None:
    asked, workload = study("engine.dtype=float32", "batch_sizes=[8, 4096]"), classification()
    found = demand(asked, workload, timelines_of(asked, workload), "cpu")
    parameters = 6 * 12 + 12 + 12 * 3 + 3
    assert found.state == 2 * 4 * parameters  # with the momentum
    assert found.data == 300 * (6 * 4 + 8)
    assert found.own == 200 * 16  # the orders of two epochs
    changes = ["evaluation.train_examples=50", "search.confirm.seeds=2"]
    asked = study("engine.dtype=float32", *changes)
    own = demand(asked, workload, timelines_of(asked, workload), "cpu").own
    assert own == 3 * 200 * 16 + 50 * (6 * 4 + 8)  # of every replicate, and the sample
    # A step keeps the hidden layer, the mask of the dropout and what came of it, and the outputs of every example.
    least = 4 * (6 + 12 + 12 + 3)
    assert least <= (found.step[4096] - found.step[8]) / (4096 - 8) <= 4 * least


def test_sparse_gradients_are_counted_by_their_rows() -> None:
    workload = MODELS["sparse embedding"]()
    asked = study("engine.dtype=float32", "batch_sizes=[8, 4096]")
    found = demand(asked, workload, timelines_of(asked, workload), "cpu")
    row = 5 * (8 + 4 * 8)  # of five tokens the index and the gradient
    assert row <= (found.step[4096] - found.step[8]) / (4096 - 8) <= 8 * row


def test_states_beyond_the_limit_wait_on_disk_and_change_nothing(tmp_path: Path) -> None:
    states = []
    for number, limit in enumerate((None, 0)):
        kept: dict[str, object] = {}

        class Kept:
            def save(self, name: str, state: dict[str, torch.Tensor]) -> None:
                kept[name] = {key: value.clone() for key, value in state.items()}  # noqa: B023

            def keep(self, name: str, weights: dict[str, torch.Tensor]) -> None:
                raise AssertionError("the study keeps none")

            def load(self, name: str) -> dict[str, torch.Tensor] | None:
                return kept.get(name)  # type: ignore[return-value] # noqa: B023

        asked = study("engine.program=loop", "engine.pack_size=1", "search.trials=3")
        loaded = Loaded(classification(), asked, torch.device("cpu"))
        worker = Worker(loaded, Kept(), "context", held_bytes=limit)
        trials = first_trials(asked.search, 8, 0, 3)
        found = []
        for until in (2, 4):
            for group, trial in enumerate(trials):
                step_ranges = tuple(StepRange(step, (trial.index,)) for step in (2, 4) if step <= until)
                result = worker.run(
                    Unit(SearchRound(8), group, step_ranges, (until,), (trial,)), ProgramChoice("loop", 1)
                )
                assert result is not None
                found.append(result.evaluations.metrics["train/running_loss"])
        assert len(kept) == (0 if number == 0 else 3)
        states.append(found)
    assert states[0] == states[1]


# The peak that getrusage tells may be that of the process that started this one: only /proc tells its own.
PEAK = """
import re, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from batchscope import runs, workloads
from batchscope.runs.demand import demand
from batchscope.runs.workers_and_packs import lay_out
from batchscope.runs.preflight import timelines_of
from batchscope.spec.study import Study
study = Study.from_yaml(sys.argv[1])
workload = workloads.load(study.workload)
if "cnn" in sys.argv[2]:
    from dataclasses import replace
    from batchscope.models import SimpleCNN
    inputs = torch.rand(1500, 1, 28, 28)
    labels = torch.randint(10, (1500,))
    workload = replace(workload, model=SimpleCNN, train=(inputs, labels), validation=(inputs[:500], labels[:500]))
need = demand(study, workload, timelines_of(study, workload), "cpu")
print(lay_out(study, need, 0, "cpu", {}, None, 2**50).fit.bytes, need.libraries)
runs.run(study, sys.argv[3], workload=workload)
print(1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    ("kind", "engine"),
    [
        ("mlp", "{program: vmap, pack_size: 4}"),
        ("cnn", "{program: loop, pack_size: 2}"),
        ("cnn", "{program: vmap, pack_size: 2}"),
    ],
)
def test_the_estimate_is_within_a_factor_of_two_of_the_measured_peak(kind: str, engine: str, tmp_path: Path) -> None:
    """Of the whole process, and of what it takes beyond the libraries where that is the greater part."""
    (tmp_path / "study.yaml").write_text(
        f"""
workload: digits/mlp-64
batch_sizes: [512]
search: {{trials: 4, space: {{learning_rate: {{min: 1e-3, max: 1e-2, scale: log}}, momentum: 0.9}}}}
goals: ["validation/error < 1e-9"]
budget: {{steps: 1}}
evaluation: {{ratio: 4}}
engine: {engine}
"""
    )
    command = [sys.executable, "-c", PEAK, str(tmp_path / "study.yaml"), kind, str(tmp_path / "run")]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    estimated, libraries, measured = map(int, found)
    assert 0.5 < estimated / measured < 2
    beyond = (estimated - libraries) / (measured - libraries)
    print(kind, engine, estimated // MiB, libraries // MiB, measured // MiB, f"{beyond:.2f}")
    if kind == "cnn":
        assert math.log2(beyond) == pytest.approx(0, abs=1)


def test_a_run_that_does_not_fit_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"the limit is 64 MiB; type .*--max-memory \d+MiB"):
        runs.run(study(), tmp_path / "run", workload=classification(), max_memory="64MiB")
    assert not (tmp_path / "run").exists()
