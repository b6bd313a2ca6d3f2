"""What falls back, is left out and is limited in worker processes, which know a workload by its file only."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import batchscope as bs
from batchscope.cli.main import DONE, invoke
from batchscope.engine.choice import PROGRAMS
from batchscope.runs import Run

WORKLOAD = '''
"""A program that breaks at its fifth step, as no module does at once; and a model with batch norm."""
from pathlib import Path

import torch

import batchscope as bs
from batchscope.engine.choice import PROGRAMS
from batchscope.engine.vmap import Vmap


class Breaking(Vmap):
    def train(self, state, settings, start, until):
        if until >= 5:
            raise RuntimeError("view size is not compatible")
        return super().train(state, settings, start, until)


def breaking():
    PROGRAMS["vmap"] = Breaking
    return make(torch.nn.Identity)


def normalised():
    return make(lambda: torch.nn.BatchNorm1d(8))


def counted():
    Path(__file__).with_name("threads").write_text(str(torch.get_num_threads()))
    return make(torch.nn.Identity)


def rotary():
    class Turned(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("turn", torch.tensor([1j]))

        def forward(self, inputs):
            return torch.view_as_real(torch.view_as_complex(inputs.unflatten(-1, (4, 2))) * self.turn).flatten(-2)

    return make(Turned)


def make(norm):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(64, 3, generator=generator)
    model = lambda: torch.nn.Sequential(torch.nn.Linear(3, 8), norm(), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    loss = lambda outputs, targets: torch.nn.functional.cross_entropy(outputs, targets, reduction="none")
    pair = (inputs, (inputs[:, 0] > 0.5).long())
    return bs.Workload(model=model, loss=loss, train=pair, validation=pair)
'''
STUDY = """
workload: {file}:{function}
algorithm: {{optimizer: sgd}}
batch_sizes: [4, 8]
search: {{trials: 4, space: {{learning_rate: {{min: 1e-2, max: 1e-1, scale: log}}}}, confirm: {{seeds: 0}}}}
goals: ["validation/loss < 0.0001"]
budget: {{steps: 12}}
engine: {{dtype: float64}}
"""


def ask(folder: Path, function: str, *overrides: str) -> bs.Study:
    (folder / "mine.py").write_text(WORKLOAD)
    return bs.Study.from_text(STUDY.format(file=folder / "mine.py", function=function), list(overrides))


def losses(run: Run) -> list[float]:
    found: list[float] = run.measurements.sort("trial", "step").collect()["validation/loss"].to_list()
    return found


@pytest.mark.slow
def test_the_loop_goes_on_in_a_worker_where_a_program_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROGRAMS, "vmap", PROGRAMS["vmap"])  # put back after the workload has broken it here too
    pinned = "engine={program: vmap, dtype: float64, pack_size: 2}"
    run = bs.run(ask(tmp_path, "breaking", pinned), tmp_path / "run", workers=2)
    assert run.provenance["workers"] == 2
    for size in ("4", "8"):
        choice = run.provenance["choices"][size]
        assert choice["program"] == "loop" and "view size is not compatible" in choice["reasons"]["vmap"]
        assert any(f"batch size {size} went on with engine.program=loop" in each for each in run.warnings)
    study = ask(tmp_path, "breaking", "engine={program: loop, dtype: float64, pack_size: 2}")
    plain = bs.run(study, tmp_path / "plain", workers=0)
    assert losses(run) == pytest.approx(losses(plain), rel=1e-9)


def test_a_batch_size_that_cannot_be_trained_is_left_out_by_workers_and_named_beforehand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = ask(tmp_path, "normalised", "batch_sizes=[1, 4]")
    run = bs.run(study, tmp_path / "run", workers=2)
    assert set(run.trials["batch_size"]) == {4} and run.provenance["skipped"].keys() == {"1"}
    assert any("batch size 1 is left out" in each and "two examples or more" in each for each in run.warnings)
    text = STUDY.format(file=tmp_path / "mine.py", function="normalised")
    (tmp_path / "study.yaml").write_text(text)
    assert invoke(["run", str(tmp_path / "study.yaml"), "batch_sizes=[1, 4]", "--dry-run"]) == DONE
    shown = " ".join(capsys.readouterr().out.split())
    assert "batch size 1 would be left out, because its updates fail" in shown and "more than 1 value" in shown


def test_a_complex_buffer_is_kept_with_the_weights(tmp_path: Path) -> None:
    study = ask(tmp_path, "rotary", "keep=best", 'goals=["validation/loss < 10"]', "engine.dtype=float32")
    run = bs.run(study, tmp_path / "run", workers=0)
    weights = [load_file(path) for path in run.folder.rglob("*.safetensors")]
    assert weights and all(torch.equal(own["1.turn"], torch.tensor([1j])) for own in weights if "1.turn" in own)
    assert any("1.turn" in own for own in weights)


@pytest.mark.parametrize(("limit", "threads"), [("", 4), ("3", 3), ("16", 4)])
def test_threads_are_a_workers_share_and_no_more_than_the_environment_allows(
    limit: str, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", limit)
    monkeypatch.setattr("batchscope.runs.workers_and_packs.available_cores", lambda: 8)
    run = bs.run(ask(tmp_path, "counted", "budget.steps=2", "engine.program=loop"), tmp_path / "run", workers=2)
    assert (run.provenance["workers"], run.provenance["threads"]) == (2, threads)
    assert (tmp_path / "threads").read_text() == str(threads)


@pytest.mark.slow
def test_the_progress_says_that_programs_are_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask(tmp_path, "normalised")
    (tmp_path / "study.yaml").write_text(STUDY.format(file=tmp_path / "mine.py", function="normalised"))
    folder = tmp_path / "run"
    assert invoke(["run", str(tmp_path / "study.yaml"), "-o", str(folder), "--workers", "0"]) == DONE
    told = " ".join(capsys.readouterr().err.split())
    assert re.search(r"0% done, .*timing the programs of batch size 4, 8", told)
    assert json.loads((folder / "provenance.json").read_text())["choices"].keys() == {"4", "8"}
