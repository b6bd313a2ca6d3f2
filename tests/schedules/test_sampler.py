"""The sampler: which examples come in which batches, whatever stops, resumes, prefetches or shares them."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

from batchscope.errors import ScheduleError
from batchscope.schedules import BatchSchedule, ScheduledBatchSampler, compile_batch_schedule

N = 103
MODES = ["wrap", "keep", "drop"]


def plan(epochs: float = 5, granularity: int = 1) -> BatchSchedule:
    """Batches of 4, from epoch 1.5 on of 12, from epoch 3 on of 36: changes inside and between epochs."""
    return compile_batch_schedule("0.9, 0.3@1.5, 0.1@3", 4, 36, train_size=N, epochs=epochs, granularity=granularity)


def sampler(last_batch: Any = "wrap", **options: Any) -> ScheduledBatchSampler:
    return ScheduledBatchSampler(options.pop("schedule", plan()), last_batch=last_batch, **options)


def passes(source: ScheduledBatchSampler, count: int = 10) -> list[list[list[int]]]:
    """All passes that have batches."""
    return [batches for batches in (list(source) for _ in range(count)) if batches]


class Numbers(Dataset[int]):
    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> int:
        return index


def loader(source: ScheduledBatchSampler, workers: int = 0) -> DataLoader[int]:
    return DataLoader(Numbers(), batch_sampler=source, num_workers=workers)


def test_wrap_runs_the_updates_of_the_schedule_and_nothing_else() -> None:
    batches = list(itertools.chain(*passes(sampler())))
    assert [len(batch) for batch in batches] == [size for _, size in plan().updates()]
    stream = list(itertools.chain(*batches))
    assert len(stream) == plan().total_examples
    for epoch in range(4):  # each epoch is one permutation, cut where it may
        assert sorted(stream[epoch * N : (epoch + 1) * N]) == list(range(N))
    assert len(set(stream[4 * N :])) == len(stream) - 4 * N


def test_keep_serves_every_example_once_an_epoch() -> None:
    served = passes(sampler("keep"))
    assert len(served) == 5
    for batches in served:
        assert sorted(itertools.chain(*batches)) == list(range(N))
    assert [len(batch) for batch in served[0]] == [4] * 25 + [3]
    assert [len(batch) for batch in served[1]] == [4] * 13 + [12] * 4 + [3]
    assert [len(batch) for batch in served[4]] == [36, 36, 31]


def test_drop_serves_full_batches_only() -> None:
    served = passes(sampler("drop"))
    assert [[len(batch) for batch in batches] for batches in served] == [
        [4] * 25,
        [4] * 13 + [12] * 4,
        [12] * 8,
        [36] * 2,
        [36] * 2,
    ]
    for batches in served:
        assert max(Counter(itertools.chain(*batches)).values()) == 1


@pytest.mark.parametrize("last_batch", MODES)
def test_the_order_depends_on_seed_and_epoch_only(last_batch: str) -> None:
    first, again, other = (passes(sampler(last_batch, seed=seed)) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert first[0][:10] != first[1][:10]
    late = sampler(last_batch)
    late.set_epoch(3)
    assert list(late) == first[3]
    plain = list(itertools.chain(*passes(sampler(last_batch, shuffle=False))[0]))
    assert plain[:100] == list(range(100))


@pytest.mark.parametrize("last_batch", MODES)
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_share_every_batch_equally(last_batch: str, ranks: int) -> None:
    schedule = compile_batch_schedule("0.9, 0.3@1.5, 0.1@3", 8, 72, train_size=104, epochs=5, granularity=ranks)
    whole = passes(ScheduledBatchSampler(schedule, last_batch=last_batch))  # type: ignore[arg-type]
    parts = [
        passes(ScheduledBatchSampler(schedule, last_batch=last_batch, rank=rank, world_size=ranks))  # type: ignore[arg-type]
        for rank in range(ranks)
    ]
    for batches, *shares in zip(whole, *parts, strict=True):
        for batch, *pieces in zip(batches, *shares, strict=True):
            assert list(itertools.chain(*pieces)) == batch
            assert {len(piece) for piece in pieces} == {len(batch) // ranks}


@pytest.mark.parametrize("last_batch", MODES)
def test_length_is_what_the_next_pass_serves(last_batch: str) -> None:
    source = sampler(last_batch)
    for _ in range(6):
        length = len(source)
        assert len(loader(source)) == length
        assert len(list(source)) == length


def served(source: ScheduledBatchSampler, workers: int) -> list[list[int]]:
    """All batches from here to the end, through a loader."""
    data = loader(source, workers)
    batches = []
    while len(data):
        batches += [batch.tolist() for batch in source.track(data)]
    return batches


@pytest.mark.parametrize("last_batch", MODES)
def test_resumes_after_any_batch_with_nothing_lost_or_repeated(last_batch: str) -> None:
    whole = served(sampler(last_batch), 0)
    source = sampler(last_batch)
    data, seen = loader(source), 0
    while len(data):
        for _ in source.track(data):
            seen += 1
            again = sampler(last_batch)
            again.load_state_dict(source.state_dict())
            assert served(again, 0) == whole[seen:]
    assert seen == len(whole)


@pytest.mark.parametrize("last_batch", MODES)
@pytest.mark.slow
def test_prefetching_workers_do_not_count(last_batch: str) -> None:
    """Two workers draw up to four batches ahead; the state counts what the loop has been handed."""
    whole = served(sampler(last_batch), 0)
    source = sampler(last_batch)
    seen = 0
    for stop in (5, 31, 3):  # break off in the middle of three passes
        batch: Any
        for batch in itertools.islice(source.track(loader(source, workers=2)), stop):
            assert batch.tolist() == whole[seen]
            seen += 1
    again = sampler(last_batch)
    again.load_state_dict(source.state_dict())
    assert served(again, 2) == whole[seen:]


def test_a_pass_broken_off_goes_on_if_tracked_and_begins_again_if_not() -> None:
    whole = passes(sampler())
    source = sampler()
    assert list(itertools.islice(source.track(source), 7)) == whole[0][:7]
    assert list(source.track(source)) == whole[0][7:]
    assert list(itertools.islice(source, 7)) == whole[1][:7]
    assert list(source) == whole[1]
    assert list(source) == whole[2]


def test_a_framework_says_how_many_batches_it_has_trained() -> None:
    whole = passes(sampler())
    for consumed in (0, 1, 11, len(whole[1])):
        source = sampler()
        source.set_epoch(1)
        list(source)  # a framework may draw a whole pass ahead, or draw it twice
        assert next(iter(source)) == whole[1][0]
        again = sampler()
        again.load_state_dict(source.state_dict(consumed=consumed))
        again.set_epoch(1 if consumed < len(whole[1]) else 2)
        assert list(again) == (whole[1][consumed:] or whole[2])
        assert source.examples_before(11) == source.examples_before(0) + sum(map(len, whole[1][:11]))
        source.set_epoch(2)
        assert list(source) == whole[2]


def test_without_tracking_the_state_is_not_guessed() -> None:
    source = sampler()
    assert source.state_dict()["examples"] == 0
    next(iter(source))
    for ask in (source.state_dict, lambda: source.examples):
        with pytest.raises(ScheduleError, match="sampler.track"):
            ask()
    with pytest.raises(ScheduleError, match="this pass has 26 batches, asked for number 27"):
        source.state_dict(consumed=27)


def test_the_batch_in_hand_has_its_size_and_rate() -> None:
    schedule = plan()
    source = sampler()
    expected = iter(schedule.updates())
    assert (source.batch_size, source.learning_rate) == (4, 0.9)
    while len(source):
        for batch in source.track(source):
            examples, size = next(expected)
            assert source.batch_size == size == len(batch)
            assert source.learning_rate == schedule.learning_rate_at(examples)
            assert source.examples == examples + size
    assert next(expected, None) is None
    assert sampler("keep").accumulation(3).accumulation_steps == 2


@settings(max_examples=100, deadline=None)
@given(
    size=st.integers(20, 200),
    batch=st.integers(1, 20),
    drops=st.lists(st.integers(2, 30), max_size=3),
    epochs=st.floats(1, 4),
    last_batch=st.sampled_from(MODES),
    stop=st.integers(0, 400),
)
def test_any_schedule_resumes_anywhere(
    size: int, batch: int, drops: list[int], epochs: float, last_batch: Any, stop: int
) -> None:
    text = ", ".join(["1", *(f"{1 / drop}@{(i + 1) * 0.77}" for i, drop in enumerate(drops))])
    schedule = compile_batch_schedule(text, batch, size, train_size=size, epochs=epochs)

    def rest(source: ScheduledBatchSampler) -> list[list[int]]:
        batches = []
        while len(source):
            batches += list(source.track(source))
        return batches

    whole = rest(ScheduledBatchSampler(schedule, last_batch=last_batch))
    counts = Counter(itertools.chain(*whole))
    if last_batch == "keep":
        assert sum(counts.values()) == int(epochs * size + 1e-9)
    if last_batch == "wrap":
        assert [len(b) for b in whole] == [b for _, b in schedule.updates()]
    if last_batch != "drop":
        assert max(counts.values()) - min(counts.get(i, 0) for i in range(size)) <= 2
    source = ScheduledBatchSampler(schedule, last_batch=last_batch)
    seen = 0
    while len(source) and seen < stop:
        seen += len(list(itertools.islice(source.track(source), stop - seen)))
    again = ScheduledBatchSampler(schedule, last_batch=last_batch)
    again.load_state_dict(source.state_dict())
    assert rest(again) == whole[min(stop, len(whole)) :]


def test_a_state_of_another_order_is_refused() -> None:
    state = sampler().state_dict()
    for other in (sampler(seed=1), sampler("keep"), sampler(shuffle=False)):
        with pytest.raises(ScheduleError, match="the order of the examples"):
            other.load_state_dict(state)


def test_a_state_is_plain_and_good_for_other_ranks(tmp_path: Any) -> None:
    schedule = compile_batch_schedule("1, 0.5@1", 8, train_size=160, epochs=3)
    one = ScheduledBatchSampler(schedule)
    before = list(itertools.islice(one.track(one), 9))
    torch.save(one.state_dict(), tmp_path / "state.pt")
    two = [ScheduledBatchSampler(schedule, rank=rank, world_size=2) for rank in range(2)]
    for part in two:
        part.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert [a + b for a, b in zip(*two, strict=True)] == list(ScheduledBatchSampler(schedule))[len(before) :]


def test_nonsense_is_refused() -> None:
    with pytest.raises(ScheduleError, match="one of wrap, keep, drop, got 'pad'"):
        sampler("pad")
    with pytest.raises(ScheduleError, match="rank must be"):
        sampler(rank=2, world_size=2)
    with pytest.raises(ScheduleError, match="granularity=3"):
        sampler(world_size=3)
    with pytest.raises(ScheduleError, match='last_batch="wrap"'):
        sampler("keep", world_size=2)
    with pytest.raises(ScheduleError, match="an epoch is at least 0"):
        sampler().set_epoch(-1)
