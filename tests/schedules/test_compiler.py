"""The compiler: the papers' numbers, the noise scale kept, and the units."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler as theirs

from batchscope.errors import ScheduleError
from batchscope.schedules import (
    BatchSchedule,
    Constant,
    Cosine,
    Exponential,
    ExponentialPolynomial,
    InverseExponentialPolynomial,
    Linear,
    PiecewiseConstant,
    PiecewiseLinear,
    Ramp,
    Schedule,
    Then,
    compile_batch_schedule,
    noise_scale,
)
from rows import first

CIFAR = "0.1, 0.02@60, 0.004@120, 0.0008@160"
IMAGENET = "3, 0.3@30, 0.03@60, 0.003@80"


def cifar(**options: Any) -> BatchSchedule:
    """S18 section 5.2: drops by 5 at epochs 60, 120, 160 of 200; momentum 0.9."""
    return compile_batch_schedule(CIFAR, 128, train_size=50_000, epochs=200, **options)


def imagenet(**options: Any) -> BatchSchedule:
    """S18 section 5.3: drops by 10 at epochs 30, 60, 80 of 90; momentum 0.9."""
    return compile_batch_schedule(IMAGENET, 8192, train_size=1_281_167, epochs=90, **options)


def phases(schedule: BatchSchedule) -> list[tuple[float, int, float]]:
    return [(p.epoch_start, p.batch_size, float(f"{p.learning_rate:.12g}")) for p in schedule.phases]


@pytest.mark.parametrize(
    ("schedule", "at_least", "at_most"),
    [
        (cifar(variant="decay"), 77_000, 79_000),  # about 78,000
        (cifar(max_batch_size=5120), 28_500, 29_500),  # about 29,000
        (cifar(max_batch_size=5120, learning_rate_factor=5), 6_000, 6_500),  # under 6,500
        (cifar(max_batch_size=5120, learning_rate_factor=5, momentum_to=0.98), 2_000, 2_500),  # less than 2,500
        (imagenet(variant="decay"), 14_000, 14_100),  # just over 14,000
        (imagenet(variant="hybrid"), 5_500, 6_000),  # below 6,000
        (imagenet(max_batch_size=65_536), 5_800, 6_000),  # just under 6,000
        (imagenet(max_batch_size=65_536, momentum_to=0.95), 3_400, 3_600),  # about 3,500
        (imagenet(max_batch_size=65_536, momentum_to=0.975), 2_200, 2_500),  # under 2,500
    ],
)
def test_the_updates_that_smith_2018_reports(schedule: BatchSchedule, at_least: int, at_most: int) -> None:
    assert at_least <= schedule.total_updates <= at_most


def test_the_phases_that_smith_2018_reports() -> None:
    assert phases(cifar(variant="decay")) == [(0, 128, 0.1), (60, 128, 0.02), (120, 128, 0.004), (160, 128, 0.0008)]
    assert phases(cifar(variant="hybrid")) == [(0, 128, 0.1), (60, 640, 0.1), (120, 640, 0.02), (160, 640, 0.004)]
    assert phases(cifar(max_batch_size=5120)) == [(0, 128, 0.1), (60, 640, 0.1), (120, 3200, 0.1), (160, 5120, 0.032)]
    assert phases(cifar(max_batch_size=5120, learning_rate_factor=5, momentum_to=0.98))[0] == (0, 3200, 0.5)
    assert phases(cifar(max_batch_size=5120, learning_rate_factor=5))[0] == (0, 640, 0.5)
    assert [batch for _, batch, _ in phases(imagenet(variant="hybrid"))] == [8192, 81_920, 81_920, 81_920]
    assert phases(imagenet(max_batch_size=65_536, momentum_to=0.95))[0] == (0, 16_384, 3.0)
    assert phases(imagenet(max_batch_size=65_536, momentum_to=0.975))[0] == (0, 32_768, 3.0)


def test_the_first_phase_is_the_one_of_the_document() -> None:
    first = cifar().document()["phases"][0]
    assert {key: first[key] for key in ("epoch_start", "epoch_end", "batch_size", "learning_rate", "momentum")} == {
        "epoch_start": 0,
        "epoch_end": 60,
        "batch_size": 128,
        "learning_rate": 0.1,
        "momentum": 0.9,
    }
    assert (first["updates"], first["noise_scale"], first["lost_epochs"]) == (23_437, 390.625, 0.0256)


def test_a_tenth_of_the_examples_is_the_largest_batch_unless_told() -> None:
    assert cifar().phases[-1].batch_size == 5000
    assert cifar(granularity=128).phases[-1].batch_size == 4992
    assert cifar(max_batch_size=50_000).phases[-1].batch_size == 16_000
    assert compile_batch_schedule(CIFAR, 128, train_size=1000, epochs=200).phases[-1].batch_size == 128
    assert {p.batch_size for p in cifar(learning_rate_factor=1000).phases} == {5000}
    small = compile_batch_schedule("1, 0.1@1", 100, train_size=500, epochs=3, granularity=150, learning_rate_factor=2)
    assert {phase.batch_size for phase in small.phases} == {150}


def test_granularity_rounds_down_and_the_rate_takes_the_rest() -> None:
    schedule = cifar(granularity=96, max_batch_size=5120)
    assert phases(schedule) == [(0, 96, 0.075), (60, 576, 0.09), (120, 3168, 0.099), (160, 5088, 0.0318)]
    assert schedule.largest_noise_scale_departure < 1e-14


def test_whole_factors() -> None:
    assert [batch for _, batch, _ in phases(cifar(max_batch_size=5120, whole_factors=True))] == [128, 640, 3200, 3200]
    wavy = PiecewiseConstant((1, 2, 3), (0.3, 0.14, 0.9))
    schedule = compile_batch_schedule(wavy, 10, 1000, train_size=10_000, epochs=4, unit="epoch", whole_factors=True)
    assert [phase.batch_size for phase in schedule.phases] == [10, 30, 60, 10]
    coarse = compile_batch_schedule(
        wavy, 12, 1000, train_size=10_000, epochs=4, unit="epoch", whole_factors=True, granularity=4
    )
    assert [phase.batch_size for phase in coarse.phases] == [12, 36, 72, 12]


def test_a_rate_that_rises_to_its_peak_is_a_warm_up() -> None:
    schedule = compile_batch_schedule("0.01, 0.1@5, 0.01@60", 128, train_size=50_000, epochs=90)
    assert phases(schedule) == [(0, 128, 0.01), (5, 128, 0.1), (60, 1280, 0.1)]


def test_equation_4_can_be_kept_instead() -> None:
    schedule = cifar(max_batch_size=5120, exact=True)
    assert schedule.largest_noise_scale_departure < 1e-13
    for phase in schedule.phases:
        original = 0.1 * (1, 0.2, 0.04, 0.008)[schedule.phases.index(phase)]
        assert phase.learning_rate * (50_000 / phase.batch_size - 1) == pytest.approx(original * (50_000 / 128 - 1))
        assert phase.learning_rate <= 0.1
    # What equation 5 leaves open is (N - B) / (N - B_0) at the largest batch.
    approximate = cifar(max_batch_size=5120)
    assert approximate.largest_exact_noise_scale_departure == pytest.approx(1 - (50_000 - 5120) / (50_000 - 128))


def test_the_constant_and_the_decay_are_themselves() -> None:
    schedule = compile_batch_schedule("0.1", 100, train_size=1000, epochs=3)
    assert (phases(schedule), schedule.total_updates) == ([(0, 100, 0.1)], 30)
    decay = cifar(variant="decay", momentum=0.5)
    assert decay.total_updates == decay.original_updates == 78_125
    assert decay.largest_exact_noise_scale_departure == 0


SMOOTH: dict[str, Schedule] = {
    "linear": Linear(90),
    "cosine": Cosine(90, 0.001),
    "exponential_polynomial": ExponentialPolynomial(80, 0.01, 2.5),
    "inverse_exponential_polynomial": InverseExponentialPolynomial(90, 0.001, 1.5),
    "exponential": Exponential(90, 0.001),
    "piecewise_linear": PiecewiseLinear((0, 30, 40, 90), (1.0, 1.0, 0.1, 0.01)),
    "warm": Ramp(5, 1 / 32) * Cosine(90),
    "restarts": Then(Cosine(30, 0.01), Cosine(60, 0.01), 30),
}


def departure(schedule: BatchSchedule, rate: Schedule, base: float, batch: int, momentum: float) -> float:
    """Over all updates: how far eta N / (B (1 - gamma)) is from the original's at the same epoch."""
    size = schedule.train_size
    worst = 0.0
    for examples, batch_size in schedule.updates():
        phase = schedule.phase_at(examples)
        if examples / size < phase.epoch_start:
            continue  # the one batch that straddles a boundary
        kept = schedule.learning_rate_at(examples) / (batch_size * (1 - phase.momentum))
        original = base * float(rate.factor(examples / size)) / (batch * (1 - momentum))
        worst = max(worst, abs(kept / original - 1) if original else kept)
    return worst


