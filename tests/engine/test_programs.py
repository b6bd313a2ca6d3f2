"""The engine against references: torch's own optimizer, its own plain loop, and itself in other pack sizes."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.nn import functional as F

from batchscope.engine import choice
from batchscope.engine.alone import Alone
from batchscope.engine.choice import PROGRAMS, ProgramChoice, choose
from batchscope.engine.evaluate import Accumulators, evaluate
from batchscope.engine.loop import Loop
from batchscope.engine.pack import Pack, State
from batchscope.engine.program import Measurements, Program, advance, diverged_at
from batchscope.engine.qualification import Reference
from batchscope.engine.randomness import seed_step
from batchscope.engine.training import Loaded, Settings, Training
from batchscope.engine.vmap import Vmap
from batchscope.errors import WorkloadError
from batchscope.plan.rungs import Grid
from batchscope.plan.sampling import first_trials
from batchscope.spec.study import Engine
from batchscope.spec.trial import Trial
from batchscope.spec.workload import Workload
from batchscope.tensors import Pair
from engine.workbench import Plain, classification, error, images, normalised, study, training
from rows import first

STEPS = 40
EVALUATIONS = Grid(1.2, 1, STEPS).evaluations()


def trials_of(training: Training, count: int = 10) -> list[Trial]:
    return first_trials(training.loaded.study.search, training.batch_size, 0, count)


def curves(program: Program, size: int, *, count: int = 10, replicate: int = 0) -> Tensor:
    """(count, metrics, evaluations) of all trials, in packs of ``size``."""
    trials = [replace(trial, replicate=replicate) for trial in trials_of(program.training, count)]
    rows: list[list[list[float | None]]] = []
    for start in range(0, count, size):
        pack = Pack.fresh(program.training, trials[start : start + size])
        advanced = advance(program, pack, STEPS, EVALUATIONS)
        assert advanced is not None
        metrics = advanced[1].metrics
        rows += [[[row[k] for row in values] for values in metrics.values()] for k in range(len(pack.trials))]
    return torch.tensor(rows, dtype=torch.float64)


NAMES = ["loop", "traced", "vmap", "compiled", "compiled_loop"]
EVERY = first(3, NAMES)
COMPILED = EVERY[3:]


PACKED = [("loop", 8, "float32"), ("traced", 8, "float32"), ("vmap", 8, "float32"), ("vmap", 8, "bfloat16")]
RARELY = [
    (program, batch_size, dtype)
    for program in NAMES
    for batch_size, dtype in ((8, "float32"), (8, "bfloat16"), (1, "float32"), (8, "float64"))
    if (program, batch_size, dtype) not in PACKED
]


@pytest.mark.parametrize(("program", "batch_size", "dtype"), first(len(PACKED), PACKED + RARELY))
def test_pack_size_changes_no_bit(program: str, batch_size: int, dtype: str) -> None:
    bench = training(None, f"engine.dtype={dtype}", batch_size=batch_size)
    whole = curves(PROGRAMS[program](bench), 10)
    assert whole.isfinite().all()
    for size in (1, 2, 5):
        assert torch.equal(curves(PROGRAMS[program](bench), size), whole)


@pytest.mark.parametrize("program", EVERY)
def test_a_program_serves_every_replicate(program: str) -> None:
    first, second = PROGRAMS[program](training()), PROGRAMS[program](training())
    before = curves(first, 4, count=4)
    other = curves(first, 4, count=4, replicate=1)
    assert torch.equal(other, curves(second, 4, count=4, replicate=1)) and not torch.equal(other, before)
    assert torch.equal(curves(first, 4, count=4), before)


@pytest.mark.slow
def test_machine_code_that_was_made_before_is_found_again() -> None:
    bench = training()
    before = curves(PROGRAMS["compiled"](bench), 4, count=4)
    found = counters["aot_autograd"]["autograd_cache_hit"]
    assert torch.equal(curves(PROGRAMS["compiled"](bench), 4, count=4), before)
    assert counters["aot_autograd"]["autograd_cache_hit"] == found + 1


def test_pack_size_changes_no_bit_of_images_laid_out_pixel_by_pixel() -> None:
    bench = training(images(), "engine.dtype=float32")
    assert torch.equal(curves(Alone(bench), 1, count=4), curves(Alone(bench), 4, count=4))


OPTIMIZERS = ["adam", "lars", "sgd", "momentum", "nesterov", "adamw", "rmsprop", "mclr"]
FOLLOWERS = [(program, optimizer) for optimizer in OPTIMIZERS for program in ("traced", "vmap")]
MACHINE_CODE = [
    pytest.param(program, optimizer, marks=pytest.mark.slow)
    for program in ("compiled", "compiled_loop")
    for optimizer in ("nesterov", "adam")
]


@pytest.mark.parametrize(("program", "optimizer"), [*first(4, FOLLOWERS), *MACHINE_CODE])
def test_every_graph_follows_the_plain_loop(program: str, optimizer: str) -> None:
    space = "search.space={learning_rate: {min: 1e-3, max: 1e-2, scale: log}}"
    # A bias before batch norm has no gradient but rounding, which layer-wise rules would blow up.
    for model in (Plain,) if optimizer in ("lars", "mclr") else (Plain, normalised):
        bench = training(classification(model), f"algorithm.optimizer={optimizer}", space)
        packed, looped = curves(PROGRAMS[program](bench), 5), curves(Loop(bench), 1)
        torch.testing.assert_close(packed, looped, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("program", ["traced", COMPILED[1]])
@pytest.mark.parametrize("optimizer", ["adam", "lars"])
def test_images_laid_out_pixel_by_pixel_follow_the_plain_loop(program: str, optimizer: str) -> None:
    bench = training(images(), f"algorithm.optimizer={optimizer}", "search.space={learning_rate: 1e-3}")
    laid_out, plain = curves(PROGRAMS[program](bench), 2, count=2), curves(Loop(bench), 2, count=2)
    torch.testing.assert_close(laid_out, plain, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_pack_size_changes_batch_norm_by_rounding_only() -> None:
    # torch sums the channels of a pack in one kernel, whose order of summation depends on how many there are.
    bench = training(classification(normalised))
    for size in (1, 2, 5):
        torch.testing.assert_close(curves(Vmap(bench), size), curves(Vmap(bench), 10), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "nesterov"])
def test_the_loop_is_what_a_user_would_write(optimizer: str) -> None:
    space = (
        "search.space={learning_rate: 0.05}"
        if optimizer == "sgd"
        else "search.space={learning_rate: 0.05, momentum: 0.9}"
    )
    bench = training(
        classification(normalised), f"algorithm.optimizer={optimizer}", "algorithm.weight_decay=0.01", space
    )
    trial = trials_of(bench, 1)[0]
    model = bench.loaded.module(trial.seed)
    sgd = torch.optim.SGD(
        model.parameters(),
        lr=0.05,
        momentum=0.0 if optimizer == "sgd" else 0.9,
        nesterov=optimizer == "nesterov",
        weight_decay=0.01,
    )
    for step in range(STEPS):
        inputs, targets = bench.batch(step)
        assert isinstance(inputs, Tensor) and isinstance(targets, Tensor)
        seed_step(bench, step)
        sgd.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
        sgd.step()
    advanced = advance(Loop(bench), Pack.fresh(bench, [trial]), STEPS, ())
    assert advanced is not None
    for name, value in model.state_dict().items():
        kind = "parameter" if name in dict(model.named_parameters()) else "buffer"
        torch.testing.assert_close(advanced[0].state[f"{kind}/{name}"][0], value, rtol=1e-12, atol=1e-12)


def test_bfloat16_is_autocast_with_parameters_in_float32() -> None:
    bench = training(None, "engine.dtype=bfloat16", "search.space={learning_rate: 0.05, momentum: 0.9}")
    trial = trials_of(bench, 1)[0]
    model = bench.loaded.module(trial.seed)
    sgd = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    for step in range(STEPS):
        inputs, targets = bench.batch(step)
        assert isinstance(inputs, Tensor) and isinstance(targets, Tensor) and inputs.dtype == torch.float32
        seed_step(bench, step)
        sgd.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            outputs = model(inputs)
            loss = F.cross_entropy(outputs, targets)
        assert outputs.dtype == torch.bfloat16
        loss.backward()  # type: ignore[no-untyped-call]
        sgd.step()
    advanced = advance(Loop(bench), Pack.fresh(bench, [trial]), STEPS, ())
    assert advanced is not None
    for name, value in model.named_parameters():
        torch.testing.assert_close(advanced[0].state[f"parameter/{name}"][0], value.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("program", EVERY[1:])
def test_every_graph_follows_the_plain_loop_in_bfloat16(program: str) -> None:
    bench, space = "engine.dtype=bfloat16", "search.space={learning_rate: {min: 1e-3, max: 1e-2, scale: log}}"
    found = curves(PROGRAMS[program](training(None, bench, space)), 5)
    torch.testing.assert_close(found, curves(Loop(training(None, bench, space)), 1), rtol=0.03, atol=0.03)
    assert not torch.equal(found, curves(PROGRAMS[program](training(None, "engine.dtype=float32", space)), 5))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("algorithm", first(1, ["{optimizer: lars, clip_gradient_norm: 0.5}", "{optimizer: nesterov}"]))
def test_a_stop_anywhere_changes_no_bit(name: str, algorithm: str) -> None:
    program = PROGRAMS[name]
    bench = training(classification(Deep), "engine.dtype=float32", f"algorithm={algorithm}")
    trials = trials_of(bench, 4)
    straight = advance(program(bench), Pack.fresh(bench, trials), STEPS, EVALUATIONS)
    pack = Pack.fresh(bench, trials)
    for until in (8, 23, STEPS):
        # As a file gives it back: in an order of its own.
        written = load(save(pack.to_tensors("context")))
        saved = Pack.from_tensors(written, trials, "context", torch.device("cpu"))
        assert saved is not None
        advanced = advance(
            program(bench), saved, until, [evaluation for evaluation in EVALUATIONS if saved.step < evaluation <= until]
        )
        assert advanced is not None
        pack = advanced[0]
    assert straight is not None
    assert all(torch.equal(pack.state[name], value) for name, value in straight[0].state.items())


@pytest.mark.parametrize("name", EVERY)
def test_training_leaves_the_state_that_it_was_given_alone(name: str) -> None:
    bench = training(classification(normalised))
    pack = Pack.fresh(bench, trials_of(bench, 3))
    before = {name: value.clone() for name, value in pack.state.items()}
    assert advance(PROGRAMS[name](bench), pack, 5, ()) is not None
    assert all(torch.equal(pack.state[name], value) for name, value in before.items())


def test_a_checkpoint_of_other_trials_is_none() -> None:
    """Whatever a file is called: a state that is not of these trials would give a wrong curve."""
    bench = training()
    trials = trials_of(bench, 2)
    saved = Pack.fresh(bench, trials).to_tensors("context")
    cpu = torch.device("cpu")
    assert Pack.from_tensors(saved, trials, "context", cpu) is not None
    assert Pack.from_tensors(saved, trials, "another algorithm", cpu) is None
    for change in (
        {"batch_size": 16},
        {"study_seed": 1},
        {"replicate": 1},
        {"hyperparameters": {"learning_rate": 0.5}},
    ):
        others = [replace(trial, **change) for trial in trials]
        assert Pack.from_tensors(saved, others, "context", cpu) is None
    assert Pack.from_tensors({"weight": torch.zeros(1)}, trials, "context", cpu) is None


def test_dropping_a_trial_leaves_the_others_alone() -> None:
    bench = training()
    trials = trials_of(bench, 4)
    together = advance(Vmap(bench), Pack.fresh(bench, trials), 20, (20,))
    assert together is not None
    fewer = advance(Vmap(bench), together[0].only([0, 2]), STEPS, (STEPS,))
    all_on = advance(Vmap(bench), together[0], STEPS, (STEPS,))
    assert fewer is not None and all_on is not None
    for name, value in fewer[0].state.items():
        assert torch.equal(value, all_on[0].state[name][[0, 2]])


@pytest.mark.parametrize("program", [Loop, Alone, Vmap])
def test_evaluation_is_the_mean_over_all_validation_examples(program: type[Program]) -> None:
    bench = training()
    trial = trials_of(bench, 1)[0]
    model = bench.loaded.module(trial.seed).eval()
    inputs, targets = bench.loaded.validation
    assert isinstance(inputs, Tensor) and isinstance(targets, Tensor)
    outputs = model(inputs)
    found, taken = evaluate(program(bench).evaluate, bench, Pack.fresh(bench, [trial]).state)
    assert taken == [len(inputs)]
    assert found["loss"][0] == pytest.approx(F.cross_entropy(outputs, targets).item(), rel=1e-12)
    assert found["error"][0] == pytest.approx(error(outputs, targets).mean().item(), rel=1e-12)


def test_the_running_loss_is_the_mean_over_the_batches_since_the_last_evaluation() -> None:
    bench = training(classification(lambda: Plain(0.0)))
    trials = trials_of(bench, 2)
    every = advance(Vmap(bench), Pack.fresh(bench, trials), 12, range(1, 13))
    some = advance(Vmap(bench), Pack.fresh(bench, trials), 12, (4, 12))
    assert every is not None and some is not None
    losses = torch.tensor(every[1].metrics["train/running_loss"], dtype=torch.float64)
    expected = torch.stack([losses[:4].mean(0), losses[4:].mean(0)])
    found = torch.tensor(some[1].metrics["train/running_loss"], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_smoothing_is_cross_entropy_against_the_smoothed_target() -> None:
    bench = training(None, "algorithm.label_smoothing=0.1")
    trial = trials_of(bench, 1)[0]
    advanced = advance(Vmap(bench), Pack.fresh(bench, [trial]), 1, (1,))
    model = bench.loaded.module(trial.seed)
    inputs, targets = bench.batch(0)
    assert isinstance(inputs, Tensor) and isinstance(targets, Tensor)
    seed_step(bench, 0)
    expected = F.cross_entropy(model(inputs), targets, label_smoothing=0.1).item()
    assert advanced is not None
    assert advanced[1].metrics["train/running_loss"][0][0] == pytest.approx(expected, rel=1e-12)


def test_the_learning_rate_follows_its_schedule() -> None:
    schedule = "algorithm.learning_rate_schedule={name: linear, decay_steps: 10, decay_factor: 0}"
    bench = training(None, schedule)
    decayed = advance(Vmap(bench), Pack.fresh(bench, trials_of(bench, 2)), 10, ())
    assert decayed is not None
    later = advance(Vmap(bench), decayed[0], 20, ())
    assert later is not None
    for name, value in decayed[0].state.items():  # the rate is zero from step 10 on
        if name.startswith("parameter/"):
            assert torch.equal(value, later[0].state[name])


def test_searched_schedule_parameters_are_each_trials_own() -> None:
    schedule = "algorithm.learning_rate_schedule={name: linear, decay_factor: 0}"
    bench = training(None, schedule, "search.space.decay_steps=[5, 40]", "search.method=random")
    trials = trials_of(bench, 8)
    first = advance(Vmap(bench), Pack.fresh(bench, trials), 5, ())
    assert first is not None
    second = advance(Vmap(bench), first[0], 10, ())
    assert second is not None
    for k, trial in enumerate(trials):
        name = "parameter/layers.0.weight"
        stands_still = torch.equal(first[0].state[name][k], second[0].state[name][k])
        assert stands_still == (trial.hyperparameters["decay_steps"] == 5)


def test_the_first_evaluation_that_is_not_finite_is_a_divergence() -> None:
    nan = float("nan")
    evaluations = Measurements(
        steps=[1, 2, 4], metrics={"train/loss": [[1, 1], [1, 1], [nan, 1]], "x": [[1, 1], [1, nan], [1, 1]]}
    )
    assert diverged_at(evaluations, 0) == 4
    assert diverged_at(evaluations, 1) == 2


def test_interruption_gives_nothing() -> None:
    bench = training()
    asked = iter([False, False, True])
    result = advance(
        Vmap(bench), Pack.fresh(bench, trials_of(bench, 2)), STEPS, EVALUATIONS, interrupted=lambda: next(asked)
    )
    assert result is None


class Deep(nn.Module):
    """Three layers of one shape, whose norm depends on the order in which it is summed."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*[part for _ in range(3) for part in (nn.Linear(6, 6), nn.Tanh())], nn.Linear(6, 3))

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.layers(inputs)
        return outputs


