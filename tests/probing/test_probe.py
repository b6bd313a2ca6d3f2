"""A probe: what it reports was run, memory that runs out stays where it ran out, and nothing else is changed."""

from __future__ import annotations

import copy
import json
import multiprocessing
import random
import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import batchscope as bs
from batchscope.cli.main import DONE, MISUSE, invoke
from batchscope.cli.probe import batch_sizes_of, print_probe
from batchscope.cli.show import console
from batchscope.errors import ProbeError, StudyError, WorkloadError
from batchscope.optim import OPTIMIZERS, RULES
from batchscope.probing import timings
from batchscope.probing.requests import Attempt, Fails, Fits, Timed, Visit
from batchscope.probing.timings import BatchSizeTimings
from batchscope.probing.updates import ProbeSetup, Trainer
from batchscope.schedules.micro_batches import accumulate_gradients
from probing import probe_workloads
from probing.probe_workloads import unpicklable
from rows import first

MIB = 2**20
HERE = Path(probe_workloads.__file__)
QUICK: dict[str, Any] = {"seconds": 0.02, "threads": 1, "device": "cpu"}
linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux")


def setup(**changes: Any) -> ProbeSetup:
    plain = ProbeSetup(
        workload="",
        data_dir=None,
        device="cpu",
        threads=1,
        optimizer="nesterov",
        dtype="float32",
        most_bytes=None,
        rank=0,
    )
    return replace(plain, **changes)