@pytest.mark.parametrize("name", first(2, list(SMOOTH)))
def test_smooth_schedules_keep_the_noise_scale_at_every_update(name: str) -> None:
    rate = SMOOTH[name]
    schedule = compile_batch_schedule(
        rate, 16, train_size=5_000, epochs=90, learning_rate=0.2, unit="epoch", granularity=8, momentum_to=0.95
    )
    assert departure(schedule, rate, 0.2, 16, 0.9) < 1e-11
    assert schedule.largest_noise_scale_departure < 1e-11
    sizes = {phase.batch_size for phase in schedule.phases}
    assert min(sizes) == 32  # 16 (1 - 0.9) / (1 - 0.95)
    assert max(sizes) == 496
    assert sizes <= {32, 64, 128, 256, 496}
    assert all(schedule.learning_rate_at(examples) <= 0.2 * (1 + 1e-9) for examples, _ in schedule.updates())
    assert schedule.total_updates < schedule.original_updates


def test_smooth_batches_change_where_the_rate_has_halved() -> None:
    schedule = compile_batch_schedule(Linear(100), 10, 80, train_size=10_000, epochs=100, unit="epoch")
    assert [(round(phase.epoch_start, 3), phase.batch_size) for phase in schedule.phases] == [
        (0, 10),
        (50, 20),
        (75, 40),
        (87.5, 80),
    ]
    for phase in schedule.phases:
        assert phase.learning_rate == pytest.approx(1.0, abs=1e-3)
        assert phase.learning_rate_end == pytest.approx(0.0 if phase.batch_size == 80 else 0.5, abs=1e-3)
    fine = compile_batch_schedule(Linear(100), 10, 80, train_size=10_000, epochs=100, unit="epoch", growth=1.2)
    assert len(fine.phases) > len(schedule.phases)


