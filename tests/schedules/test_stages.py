"""Batch sizes that change where one says: epochs, rates, refusals, and the exporters."""

from __future__ import annotations

import pytest

from batchscope.errors import ScheduleError
from batchscope.schedules import Cosine, formats, staged_batch_schedule

STAGES = {0: 16, 0.5: 32, 2: 64}


@pytest.mark.parametrize(("rule", "power"), [("linear", 1.0), ("square_root", 0.5), ("constant", 0.0)])
def test_rates_move_by_the_rule_and_all_examples_are_counted(rule: str, power: float) -> None:
    found = staged_batch_schedule("0.1, 0.02@3", STAGES, train_size=1000, epochs=4, rule=rule)  # type: ignore[arg-type]
    assert [phase.batch_size for phase in found.phases] == [16, 32, 64, 64]
    rates = [0.1, 0.1 * 2**power, 0.1 * 4**power, 0.02 * 4**power]
    assert [phase.learning_rate for phase in found.phases] == pytest.approx(rates)
    assert 4000 - 64 < found.total_examples <= 4000
    assert sum(size for _, size in found.updates()) == found.total_examples
    assert (found.largest_noise_scale_departure < 1e-9) == (rule == "linear")


def test_a_rate_that_moves_goes_on_moving_inside_a_stage() -> None:
    found = staged_batch_schedule(
        Cosine(250), STAGES, train_size=1000, epochs=4, learning_rate=0.1, rule="linear", unit="step"
    )
    assert [phase.constant for phase in found.phases] == [False] * 3
    examples = 1600  # 100 steps of the first batch size
    assert found.learning_rate_at(examples) == pytest.approx(2 * 0.1 * float(Cosine(250).factor(100)))


@pytest.mark.parametrize(
    ("stages", "given", "told"),
    [
        ({1: 16}, {}, "epoch 0"),
        ({0: 16, 9: 32}, {}, "from 0 to below 4, got 9"),
        ({0: 16, 1: 2000}, {}, "between 1 and 1000, got 2000"),
        (STAGES, {"rule": "cubic"}, "one of constant, linear"),
        (STAGES, {"epochs": 0}, "epochs > 0"),
    ],
)
def test_refusals(stages: dict[float, int], given: dict[str, object], told: str) -> None:
    with pytest.raises(ScheduleError, match=told):
        staged_batch_schedule("0.1", stages, **{"train_size": 1000, "epochs": 4, **given})  # type: ignore[arg-type]


def test_exporters_take_it() -> None:
    found = staged_batch_schedule("0.1", STAGES, train_size=1600, epochs=4)
    assert '--step-batch-size-schedule "0:16 800:32 3200:64"' in formats.megatron(found)
    assert "batch_sizes=[16, 32, 64]" in formats.olmo(found)
    code = formats.lightning(found, 'staged_batch_schedule("0.1", {0: 16}, train_size=1600, epochs=4)')
    assert "import ScheduledBatchSampler, staged_batch_schedule" in code
    compile(code, "made.py", "exec")
