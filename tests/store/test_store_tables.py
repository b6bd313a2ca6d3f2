"""The log of trials against a plain reading of its rule."""

from __future__ import annotations

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscope.store.schema import LOG, TRIALS, empty
from batchscope.store.trial_log import merge_log, resolve_log

Row = tuple[str, int, int]
rows = st.lists(st.tuples(st.sampled_from("abc"), st.integers(-1, 5), st.integers(0, 6)), max_size=12)


def log_frame(rows: list[Row]) -> pl.DataFrame:
    base = empty({**TRIALS, **LOG})
    part = pl.DataFrame(rows, schema={"trial": pl.String, "since": pl.Int64, "steps": pl.Int64}, orient="row")
    commits = pl.Series("commit", range(len(rows)), pl.Int64)
    return pl.concat([base, part.with_columns(commits)], how="diagonal").select(base.columns)


def plain(rows: list[Row]) -> tuple[dict[str, tuple[int, int]], bool]:
    """Follow each trial from nothing, as far as the rows reach without a gap."""
    latest: dict[str, tuple[int, int]] = {}
    clean = True
    for steps, commit, trial, since in sorted((row[2], number, row[0], row[1]) for number, row in enumerate(rows)):
        reach = latest.get(trial, (-1, -1))[0]
        clean = clean and since == reach
        if since <= reach:
            latest[trial] = steps, commit
    return latest, clean


@settings(deadline=None, max_examples=200)
@given(rows.map(lambda found: [row for row in found if row[1] <= row[2]]))
def test_the_latest_valid_row_of_each_trial_is_found(found: list[Row]) -> None:
    latest, clean = resolve_log(log_frame(found))
    expected, expected_clean = plain(found)
    assert clean == expected_clean
    assert {
        trial: (steps, commit) for trial, steps, commit in latest.select("trial", "steps", "commit").iter_rows()
    } == (expected)


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5), min_size=1, max_size=3),
    st.sets(st.integers(0, 14)),
)
def test_merging_any_part_of_a_clean_log_keeps_its_meaning(gains: list[list[int]], merged: set[int]) -> None:
    found: list[Row] = []
    for trial, steps in zip("abc", gains, strict=False):
        reach = -1
        for gain in steps:
            end = max(reach, 0) + gain
            found.append((trial, reach, end))
            reach = end
    log = log_frame(found)
    chosen = pl.Series([number in merged for number in range(len(found))], dtype=pl.Boolean)
    after = pl.concat([log.filter(~chosen), merge_log(log.filter(chosen))])
    before, clean = resolve_log(log)
    assert clean
    latest, _ = resolve_log(after)
    columns = ["trial", "steps"]
    assert latest.select(columns).sort("trial").equals(before.select(columns).sort("trial"))