def test_restarts_bring_the_batch_size_down_again() -> None:
    schedule = compile_batch_schedule(SMOOTH["restarts"], 16, train_size=5_000, epochs=90, unit="epoch")
    before, after = schedule.batch_size_at(5_000 * 30 - 1000), schedule.batch_size_at(5_000 * 30)
    assert (before, after) == (500, 16)


def test_all_ways_to_say_a_schedule_compile_to_the_same() -> None:
    def torch_optimizer() -> torch.optim.Optimizer:
        return torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1)

    options: dict[str, Any] = {"batch_size": 100, "max_batch_size": 5120, "train_size": 50_000, "epochs": 200}
    text = compile_batch_schedule(CIFAR, **options)
    epochs = PiecewiseConstant((60, 120, 160), (0.2, 0.04, 0.008))
    steps = PiecewiseConstant((30_000, 60_000, 80_000), (0.2, 0.04, 0.008))
    others = [
        compile_batch_schedule(epochs, learning_rate=0.1, unit="epoch", **options),
        compile_batch_schedule(steps, learning_rate=0.1, **options),
        compile_batch_schedule(theirs.MultiStepLR(torch_optimizer(), [60, 120, 160], 0.2), **options),
        compile_batch_schedule(
            theirs.MultiStepLR(torch_optimizer(), [30_000, 60_000, 80_000], 0.2), unit="step", **options
        ),
    ]
    for other in others:
        assert [(p.step_start, p.updates, p.batch_size) for p in other.phases] == [
            (p.step_start, p.updates, p.batch_size) for p in text.phases
        ]
        assert [p.learning_rate for p in other.phases] == pytest.approx([p.learning_rate for p in text.phases])