class Moody(nn.Module):
    """Draws from Python's random numbers: a graph would freeze the draw."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.linear(inputs) * (2.0 if random.random() < 0.5 else 1.0)
        return outputs


class Branching(nn.Module):
    """Decides by a value, which no transform can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.linear(inputs)
        return outputs * 2 if outputs.sum() > 0 else outputs


@pytest.mark.parametrize("model", [Moody, Branching])
def test_a_module_that_no_graph_can_hold_falls_back_to_the_loop(
    model: type[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = training(classification(model))
    monkeypatch.setattr(choice, "CHOOSING_SHARE", math.inf)
    found = choose(bench, trials_of(bench, 8), Engine()).choice
    assert found.program == "loop"
    assert "a graph would freeze" in found.reasons["vmap"]
    with pytest.raises(WorkloadError, match="engine.program: vmap cannot compute batch size 8.*auto, or loop"):
        choose(bench, trials_of(bench, 8), Engine(program="vmap"))


def test_a_choice_is_the_fastest_that_was_timed_and_pins_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "CHOOSING_SHARE", math.inf)
    monkeypatch.setattr(choice, "HOPELESS", math.inf)
    # The clock decides which candidates are tried and which is the fastest: here one that the machine's load is not in.
    milliseconds = {"loop-1": 1.0, "traced-4": 0.5, "vmap-4": 0.4, "vmap-8": 0.2, "vmap-10": 0.3}
    measure = choice.milliseconds_per_step

    def timed(program: Program, trials: Sequence[Trial], seconds: float) -> float:
        assert 0 < measure(program, trials, seconds) < math.inf
        name = next(name for name, kind in PROGRAMS.items() if kind is type(program))
        return milliseconds[f"{name}-{len(trials)}"]

    monkeypatch.setattr(choice, "milliseconds_per_step", timed)
    bench = training()
    found = choose(bench, trials_of(bench, 10), Engine()).choice
    assert (found.program, found.pack_size, found.timings["vmap-8"]) == ("vmap", 8, 0.2)
    assert {"loop-1", "traced-4", "vmap-4", "vmap-8", "vmap-10"} == set(found.timings)
    assert "must pay" in found.reasons["compiled"]
    assert choose(bench, trials_of(bench, 10), Engine(program="vmap", pack_size=3)).choice == ProgramChoice("vmap", 3)
    hurried = choose(bench, trials_of(bench, 10), Engine(program="vmap"), seconds=0.0).choice
    assert hurried == ProgramChoice("vmap", 8)  # no time to find the size is no reason to refuse what is pinned


def test_a_tiny_study_is_not_timed_and_choosing_takes_a_tenth_of_a_large_one(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = training()
    found = choose(bench, trials_of(bench, 10), Engine()).choice
    assert (found.program, found.pack_size, set(found.timings)) == ("loop", 1, {"loop-1"})
    assert "must pay" in found.reasons["vmap"] and "must pay" in found.reasons["traced"]
    long = training(None, "budget.steps=100000")
    monkeypatch.setattr(choice, "_loop_seconds", lambda reference: 0.001)
    started = time.perf_counter()
    choose(long, trials_of(long, 10), Engine())
    likely = choice.USUAL_SHARE * 10 * 100_000 * 0.001
    assert time.perf_counter() - started < max(3.0, choice.CHOOSING_SHARE * likely)


def test_a_loop_that_had_to_wait_for_the_machine_gives_no_time_for_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that took a second, once, is no work of hours; and what is fast leaves little time for what may be."""
    seconds = iter([1.0, 0.5])
    monkeypatch.setattr(Reference, "seconds", lambda self: next(seconds, 1e-4))
    monkeypatch.setattr(choice, "milliseconds_per_step", lambda *_: 1000.0)
    monkeypatch.setattr(choice, "REPEATED_SECONDS", math.inf)
    bench = training()
    found = choose(bench, trials_of(bench, 10), Engine()).choice
    assert (found.program, set(found.timings)) == ("loop", {"loop-1"}) and found.timings["loop-1"] <= 0.1
    timings = {"loop-1": 1.0}
    watch = choice._Watch(math.inf, 1000, timings)
    whole = watch.seconds
    timings["traced-4"] = 0.25
    assert watch.seconds == pytest.approx(whole / 4) == choice.CHOOSING_SHARE * choice.TIMING_SHARE * 0.25


class Late(Vmap):
    """Right for a while, then not: as a graph that froze what the loop goes on computing."""

    def train(self, state: State, settings: Settings, start: int, until: int) -> tuple[State, Tensor]:
        """As ever, but for one number."""
        state, sums = super().train(state, settings, start, until)
        state["parameter/layers.0.weight"] *= 1.001
        return state, sums


class Fragile(Vmap):
    """Fails on a part of the validation examples."""

    def evaluate(
        self, state: State, examples: Pair, whole: Sequence[Accumulators] = (), place: int = 0
    ) -> dict[str, Tensor]:
        """Where the part is not all of them."""
        assert next(iter(state.values())).shape[0] > 1, "one trial alone"
        return super().evaluate(state, examples, whole, place)


@pytest.mark.parametrize(
    ("program", "reason", "dtype"),
    first(
        2,
        [
            (Late, "not the loop's: parameter layers.0.weight after step 0 differs", "float32"),
            (Fragile, "one trial alone", "bfloat16"),
            (Late, "not the loop's: parameter layers.0.weight after step 0 differs", "bfloat16"),
            (Fragile, "one trial alone", "float32"),
        ],
    ),
)
def test_the_fastest_is_not_taken_where_it_is_wrong_or_fails(
    program: type[Program], reason: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if dtype == "bfloat16" and program is Late:
        monkeypatch.setattr(Late, "train", lambda *given: (_spoiled(Vmap.train(*given)[0]), Vmap.train(*given)[1]))
    monkeypatch.setitem(PROGRAMS, "vmap", program)
    monkeypatch.setattr(choice, "CHOOSING_SHARE", math.inf)
    bench = training(None, f"engine.dtype={dtype}")
    monkeypatch.setattr(choice, "_fastest", lambda timings: ("vmap", 4) if "vmap-4" in timings else ("loop", 1))
    found = choose(bench, trials_of(bench, 4), Engine(dtype=dtype)).choice  # type: ignore[arg-type]
    assert found.program == "loop" and reason in found.reasons["vmap"]


def _spoiled(state: State) -> State:
    state["parameter/layers.0.weight"] *= 1.1
    return state


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: packs are not tested on one here")
def test_a_pack_on_a_gpu_follows_the_loop() -> None:
    loaded = Loaded(classification(normalised), study("engine.dtype=float32"), torch.device("cuda"))
    bench = Training(loaded, 8)
    torch.testing.assert_close(curves(Vmap(bench), 5), curves(Loop(bench), 5), rtol=1e-4, atol=1e-4)


def test_what_the_compiler_cannot_do_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise KeyError("buf24")

    monkeypatch.setattr("torch._inductor.compile", refuse)
    bench = training()
    with pytest.raises(WorkloadError, match="buf24.*write engine.program: vmap"):
        advance(PROGRAMS["compiled"](bench), Pack.fresh(bench, trials_of(bench, 2)), 1, ())


@pytest.mark.slow
def test_machine_code_is_tried_where_it_can_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "WORTH_COMPILING_SECONDS", 0.0)
    monkeypatch.setattr(choice, "CHOOSING_SHARE", math.inf)
    found = choose(training(), trials_of(training(), 10), Engine()).choice
    assert {name.rpartition("-")[0] for name in found.timings} >= {"compiled", "compiled_loop"}


def test_a_loss_that_is_already_a_mean_is_refused_with_what_to_write() -> None:
    workload = classification()
    wrong = Workload(Plain, F.cross_entropy, workload.train, workload.validation, workload.metrics)
    bench = training(wrong)
    with pytest.raises(WorkloadError, match="reduction='none'"):
        advance(Loop(bench), Pack.fresh(bench, trials_of(bench, 1)), 1, ())
