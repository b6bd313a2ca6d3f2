"""A small batch first (GZ20 section 3.2)."""

from __future__ import annotations

import pytest

from batchscope.errors import ScheduleError
from batchscope.schedules import compile_batch_schedule, with_first_epochs

PLAIN = compile_batch_schedule("0.05", 8192, train_size=50_000, epochs=10, variant="decay")


def test_the_setting_of_gao_2020() -> None:
    """One epoch at 512 and 0.005, then 8192 and 0.05."""
    schedule = with_first_epochs(PLAIN, batch_size=512, learning_rate=0.005)
    assert [(p.epoch_start, p.epoch_end, p.batch_size, p.learning_rate) for p in schedule.phases] == [
        (0, 1, 512, 0.005),
        (1, 10, 8192, 0.05),
    ]
    assert schedule.phases[0].updates == 97
    assert schedule.phases[1].step_start == 97
    assert schedule.phases[1].example_start == 97 * 512
    # The noise scale of that epoch is (0.005 / 512) / (0.05 / 8192) = 1.6 times the original, and says so.
    assert schedule.largest_noise_scale_departure == pytest.approx(0.6)
    assert schedule.learning_rate_multiplier(0) == pytest.approx(0.1)
    assert schedule.learning_rate_multiplier(60_000) == pytest.approx(1.0)


def test_the_rest_of_a_schedule_stays_where_it_was() -> None:
    plain = compile_batch_schedule(
        "cosine 0.1, decay_factor=0.01", 64, 640, train_size=10_000, epochs=30, momentum_to=0.95
    )
    schedule = with_first_epochs(plain, batch_size=16, learning_rate=0.01, epochs=2.5)
    for examples in range(26_000, plain.total_examples, 997):
        assert schedule.batch_size_at(examples) == plain.batch_size_at(examples)
        assert schedule.learning_rate_at(examples) == plain.learning_rate_at(examples)
    assert schedule.phases[0].momentum == 0.95
    assert schedule.phases[-1].epoch_end == 30


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"batch_size": 0, "learning_rate": 0.1}, "batch_size must be between 1 and 50000"),
        ({"batch_size": 8, "learning_rate": 0.0}, "learning_rate must be > 0"),
        ({"batch_size": 8, "learning_rate": 0.1, "epochs": 10}, "fewer than the 10 of all"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, float], says: str) -> None:
    with pytest.raises(ScheduleError, match=says):
        with_first_epochs(PLAIN, **options)  # type: ignore[arg-type]