def test_a_torch_scheduler_by_the_epoch_is_a_staircase() -> None:
    opt = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1)
    schedule = compile_batch_schedule(theirs.CosineAnnealingLR(opt, 40), 50, train_size=1000, epochs=40)
    for epoch in range(40):
        example = epoch * 1000 + 500
        rate = 0.1 * (1 + math.cos(math.pi * epoch / 40)) / 2
        assert schedule.learning_rate_at(example) / schedule.batch_size_at(example) == pytest.approx(rate / 50)


def test_a_last_phase_too_short_for_its_batch_is_left_to_the_one_before() -> None:
    schedule = compile_batch_schedule("1, 0.5@0.77", 3, 20, train_size=20, epochs=1)
    assert [(p.batch_size, p.updates, p.epoch_end) for p in schedule.phases] == [(3, 6, 1)]
    assert schedule.total_examples == 18


drops = st.lists(
    st.tuples(st.floats(0.01, 40), st.floats(0.02, 1.2)), max_size=5, unique_by=lambda pair: round(pair[0], 3)
)


@settings(max_examples=150, deadline=None)
@given(
    drops=drops,
    batch=st.integers(1, 300),
    size=st.integers(300, 5000),
    epochs=st.floats(1, 50),
    granularity=st.integers(1, 7),
    momentum=st.sampled_from([0.0, 0.5, 0.9, 0.99]),
    momentum_to=st.sampled_from([None, 0.0, 0.95]),
    factor=st.sampled_from([1.0, 0.5, 3.7]),
    variant=st.sampled_from(["increase", "hybrid", "decay"]),
    whole=st.booleans(),
    exact=st.booleans(),
    tail=st.sampled_from([None, Linear(30, 0.1), Cosine(20)]),
)
def test_whatever_is_compiled_the_noise_scale_and_the_epochs_are_kept(
    drops: list[tuple[float, float]],
    batch: int,
    size: int,
    epochs: float,
    granularity: int,
    momentum: float,
    momentum_to: float | None,
    factor: float,
    variant: Any,
    whole: bool,
    exact: bool,
    tail: Schedule | None,
) -> None:
    drops.sort()
    rate: Schedule = PiecewiseConstant(*zip(*drops, strict=True)) if drops else Constant()
    rate = rate if tail is None else rate * tail
    try:
        schedule = compile_batch_schedule(
            rate,
            batch,
            train_size=size,
            epochs=epochs,
            unit="epoch",
            momentum=momentum,
            momentum_to=momentum_to,
            granularity=granularity,
            learning_rate_factor=factor,
            variant=variant,
            whole_factors=whole,
            exact=exact,
        )
    except ScheduleError as error:
        assert "granularity" in str(error) or "hold no batch" in str(error) or "between 1 and" in str(error)
        return
    # The noise scale, in the form that is kept.
    assert schedule.largest_noise_scale_departure < 1e-10
    for phase in schedule.phases:
        assert phase.batch_size % granularity == 0
        assert phase.noise_scale == pytest.approx(phase.original_noise_scale, rel=1e-10)
        assert phase.noise_scale == pytest.approx(
            noise_scale(phase.learning_rate, phase.batch_size, size, phase.momentum, exact=exact)
        )
        # A phase begins less than one batch before its epoch.
        early = phase.epoch_start * size - phase.example_start
        largest = max(p.batch_size for p in schedule.phases)
        assert -1e-6 <= early < largest + 1e-6
    # The examples: epochs times N within one batch, and the phases are one row of updates.
    left = epochs * size - schedule.total_examples
    assert -1e-6 <= left < max(phase.batch_size for phase in schedule.phases) + 1e-6
    examples = 0
    for start, batch_size in schedule.updates():
        assert (start, batch_size) == (examples, schedule.batch_size_at(start))
        examples += batch_size
    assert examples == schedule.total_examples
    assert sum(phase.updates for phase in schedule.phases) == schedule.total_updates
    for a, b in itertools.pairwise(phase.batch_size for phase in schedule.phases):
        assert not whole or max(a, b) % min(a, b) == 0
    # The rate never passes c times its peak.
    peak = max(1.0, *(f for _, f in drops), 0.0) if drops else 1.0
    assert all(phase.learning_rate <= factor * peak * (1 + 1e-6) for phase in schedule.phases)


