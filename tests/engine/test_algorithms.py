"""Everything a study's algorithm can name, in the engine: pack against plain loop, and against the parts themselves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from batchscope.engine.alone import Alone
from batchscope.engine.loop import Loop
from batchscope.engine.pack import Pack
from batchscope.engine.program import Measurements, Program, advance
from batchscope.engine.training import Settings, Training
from batchscope.engine.vmap import Vmap
from batchscope.errors import StudyError
from batchscope.nn import GhostBatchNorm1d
from batchscope.optim import RULES, ScheduleFreeAdamW
from batchscope.plan.sampling import first_trials
from batchscope.plan.timeline import Timeline
from engine.workbench import Plain, classification, normalised, study, training

RATE = "search.space={learning_rate: {min: 1e-3, max: 3e-3}}"


def states(program: Program, count: int = 3, steps: int = 12) -> dict[str, Tensor]:
    trials = first_trials(program.training.loaded.study.search, program.training.batch_size, 0, count)
    advanced = advance(program, Pack.fresh(program.training, trials), steps, (steps,))
    assert advanced is not None
    return advanced[0].state


def assert_pack_follows_loop(bench: Training, steps: int = 12) -> dict[str, Tensor]:
    """The loop's state, which that of the pack is found to be."""
    packed, looped = states(Vmap(bench), steps=steps), states(Loop(bench), steps=steps)
    for name, value in looped.items():
        torch.testing.assert_close(packed[name], value, rtol=1e-8, atol=1e-10)
    return looped


@pytest.mark.parametrize("optimizer", RULES)
def test_every_optimizer_in_a_pack_follows_the_loop(optimizer: str) -> None:
    bench = training(None, f"algorithm.optimizer={optimizer}", RATE)
    before = Pack.fresh(bench, first_trials(bench.loaded.study.search, 8, 0, 3)).state
    looped = assert_pack_follows_loop(bench)
    assert not torch.equal(before["parameter/layers.0.weight"], looped["parameter/layers.0.weight"])


def test_examples_that_the_model_flattens_are_not_taken_for_trials() -> None:
    # Probes are shared by the trials, so their products with flattened examples (B, 3, 2) have no axis of trials.
    flattens = classification(lambda: nn.Sequential(nn.Unflatten(1, (3, 2)), nn.Flatten(), nn.Linear(6, 3)))
    bench = training(flattens, "algorithm.optimizer=cblr", RATE)
    assert_pack_follows_loop(bench)


@pytest.mark.parametrize(
    "change",
    [
        "algorithm.warm_up={length: 6}",
        "algorithm.warm_up=goyal",
        "algorithm.learning_rate_schedule={name: cosine, unit: budget, decay_steps: 1}",
        "algorithm.learning_rate_schedule={name: piecewise_constant, steps: [4, 8], factors: [0.5, 0.1]}",
        "algorithm.scaling_rule={name: square_root, base_batch_size: 2}",
        "algorithm.discard_small_loss={fraction: 0.3, epochs: 0.2}",
        "algorithm.clip_gradient_norm=0.3",
        "algorithm.average_weights=0.9",
        "search.space={learning_rate: 0.1, clip_gradient_norm: [0.1, 1, 10], average_weights: [0.5, 0.99]}",
        "algorithm={optimizer: lars, average_weights: 0.9, clip_gradient_norm: 0.3}",
        "algorithm.first_epochs={batch_size: 4, learning_rate_factor: 0.5, epochs: 0.1}",
        "algorithm={learning_rate_schedule: {name: cosine, unit: epochs, decay_steps: 2}, batch_schedule: increase}",
    ],
)
def test_every_extra_in_a_pack_follows_the_loop(change: str) -> None:
    assert_pack_follows_loop(training(None, change))


def test_ghost_batch_norm_is_put_in_place_of_batch_norm() -> None:
    bench = training(classification(normalised), "algorithm.ghost_batch_size=3")
    assert any(isinstance(module, GhostBatchNorm1d) for module in bench.loaded.module().modules())
    assert_pack_follows_loop(bench)
    with pytest.raises(Exception, match="has no batch norm; remove it"):
        training(None, "algorithm.ghost_batch_size=3").loaded.module()


