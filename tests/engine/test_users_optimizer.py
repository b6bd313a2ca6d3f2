"""An optimizer of the user's: the plain loop by hand, packs, interruption, and what is refused before training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from batchscope.engine.choice import choose
from batchscope.engine.loop import Loop
from batchscope.engine.pack import Pack
from batchscope.engine.program import Program, advance
from batchscope.engine.training import Training
from batchscope.errors import StudyError, WorkloadError
from batchscope.optim.users_own import load
from batchscope.plan.sampling import first_trials
from engine.workbench import Plain, classification, study, training

# Numbers of its own in the state and in the group, and a state that comes with the first step.
MINE = """
import torch

class Mine(torch.optim.Optimizer):
    def __init__(self, params, lr=0.1, strength=0.5, every=2, betas=(0.9, 0.99)):
        super().__init__(params, dict(lr=lr, strength=strength, every=every, betas=betas, seen=0))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            group["seen"] += 1
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state.update(mean=torch.zeros_like(p), count=0, trust=1.0)
                state["count"] += 1
                state["trust"] *= group["betas"][0]
                state["mean"].lerp_(p.grad, 1 / state["count"])
                if group["seen"] % group["every"] == 0:
                    p.mul_(1 - group["lr"] * group["strength"] * state["trust"])
                p.add_(state["mean"] + 0.01 * torch.randn_like(p), alpha=-group["lr"])
"""
SPACE = "search.space={learning_rate: {min: 1e-3, max: 1e-1, scale: log}, "


@pytest.fixture(params=["torch.optim.NAdam", "torch.optim.SGD", "mine"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Training:
    (tmp_path / "mine.py").write_text(MINE)
    name, further = {
        "torch.optim.NAdam": ("torch.optim.NAdam", "beta1: 0.8, beta2: 0.95, weight_decay: {min: 0, max: 0.1}}"),
        "torch.optim.SGD": ("torch.optim.SGD", "momentum: [0, 0.9]}"),  # whose state some trials have, and others not
        "mine": (f"{tmp_path / 'mine.py'}:Mine", "strength: {min: 0.1, max: 0.9}, every: [1, 3]}"),
    }[request.param]
    return training(None, f"algorithm.optimizer={name}", SPACE + further, "engine.program=loop")


def run(program: Program, packs: list[int], stops: tuple[int, ...] = (6,), resume: bool = False) -> dict[str, Tensor]:
    """The states of some trials after the last stop, whatever the packs."""
    trials = first_trials(program.training.loaded.study.search, 8, 0, sum(packs))
    states, context = [], "context"
    for start, size in zip([sum(packs[:i]) for i in range(len(packs))], packs, strict=True):
        pack = Pack.fresh(program.training, trials[start : start + size])
        for stop in stops:
            advanced = advance(program, pack, stop, (stop,))
            assert advanced is not None
            pack = advanced[0]
            if resume:
                found = Pack.from_tensors(pack.to_tensors(context), pack.trials, context, torch.device("cpu"))
                assert found is not None
                pack = found
        states.append(pack.state)
    return {name: torch.cat([state[name] for state in states]) for name in states[0]}


def test_packs_and_interruption_change_no_bit(bench: Training) -> None:
    whole = run(Loop(bench), [5])
    assert any(name.startswith("optimizer/") for name in whole)
    for packs in ([1] * 5, [2, 2, 1]):
        for name, value in run(Loop(bench), packs).items():
            assert torch.equal(value, whole[name]), (packs, name)
    for name, value in run(Loop(bench), [2, 3], (1, 3, 6), resume=True).items():
        assert torch.equal(value, whole[name]), name


def test_it_is_the_plain_loop() -> None:
    space = SPACE + "beta1: 0.8, beta2: 0.95, momentum_decay: 0.01}"
    changes = ("algorithm={optimizer: torch.optim.NAdam, weight_decay: 0.1, clip_gradient_norm: 0.5}", space)
    cosine = "algorithm.learning_rate_schedule={name: cosine, decay_steps: 20}"
    bench = training(classification(lambda: Plain(0.0)), *changes, cosine)
    trial = first_trials(bench.loaded.study.search, 8, 0, 1)[0]
    rate, model = float(trial.hyperparameters["learning_rate"]), bench.loaded.module(trial.seed)
    optimizer = torch.optim.NAdam(model.parameters(), rate, (0.8, 0.95), weight_decay=0.1, momentum_decay=0.01)
    for step in range(6):
        for group in optimizer.param_groups:
            group["lr"] = rate * float(bench.timeline.factors(step, step + 1, {}))
        inputs, targets = bench.batch(step)
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()  # type: ignore[no-untyped-call, arg-type]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
    found = run(Loop(bench), [1])
    for name, value in model.named_parameters():
        torch.testing.assert_close(found[f"parameter/{name}"][0], value.detach(), rtol=1e-12, atol=1e-14)


def test_weights_are_averaged_beside_it_as_beside_a_rule() -> None:
    changes = (SPACE + "average_weights: 0.9, beta1: 0.9, beta2: 0.99}", "engine.program=loop")
    ours, theirs = (training(None, f"algorithm.optimizer={name}", *changes) for name in ("adam", "torch.optim.Adam"))
    expected, found = run(Loop(ours), [3]), run(Loop(theirs), [3])
    for name in (name for name in expected if name.startswith(("parameter/", "slot/weight_average/"))):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-9, atol=1e-11)


def test_other_programs_are_refused_and_auto_takes_the_loop() -> None:
    bench = training(None, "algorithm.optimizer=torch.optim.RAdam", SPACE + "weight_decay: 0}")
    trials = first_trials(bench.loaded.study.search, 8, 0, 3)
    engine = bench.loaded.study.engine
    assert choose(bench, trials, engine.model_copy(update={"program": "auto"})).choice.program == "loop"
    with pytest.raises(WorkloadError, match=r"torch.optim.RAdam is a class that moves .* needs engine.program: loop"):
        choose(bench, trials, engine)


THEIRS = """
import torch