def test_same_learning_curve_on_a_quadratic() -> None:
    """S18's claim in closed form: mean and variance of SGD with curvature h and gradient noise s^2/B."""

    def curve(schedule: BatchSchedule, h: float = 0.5, noise: float = 4.0) -> list[float]:
        mean, variance, losses, epoch = 10.0, 0.0, [], 0
        for examples, batch in schedule.updates():
            if examples >= epoch * schedule.train_size:
                losses.append(h / 2 * (mean * mean + variance))
                epoch += 1
            rate = schedule.learning_rate_at(examples)
            mean *= 1 - rate * h
            variance = (1 - rate * h) ** 2 * variance + rate**2 * noise / batch
        return losses

    options: dict[str, Any] = {"train_size": 4000, "epochs": 60, "momentum": 0.0}
    rate = "0.02, 0.004@20, 0.0008@40"
    decay, hybrid, increase = (
        compile_batch_schedule(rate, 4, variant=variant, **options) for variant in ("decay", "hybrid", "increase")
    )
    assert increase.total_updates < hybrid.total_updates < decay.total_updates
    original = curve(decay)
    for other in (hybrid, increase):
        for epoch, (a, b) in enumerate(zip(original, curve(other), strict=True)):
            assert a == pytest.approx(b, rel=0.06), f"epoch {epoch}"
    wrong = compile_batch_schedule("0.02", 4, variant="decay", **options)
    assert curve(wrong)[-1] > 5 * original[-1]  # the test can tell schedules apart


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"batch_size": 0}, "batch_size must be between 1 and 50000"),
        ({"batch_size": 60_000}, "batch_size must be between 1 and 50000"),
        ({"max_batch_size": 60_000}, "max_batch_size must be between 1 and 50000"),
        ({"max_batch_size": 50_000, "exact": True}, "max_batch_size must be between 1 and 49999"),
        ({"max_batch_size": 100, "granularity": 128}, "less than the granularity"),
        ({"granularity": 256}, "less than the granularity"),
        ({"granularity": 0}, "granularity .* between 1 and 50000, got 0"),
        ({"epochs": 0}, "epochs must be > 0"),
        ({"epochs": 0.001}, "hold no batch of 128"),
        ({"momentum": 1.0}, "momentum must be"),
        ({"momentum_to": -0.1}, "momentum_to must be"),
        ({"variant": "up"}, "one of increase, hybrid, decay, got 'up'"),
        ({"learning_rate_factor": 0}, "learning_rate_factor must be > 0"),
        ({"learning_rate": 0.1}, "brings its own base rate"),
        ({"unit": "step"}, "in words is in epochs"),
        ({"unit": "week"}, "one of epoch, step, got 'week'"),
        ({"growth": 1.0}, "growth must be > 1"),
        ({"lr_schedule": Constant(), "learning_rate": -1.0}, "learning_rate must be > 0"),
        ({"lr_schedule": PiecewiseLinear((0, 1), (0.0, 0.0))}, "never above 0"),
        ({"lr_schedule": Linear(torch.tensor([10.0, 20.0]))}, "one value a parameter"),
    ],
)
def test_what_cannot_be_compiled_says_why(options: dict[str, Any], says: str) -> None:
    arguments: dict[str, Any] = {"lr_schedule": CIFAR, "batch_size": 128, "train_size": 50_000, "epochs": 200} | options
    with pytest.raises(ScheduleError, match=says):
        compile_batch_schedule(**arguments)
