"""Which program computes a batch size: pinned in the study, or the fastest of those that were timed on it."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from batchscope.engine.loop import Loop
from batchscope.engine.pack import Pack
from batchscope.engine.program import Program, advance
from batchscope.engine.training import Cell
from batchscope.engine.vmap import Vmap
from batchscope.spec.study import Engine
from batchscope.spec.trial import Trial

PROGRAMS: dict[str, type[Program]] = {program.name: program for program in (Loop, Vmap)}
PACK_SIZES = (4, 8, 16, 32)

# A candidate is timed over stretches of steps, for about so long; the quickest stretch counts, because whatever else
# the machine does can only make one slower.
TIMED_SECONDS = 0.2
TIMED_STRETCHES = 8
STRETCH_STEPS = 3


@dataclass(frozen=True)
class Choice:
    """A program and the number of trials it advances at once.

    Attributes:
        program: A name in ``PROGRAMS``.
        pack_size: Trials to a pack.
        timings: Milliseconds for a step of one trial, by candidate; empty where nothing was timed.
        reasons: Why a candidate was not taken, where it could not run.
    """

    program: str
    pack_size: int
    timings: dict[str, float] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


def program_of(choice: Choice, cell: Cell) -> Program:
    """The chosen program, for a cell."""
    return PROGRAMS[choice.program](cell)


def choose(cell: Cell, trials: Sequence[Trial], engine: Engine) -> Choice:
    """Time the candidates that the study leaves open on the real workload, and take the fastest.

    Args:
        cell: The batch size.
        trials: As many as a pack may hold.
        engine: What the study pins.
    """
    candidates = _candidates(engine, len(trials))
    if len(candidates) == 1 and engine.program != "auto":
        return Choice(*candidates[0])
    timings: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for name, size in candidates:
        if name in reasons:
            continue
        try:
            timings[f"{name}-{size}"] = milliseconds_per_step(PROGRAMS[name](cell), trials[:size])
        except Exception as error:  # whatever a user's module does under a transform is a reason, not a failure
            if name == Loop.name:
                raise
            reasons[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
    fastest = min(timings, key=timings.__getitem__)
    program, _, pack_size = fastest.rpartition("-")
    return Choice(program, int(pack_size), timings, reasons)


def _candidates(engine: Engine, limit: int) -> list[tuple[str, int]]:
    names = [Loop.name, Vmap.name] if engine.program == "auto" else [engine.program]
    candidates: list[tuple[str, int]] = []
    for name in names:
        if engine.pack_size != "auto":
            sizes = {engine.pack_size}
        elif name == Loop.name:
            sizes = {1}
        else:
            sizes = {size for size in PACK_SIZES if size < limit} | {min(limit, PACK_SIZES[-1])}
        candidates += [(name, size) for size in sorted(sizes)]
    return candidates


def milliseconds_per_step(program: Program, trials: Sequence[Trial]) -> float:
    """For one step of one trial, after a first step that traces and warms up."""
    pack = Pack.fresh(program.cell, trials)
    warm = advance(program, pack, 1, (1,))
    assert warm is not None
    pack, spent, quickest = warm[0], 0.0, math.inf
    for _ in range(TIMED_STRETCHES):
        started = time.perf_counter()
        advanced = advance(program, pack, pack.step + STRETCH_STEPS, ())
        seconds = time.perf_counter() - started
        assert advanced is not None
        pack, spent, quickest = advanced[0], spent + seconds, min(quickest, seconds)
        if spent > TIMED_SECONDS:
            break
    return 1000 * quickest / (STRETCH_STEPS * len(trials))