def test_discarding_leaves_the_largest_losses() -> None:
    bench = training(classification(lambda: Plain(0.0)), "algorithm.discard_small_loss={fraction: 0.5}")
    trial = first_trials(bench.loaded.study.search, 8, 0, 1)[0]
    advanced = advance(Vmap(bench), Pack.fresh(bench, [trial]), 1, (1,))
    inputs, targets = bench.batch(0)
    assert advanced is not None and isinstance(inputs, Tensor) and isinstance(targets, Tensor)
    losses = F.cross_entropy(bench.loaded.module(trial.seed)(inputs), targets, reduction="none")
    expected = losses.sort().values[4:].mean().item()
    assert advanced[1].metrics["train/running_loss"][0][0] == pytest.approx(expected, rel=1e-12)


STEPS_DOWN = "{name: piecewise_constant, unit: epochs, steps: [2, 4], factors: [0.5, 0.25]}"


@pytest.mark.parametrize("variant", ["increase", "hybrid", "decay"])
def test_a_batch_schedule_sees_every_example_once_an_epoch_and_keeps_the_noise_scale(variant: str) -> None:
    plan = f"algorithm.batch_schedule={{variant: {variant}, max_batch_size: 40}}"
    bench = training(None, f"algorithm.learning_rate_schedule={STEPS_DOWN}", plan, "budget={epochs: 6}")
    timeline = bench.timeline
    sizes = [timeline.examples(step + 1) - timeline.examples(step) for step in range(timeline.last)]
    assert (
        timeline.examples(0) == 0 and set(sizes) == {"increase": {8, 16, 32}, "hybrid": {8, 16}, "decay": {8}}[variant]
    )
    assert 6 * 200 - 40 < timeline.examples(timeline.last) <= 6 * 200
    factors = timeline.factors(0, timeline.last, {})[:, 0]
    for step, (size, factor) in enumerate(zip(sizes, factors.tolist(), strict=True)):
        epoch = timeline.epoch(step) + 1e-9
        if epoch % 2 < 1.8:  # away from the batch that straddles a drop
            original = 0.5 if epoch > 2 else 1.0
            original = 0.25 if epoch > 4 else original
            assert factor / size == pytest.approx(original / 8, rel=1e-12)
    inputs = bench.loaded.workload.train[0]  # type: ignore[index]
    seen = torch.cat([bench.batch(step)[0] for step in range(timeline.last)])  # type: ignore[misc]
    first = seen[:200][:, 0].sort().values
    torch.testing.assert_close(first, inputs[:, 0].double().sort().values)


def test_the_scaling_rule_reads_the_space_as_that_of_the_base_batch_size() -> None:
    for rule, factor in (("constant", 1.0), ("linear", 4.0), ("square_root", 2.0)):
        bench = training(None, f"algorithm.scaling_rule={{name: {rule}, base_batch_size: 2}}")
        trials = tuple(first_trials(bench.loaded.study.search, 8, 0, 3))
        rates = Settings.of(bench, trials).learning_rates(0, 1)[0].tolist()
        assert rates == pytest.approx([factor * float(t.hyperparameters["learning_rate"]) for t in trials])


def test_golmant_warm_up_begins_at_the_base_rate() -> None:
    bench = training(
        None,
        "algorithm={scaling_rule: {name: linear, base_batch_size: 2}, "
        "warm_up: {name: golmant, length: 1, unit: epochs}}",
    )
    trials = tuple(first_trials(bench.loaded.study.search, 8, 0, 2))
    rates = Settings.of(bench, trials).learning_rates(0, 40)
    base = torch.tensor([float(t.hyperparameters["learning_rate"]) for t in trials], dtype=torch.float64)
    torch.testing.assert_close(rates[0], base)
    torch.testing.assert_close(rates[25], 4 * base)  # an epoch is 200 / 8 steps
    torch.testing.assert_close(rates[39], 4 * base)


def test_larger_momentum_comes_with_a_larger_batch() -> None:
    options = "{batch_schedule: {momentum_to: 0.95, max_batch_size: 64}}"
    bench = training(None, f"algorithm={options}", "search.space={learning_rate: 0.1, momentum: 0.8}")
    settings = Settings.of(bench, tuple(first_trials(bench.loaded.study.search, 8, 0, 1)))
    assert settings.hyper["momentum"].item() == pytest.approx(0.95)
    assert bench.timeline.examples(1) == 8 * 4  # B (1 - 0.8) / (1 - 0.95)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (["algorithm={warm_up: {}}"], "warm_up_length is missing"),
        (["algorithm.warm_up=golmant"], "give scaling_rule too"),
        (["algorithm.warm_up=gentle"], "must be linear, goyal or golmant"),
        (["algorithm.scaling_rule={name: liner, base_batch_size: 2}"], "did you mean linear?"),
        (["algorithm={batch_schedule: {momentum_to: 0.99}}"], "momentum_to needs it to be one value"),
        (
            [
                "algorithm={batch_schedule: increase, learning_rate_schedule: linear}",
                "search.space={learning_rate: 1, decay_steps: [3, 4]}",
            ],
            "a batch schedule needs it to be one value",
        ),
        (
            ["algorithm.optimizer=lars", "algorithm.learning_rate_schedule={name: linear, lenght: 3}"],
            "parameter of the",
        ),
    ],
)
def test_what_does_not_go_together_is_said(changes: list[str], expected: str) -> None:
    with pytest.raises(StudyError, match=".*") as caught:
        study(*changes)
    assert expected in str(caught.value)