class Theirs(torch.optim.Optimizer):
    count = 0

    def __init__(self, params, lr):
        super().__init__(params, dict(lr=lr, when=""))

    @torch.no_grad()
    def step(self):
        self.count += 1
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                LINE
"""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("p.add_(self.count)", "keeps more than its state .* its next step differs"),
        ("state['words'] = 'x'", "keeps 'words', which is neither a tensor nor a number but str"),
        ("state['list'] = [p.clone()]", "keeps 'list', which is neither a tensor nor a number but list"),
        ("group['when'] += 'x'", "keeps something in its param_groups that is neither"),
        ("state['grown'] = torch.zeros(self.count)", r"keeps 'grown' first as .*\(2,\) and then as .*\(3,\)"),
        ("state[str(self.count // 3)] = 1", "keeps state of a name that its first steps did not have, '1'"),
        ("self.state['total'] = {}", "keeps state that belongs to no parameter"),
        ("1 / 0", "cannot be used with learning_rate=0.001: ZeroDivisionError"),
    ],
)
def test_what_no_checkpoint_holds_is_refused_by_name(line: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "theirs.py").write_text(THEIRS.replace("LINE", line))
    with pytest.raises(StudyError, match=message):
        assert training(
            None, f"algorithm.optimizer={tmp_path / 'theirs.py'}:Theirs", SPACE + "}"
        ).loaded.users_optimizer


@pytest.mark.parametrize(
    ("name", "space", "message"),
    [
        (
            "NAdam",
            "momentum: 0.9}",
            r"space.momentum: .*NAdam takes no number called momentum; it takes learning_rate, ",
        ),
        ("NAdamm", "weight_decay: 0}", r"NAdamm is not there; torch.optim has .*NAdam, "),
        ("LBFGS", "tolerance_grad: 0}", r"LBFGS cannot be used with .*missing 1 required .*'closure'"),
        ("NAdam", "weight_decay: [0, -1]}", r"weight_decay=-1.*Invalid weight_decay value"),
    ],
)
def test_what_a_class_does_not_take_is_refused_by_name(name: str, space: str, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        assert training(None, f"algorithm.optimizer=torch.optim.{name}", SPACE + space).loaded.users_optimizer


def test_a_class_that_is_evaluated_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE + "\n    def eval(self):\n        pass\n\nnumber = 3\n")
    for name, message in (("Mine", "is evaluated at weights of its own"), ("number", "must be a class made from")):
        with pytest.raises(StudyError, match=message):
            load(f"{tmp_path / 'mine.py'}:{name}")
    with pytest.raises(WorkloadError, match="has no 'Mina'; it has Mine"):
        load(f"{tmp_path / 'mine.py'}:Mina")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("algorithm.optimizer=torch.optim.", "must be torch.optim.NAME or path/to/file.py:NAME"),
        (
            "algorithm={optimizer: torch.optim.NAdam, scaling_rule: {name: adam_square_root, base_batch_size: 2}}",
            "carries",
        ),
        (SPACE + "beta1: 0.9}", "beta1 and beta2 are one argument of a class, betas; give both"),
        (SPACE + "average_weights: 2}", "average_weights must be"),
    ],
)
def test_a_study_is_read_without_the_class_and_says_what_it_can(change: str, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        study("algorithm.optimizer=torch.optim.NAdam", SPACE + "weight_decay: 0}", change)


def test_ids_depend_on_what_is_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    named = study(f"algorithm.optimizer={tmp_path / 'mine.py'}:Mine", SPACE + "strength: 0.5}")
    before = named.context("fingerprint")
    (tmp_path / "mine.py").write_text(MINE.replace("0.01 *", "0.02 *"))
    assert named.context("fingerprint") != before
    (tmp_path / "mine.py").unlink()
    with pytest.raises(WorkloadError, match="the file cannot be read"):
        named.context("fingerprint")