def test_a_probe_says_what_was_measured(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ["--batch-sizes", "1,16,48,200", "--seconds", "0.05", "--threads", "1", "--device", "cpu"]
    path = tmp_path / "probe.json"
    assert invoke(["probe", f"{HERE}:chatty", *arguments, "--json", "-o", str(path)]) == DONE
    shown = capfd.readouterr()
    probe = bs.Probe.from_json(path)
    assert json.loads(shown.out) == json.loads(path.read_text()) == json.loads(probe.to_json())
    assert "a line on standard output" in shown.err  # of the workload's code: no part of the document
    assert [batch.batch_size for batch in probe.batches] == [1, 16, 48, 200]
    assert probe.parameters == 6 * 8 + 8 + 8 * 2 + 2 and probe.gradient_bytes == 4 * probe.parameters
    assert (probe.device, probe.threads, probe.world_size, probe.dtype) == ("cpu", 1, 1, "float32")
    assert probe.workload == f"{HERE}:chatty" and probe.versions["torch"] == torch.__version__ and probe.device_name
    for batch in probe.batches:
        assert (batch.micro_batch_size, batch.accumulation_steps) == (batch.batch_size, 1)
        assert batch.step is not None and batch.step_with_data is not None and batch.peak_bytes is not None
        for spread in (batch.step, batch.step_with_data):
            assert 0 < spread.low <= spread.median <= spread.high < 1
        assert batch.examples_per_second == pytest.approx(batch.batch_size / batch.step.median)
        assert batch.updates > 0 and not batch.reason
        assert 0 < batch.peak_bytes < 200 * MIB
    model = probe.time_model
    assert model is not None and (model.smallest, model.largest) == (1, 200)
    assert model.error >= 0 and model.seconds(20) > 0


def test_the_table_names_what_it_shows(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    workload = unpicklable(probe_workloads.make())
    probe = bs.probe(workload, batch_sizes=[16, 150], max_micro_batch=64, **QUICK)
    print_probe(console(), probe)
    shown = capsys.readouterr().out
    for expected in (
        "micro batch",
        "accumulation",
        "ms a step",
        "with data",
        "examples/s",
        "peak memory",
        "74 parameters",
    ):
        assert expected in shown
    rows = [line.split() for line in shown.splitlines()]
    assert ["150", "50", "3"] in [row[:3] for row in rows]  # three equal parts, none above 64
    assert "more batch no longer helps" in shown or "the largest batch size is the fastest" in shown


@linux
@pytest.mark.slow
def test_what_does_not_fit_is_halved_until_it_runs() -> None:
    """8 examples need 6 x 64 MiB; 4 need 6 x 32 MiB."""
    probe = bs.probe(f"{HERE}:hungry", batch_sizes=[8], max_memory=300 * MIB, **QUICK)
    (batch,) = probe.batches
    assert (batch.micro_batch_size, batch.accumulation_steps) == (4, 2)
    assert batch.peak_bytes is not None and 3 * 32 * MIB <= batch.peak_bytes <= 300 * MIB
    assert not multiprocessing.active_children()


@linux
@pytest.mark.slow
def test_a_killed_process_is_an_attempt_that_did_not_fit() -> None:
    (batch,) = bs.probe(f"{HERE}:killed", batch_sizes=[12], **QUICK).batches
    assert (batch.micro_batch_size, batch.accumulation_steps) == (6, 2)


@linux
@pytest.mark.slow
def test_what_is_reported_kept_to_the_bound() -> None:
    """The allocator may have the little that an update needs from before: then only its peak tells."""
    with pytest.raises(ProbeError, match="not even one example at a time fits into memory: .*updates took .* MiB of"):
        bs.probe("digits/mlp-64", batch_sizes=[1], max_memory=2 * MIB, **QUICK)
    (batch,) = bs.probe("digits/mlp-64", batch_sizes=[16_000], max_memory=20 * MIB, **QUICK).batches
    assert batch.micro_batch_size is not None and batch.micro_batch_size < 16_000
    assert batch.peak_bytes is not None and batch.peak_bytes <= 20 * MIB


@linux
def test_memory_that_runs_out_in_this_process_is_caught_here() -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    bounds = []

    class Watched(probe_workloads.Limited):
        def forward(self, examples: Tensor) -> Tensor:
            bounds.append(resource.getrlimit(resource.RLIMIT_DATA))
            return super().forward(examples)

    workload = unpicklable(replace(probe_workloads.make(), model=lambda: Watched(4)))
    probe = bs.probe(workload, batch_sizes=[2, 8], max_memory=300 * MIB, **QUICK)
    assert [batch.micro_batch_size for batch in probe.batches] == [2, 4]
    assert all(batch.peak_bytes is None for batch in probe.batches)  # not to be told where other things run too
    assert before not in bounds and resource.getrlimit(resource.RLIMIT_DATA) == before


@pytest.mark.slow
def test_what_never_fits_has_a_reason() -> None:
    workload = unpicklable(replace(probe_workloads.make(), model=lambda: probe_workloads.Limited(0)))
    with pytest.raises(ProbeError, match=r"no update of tensors .*not even one example at a time fits.*MemoryError"):
        bs.probe(workload, batch_sizes=[2, 4], **QUICK)


@pytest.mark.slow
def test_memory_that_runs_out_later_begins_again_with_less() -> None:
    """As where something else has taken memory meanwhile: what was timed by then counts no more."""
    passes = []

    class Shrinking(probe_workloads.Limited):
        def forward(self, examples: Tensor) -> Tensor:
            passes.append(len(examples))
            self.limit = 8 if len(passes) < 7 else 2
            return super().forward(examples)

    workload = unpicklable(replace(probe_workloads.make(), model=lambda: Shrinking(8)))
    (batch,) = bs.probe(workload, batch_sizes=[8], **QUICK).batches
    assert (batch.micro_batch_size, batch.accumulation_steps) == (2, 4)
    assert passes[:7] == [8] * 7 and batch.step is not None
    assert batch.updates <= passes[7:].count(2) / 4


def test_a_size_that_failed_is_not_tried_again() -> None:
    """48 is tried at 24 and 12, not at 48, and 12 is the first below the 16 that did not fit."""
    tried = []

    class Watched(probe_workloads.Limited):
        def forward(self, examples: Tensor) -> Tensor:
            tried.append(len(examples))
            return super().forward(examples)

    workload = unpicklable(replace(probe_workloads.make(), model=lambda: Watched(13)))
    probe = bs.probe(workload, batch_sizes=[16, 48], **QUICK)
    assert [batch.micro_batch_size for batch in probe.batches] == [8, 12]
    assert [count for count in tried if count > 13] == [16]


def test_a_batch_size_that_cannot_be_computed_has_its_reason() -> None:
    probe = bs.probe(unpicklable(probe_workloads.with_batch_norm()), batch_sizes=[1, 8], **QUICK)
    one, eight = probe.batches
    assert one.micro_batch_size is None and one.step is None and "more than 1 value per channel" in one.reason
    assert eight.micro_batch_size == 8 and eight.step is not None
    assert probe.time_model is None and probe.saturation_batch_size is None


@pytest.mark.parametrize("make", first(1, ["of_dataset", "make", "of_iterable", "of_stream"]))
def test_every_kind_of_training_data(make: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timings, "MOST_OVERTIME", 1e4)  # a busy machine is timed with data too
    workload = unpicklable(getattr(probe_workloads, make)())
    probe = bs.probe(workload, batch_sizes=[3, 300], **QUICK)  # more than there are: epochs go on
    for batch in probe.batches:
        assert batch.micro_batch_size == batch.batch_size
        assert batch.step is not None and batch.step_with_data is not None


@pytest.mark.parametrize("of", ["other process", "this process"])
@pytest.mark.slow
def test_the_process_is_as_it_was(of: str) -> None:
    """To the bit: a model function that hands out the caller's own module, and every random state."""
    net = probe_workloads.normalised()
    net.eval()
    first = next(net.parameters())
    first.grad = torch.ones_like(first)
    workload = replace(probe_workloads.make(), model=probe_workloads.Handed(net))
    if of == "this process":
        workload = unpicklable(workload)
    before = copy.deepcopy(net.state_dict())
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)

    def state() -> list[Any]:
        numpy_state: Any = np.random.get_state()
        cudnn = torch.backends.cudnn
        return [
            random.getstate(),
            [part.tobytes() if isinstance(part, np.ndarray) else part for part in numpy_state],
            torch.get_rng_state().numpy().tobytes(),
            (cudnn.benchmark, cudnn.deterministic, cudnn.enabled),
            (torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype()),
        ]

    with torch.no_grad():
        expected = state()
        probe = bs.probe(workload, batch_sizes=[8, 16], threads=2, seconds=0.02)
        assert state() == expected
    assert probe.threads == 2 and probe.workload == "tensors"
    assert (probe.batches[0].peak_bytes is None) == (of == "this process")
    assert isinstance(workload.train, tuple) and not any(tensor.is_shared() for tensor in workload.train)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not any(module.training for module in net.modules())
    grads = [parameter.grad is not None for parameter in net.parameters()]
    assert grads == [True, False, False, False, False, False] and torch.all(first.grad == 1)


def test_accumulated_gradients_are_those_of_the_mean_over_the_batch() -> None:
    """13 examples by 5: parts of 5, 5 and 3, each counted by its share."""
    workload = probe_workloads.make()
    trainer = Trainer(workload, setup(optimizer="sgd"), own_process=False)
    inputs, targets = probe_workloads.INPUTS[:13], probe_workloads.LABELS[:13]
    parts = [((inputs[i : i + 5], targets[i : i + 5]), min(5, 13 - i) / 13) for i in (0, 5, 10)]
    model = trainer._model
    start = copy.deepcopy(model.state_dict())
    trainer.update(iter(parts))
    found = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    model.load_state_dict(start)
    whole = torch.autograd.grad(workload.loss(model(inputs), targets).mean(), list(model.parameters()))
    model.zero_grad()
    accumulate_gradients(lambda part: workload.loss(model(part[0]), part[1]).mean(), (inputs, targets), 5)
    assert len(found) == len(whole)
    for mine, exact, helper in zip(found, whole, model.parameters(), strict=True):
        assert helper.grad is not None
        torch.testing.assert_close(mine, exact)
        torch.testing.assert_close(mine, helper.grad)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_rule_is_timed_as_its_drop_in(optimizer: str) -> None:
    trainer = Trainer(probe_workloads.make(), setup(optimizer=optimizer), own_process=False)
    assert trainer._optimizer.rule(trainer._optimizer.param_groups[0]).name == optimizer
    before = [parameter.detach().clone() for parameter in trainer._model.parameters()]
    assert isinstance(trainer.answer(Attempt(8, 3)), Fits)
    assert isinstance(trainer.answer(Visit(8, 3, 1, with_data=True)), Timed)
    assert any(not torch.equal(now, was) for now, was in zip(trainer._model.parameters(), before, strict=True))


def test_a_class_of_the_users_is_timed_too() -> None:
    trainer = Trainer(probe_workloads.make(), setup(optimizer="torch.optim.NAdam"), own_process=False)
    assert type(trainer._optimizer) is torch.optim.NAdam
    assert isinstance(trainer.answer(Attempt(8, 3)), Fits)


OWN = "tests/spec/key_workloads.py:Decayed"
STUDY = f"""
workload: {HERE}:make
algorithm: {{optimizer: '{OWN}', average_weights: 0.9}}
batch_sizes: [4, 8]
search: {{space: {{learning_rate: 0.1, strength: [0.1, 0.2], clip_gradient_norm: [0.5, 1]}}}}
goals: ["validation/loss < 0.1"]
budget: {{steps: 10}}
"""


def test_a_study_is_updated_as_in_its_trials(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, written = tmp_path / "study.yaml", tmp_path / "probe.json"
    file.write_text(STUDY)
    assert invoke(["probe", str(file), "--seconds", "0.01", "--threads", "1", "-o", str(written)]) == DONE
    assert "clipped to a norm of 0.5" in capsys.readouterr().out
    found = bs.Probe.from_json(written)
    assert [batch.batch_size for batch in found.batches] == [4, 8] and all(batch.step for batch in found.batches)
    assert (found.optimizer, found.clip_gradient_norm, found.average_weights) == (OWN, 0.5, 0.9)
    with pytest.raises(StudyError, match="trains with .*Decayed, got --optimizer adam"):
        bs.probe(bs.Study.from_text(STUDY), optimizer="adam")


def test_updates_clip_and_average_as_torch_does() -> None:
    given = setup(optimizer="sgd", clip_gradient_norm=1e-3, average_weights=0.9)
    trainer = Trainer(probe_workloads.make(), given, own_process=False)
    for _ in range(2):
        trainer.update(iter([((probe_workloads.INPUTS, probe_workloads.LABELS), 1.0)]))
    gradients = [parameter.grad for parameter in trainer._model.parameters() if parameter.grad is not None]
    assert float(torch.nn.utils.get_total_norm(gradients)) == pytest.approx(1e-3, rel=1e-2)
    assert trainer._average is not None and int(trainer._average.n_averaged) == 2


def test_a_class_that_must_be_given_more_is_told_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    needy = "tests/spec/key_workloads.py:Needy"
    assert invoke(["probe", "digits/softmax", "--optimizer", needy, "--batch-sizes", "4"]) == MISUSE
    shown = capsys.readouterr().err
    assert (
        "Needy must be given strength" in shown and "batchscope probe study.yaml" in shown and "Traceback" not in shown
    )


def test_every_rule_has_a_drop_in() -> None:
    assert OPTIMIZERS.keys() == RULES.keys()


def test_bfloat16_is_autocast_with_parameters_in_float32() -> None:
    seen = []

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        seen.append(outputs.dtype)
        return probe_workloads.loss(outputs, targets)

    probe = bs.probe(replace(probe_workloads.make(), loss=loss), batch_sizes=[8], dtype="bfloat16", **QUICK)
    assert probe.dtype == "bfloat16" and set(seen) == {torch.bfloat16}
    assert probe.gradient_bytes == 4 * probe.parameters


def test_a_failed_update_leaves_no_gradient_behind() -> None:
    trainer = Trainer(probe_workloads.with_batch_norm(), setup(), own_process=False)
    assert isinstance(trainer.answer(Attempt(9, 4)), Fails)  # the last part is a single example
    assert all(parameter.grad is None for parameter in trainer._model.parameters())
    assert isinstance(trainer.answer(Attempt(9, 3)), Fits)


def test_slow_updates_and_slow_data_are_noted() -> None:
    timing = BatchSizeTimings(64, 64)
    timing.settle(64, [Fits(seconds=2.0, fetch_seconds=30.0, peak_bytes=None)])
    while timing.wants_more(1.0):
        visit = timing.next_visit(1.0)
        assert visit.updates == 1 and not visit.with_data
        timing.record([Timed(2.0, None, 4.0)])
    result = timing.result()
    assert result.updates == 1 and result.step_with_data is None
    assert "only one block" in result.note and "about 30 s" in result.note


def test_the_slowest_and_the_fullest_rank_count() -> None:
    timing = BatchSizeTimings(8, 4)
    timing.settle(4, [Fits(0.001, 0.0, 100), Fits(0.002, 0.0, 70)])
    for fast, slow in ((1.0, 3.0), (2.0, 4.0), (9.0, 5.0)):
        timing.next_visit(0.1)
        timing.record([Timed(fast, fast, 0.1), Timed(slow, slow, 0.2)])
    result = timing.result()
    assert result.step is not None and result.step.median == 4.0 and result.step.high == 4.5
    assert result.peak_bytes == 100 and result.examples_per_second == 2.0
    assert timing.spent == pytest.approx(0.6)


@pytest.mark.slow
def test_ranks_agree(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    arguments = [(rank, str(tmp_path / "meet"), answers) for rank in (0, 1)]
    ranks = [context.Process(target=probe_workloads.of_two_ranks, args=own) for own in arguments]
    for process in ranks:
        process.start()
    found = {rank: rest for rank, *rest in (answers.get(timeout=120) for _ in ranks)}
    for process in ranks:
        process.join(timeout=60)
        assert process.exitcode == 0
    first, second = (json.loads(found[rank][0]) for rank in (0, 1))
    assert first["batches"] == second["batches"] and first["time_model"] == second["time_model"]
    assert first["world_size"] == 2
    assert [batch["micro_batch_size"] for batch in first["batches"]] == [2, 4]  # of 16 a rank: 8 is too many for one
    assert [batch["accumulation_steps"] for batch in first["batches"]] == [1, 4]
    assert "rank 1 could not go on" in found[0][1][0] and "torch.nn.Module" in found[1][1][0]
    assert all("multiples of the 2 ranks, got 3" in found[rank][1][1] for rank in (0, 1))


@pytest.mark.slow
def test_the_default_list_is_powers_of_two_up_to_the_data() -> None:
    probe = bs.probe(unpicklable(probe_workloads.make()), seconds=0.001, device="cpu", threads=1)
    assert [batch.batch_size for batch in probe.batches] == [1, 2, 4, 8, 16, 32, 64, 128]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digits/sofmax"], "Did you mean digits/softmax"),
        (["missing.py:make"], "there is no workload file"),
        (["digits/softmax", "--batch-sizes", "0,8"], "from 1 to 16,777,216, got 0"),
        (["digits/softmax", "--batch-sizes", "8,x"], "a list as 1,8,64"),
        (["digits/softmax", "--batch-sizes", "64:8"], "from must not exceed to"),
        (["digits/softmax", "--batch-sizes", "1:8:2:2"], "from:to:factor"),
        (["digits/softmax", "--device", "gpu"], "no device is called 'gpu'"),
        (["digits/softmax", "--device", "meta"], "on cpu or cuda"),
        (["digits/softmax", "--seconds", "0"], "seconds must be above 0"),
        (["digits/softmax", "--optimizer", "nestrov"], "did you mean nesterov?"),
        (["digits/softmax", "--dtype", "float8"], "float32 or bfloat16"),
        (["digits/softmax", "--max-memory", "lots"], "write 8GiB"),
        (["digits/softmax", "--max-memory", "0"], "write 8GiB"),
        (["digits/softmax", "--max-micro-batch", "0"], "greater than or equal to 1"),
        (["digits/softmax", "-o", "no/such/folder/probe.json"], "there is no folder"),
    ],
)
def test_misuse_is_answered_in_words(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["probe", *arguments]) == MISUSE
    shown = capsys.readouterr()
    assert message in " ".join(re.sub(r"[│\n]", " ", shown.err).split()) and not shown.out
    assert "Traceback" not in shown.err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_misuse() -> None:
    with pytest.raises(StudyError, match="no CUDA device is available"):
        bs.probe("digits/softmax", device="cuda")


def test_a_wrong_model_is_a_workload_error() -> None:
    workload = replace(probe_workloads.make(), model=lambda: 3)  # type: ignore[return-value, arg-type]
    with pytest.raises(WorkloadError, match=r"must return a torch.nn.Module"):
        bs.probe(workload, batch_sizes=[1], **QUICK)


def test_a_wrong_loss_is_a_workload_error_at_once() -> None:
    with pytest.raises(WorkloadError, match=r"one value per example, shape \(4,\), got \(\)"):
        bs.probe(unpicklable(probe_workloads.wrong_loss()), batch_sizes=[4, 8], **QUICK)


def test_lists_of_batch_sizes() -> None:
    assert batch_sizes_of("8,1,64") == [8, 1, 64]
    assert batch_sizes_of("1:16") == [1, 2, 4, 8, 16] and batch_sizes_of("10:1000:10") == [10, 100, 1000]


@pytest.mark.slow
def test_the_page_is_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text(
        "workload: digits/softmax\nbatch_sizes: [8, 32]\ngoals: ['validation/error < 0.2']\nbudget: {epochs: 1}\n"
        "search: {trials: 4, space: {learning_rate: {min: 0.01, max: 1, scale: log}, momentum: 0.9}}\n"
    )
    page = (Path(__file__).parents[2] / "docs" / "probe.md").read_text()
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (commands,) = (text for kind, text in blocks if kind == "bash")
    for command in commands.splitlines():
        assert invoke([*shlex.split(command, comments=True)[1:], "--seconds", "0.01", "--threads", "1"]) == DONE
    assert bs.Probe.from_json("probe.json").batches[-1].batch_size == 1024
    (code,) = (text for kind, text in blocks if kind == "python")
    exec(compile(code, "probe.md", "exec"), {})


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    states = torch.cuda.get_rng_state_all()
    for workload in (f"{HERE}:make", unpicklable(probe_workloads.make())):
        probe = bs.probe(workload, batch_sizes=[8, 128], device="cuda", seconds=0.1)
        for batch in probe.batches:
            assert batch.step is not None and batch.step_with_data is not None
            assert batch.peak_bytes is not None and batch.peak_bytes >= probe.gradient_bytes
    assert all(torch.equal(*pair) for pair in zip(torch.cuda.get_rng_state_all(), states, strict=True))