def test_a_schedule_in_epochs_needs_data_with_epochs() -> None:
    wanted = study("algorithm={learning_rate_schedule: {name: linear, unit: epochs, decay_steps: 3}}")
    with pytest.raises(StudyError, match="write unit: steps"):
        Timeline(wanted, 8, None).factors(0, 1, {})


@pytest.mark.parametrize("program", [Loop, Vmap, Alone])
def test_clipping_and_averaging_are_torchs_own(program: type[Program]) -> None:
    space = "search.space={learning_rate: 0.5, momentum: 0.9, clip_gradient_norm: [0.2, 1], average_weights: 0.9}"
    bench = training(classification(lambda: Plain(0.0)), space)
    trials = first_trials(bench.loaded.study.search, 8, 0, 3)
    advanced = advance(program(bench), Pack.fresh(bench, trials), 12, (12,))
    assert advanced is not None
    for k, trial in enumerate(trials):
        model = bench.loaded.module(trial.seed)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9, nesterov=True)
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))  # type: ignore[no-untyped-call]
        limit, norms = float(trial.hyperparameters["clip_gradient_norm"]), []
        for step in range(12):
            inputs, targets = bench.batch(step)
            assert isinstance(targets, Tensor)
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
            norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), limit).item())
            optimizer.step()
            average.update_parameters(model)
        assert max(norms) > limit
        for name, value in model.named_parameters():
            torch.testing.assert_close(advanced[0].state[f"parameter/{name}"][k], value.detach(), rtol=1e-9, atol=1e-9)
        assert_measures(bench, advanced[1], k, average.module)


@pytest.mark.parametrize("program", [Loop, Vmap, Alone])
def test_schedule_free_is_evaluated_at_its_average(program: type[Program]) -> None:
    bench = training(classification(lambda: Plain(0.0)), "algorithm.optimizer=schedule_free_adamw", RATE)
    trials = first_trials(bench.loaded.study.search, 8, 0, 2)
    advanced = advance(program(bench), Pack.fresh(bench, trials), 12, (12,))
    assert advanced is not None
    for k, trial in enumerate(trials):
        model = bench.loaded.module(trial.seed)
        optimizer = ScheduleFreeAdamW(model.parameters(), lr=float(trial.hyperparameters["learning_rate"]))
        for step in range(12):
            inputs, targets = bench.batch(step)
            assert isinstance(targets, Tensor)
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        at_training_point = validation_loss(bench, model)
        optimizer.eval()
        assert validation_loss(bench, model) != pytest.approx(at_training_point, rel=1e-6)
        assert_measures(bench, advanced[1], k, model)


def validation_loss(bench: Training, model: nn.Module) -> float:
    inputs, targets = bench.loaded.validation
    assert isinstance(targets, Tensor)
    with torch.no_grad():
        return F.cross_entropy(model.eval()(inputs), targets).item()


def assert_measures(bench: Training, evaluations: Measurements, k: int, model: nn.Module) -> None:
    """The last evaluation of a trial is of this model."""
    assert evaluations.metrics["validation/loss"][-1][k] == pytest.approx(validation_loss(bench, model), rel=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("algorithm={optimizer: schedule_free_adamw, average_weights: 0.9}", "evaluated at an average of its own"),
        ("algorithm.average_weights=1", "average_weights"),
        ("algorithm.clip_gradient_norm=0", "clip_gradient_norm"),
        ("search.space.average_weights=[0.9, 1]", r"search.space.average_weights must be in \(0, 1\), got 1"),
        ("search.space.clip_gradient_norm={min: 0, max: 1}", "search.space.clip_gradient_norm must be above 0, got 0"),
        ("search.space.momentum={min: 0.5, max: 1}", r"search.space.momentum must be in \[0, 1\), got 1"),
    ],
)
def test_what_cannot_be_clipped_or_averaged_is_refused(change: str, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        study(change)
