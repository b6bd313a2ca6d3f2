"""Which program computes a batch size: pinned in the study, or the fastest of those that were timed on it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from batchscope.engine.alone import Alone
from batchscope.engine.graphs import captured_in_place, compiled_in_place
from batchscope.engine.loop import Loop
from batchscope.engine.pack import Pack
from batchscope.engine.program import Program, advance
from batchscope.engine.training import Cell
from batchscope.engine.vmap import Vmap
from batchscope.spec.study import Engine
from batchscope.spec.trial import Trial

PROGRAMS: dict[str, Callable[[Cell], Program]] = {
    "loop": Loop,
    "channels_last": partial(Loop, channels_last=True),
    "traced": Alone,
    "compiled_loop": partial(Alone, in_place=compiled_in_place),
    "vmap": Vmap,
    "compiled": partial(Vmap, in_place=compiled_in_place),
    "captured": partial(Vmap, in_place=captured_in_place),
}
"""The plain loop, the same with images pixel by pixel; one trial after the other as a graph, or as machine code; a pack
as one graph, as machine code, or as a CUDA graph."""

ONE_BY_ONE = ("loop", "channels_last")
PACK_SIZES = (4, 8, 16, 32)
COMPILED_PACK = 8
# Trials that are advanced alone, but share their batches.
ALONE_PACK = 4

# A candidate is timed over stretches of steps, for about so long; the quickest stretch counts, because whatever else
# the machine does can only make one slower.
TIMED_SECONDS = 0.2
TIMED_STRETCHES = 8
STRETCH_STEPS = 8

# A larger pack is not tried where a smaller one was this much slower than the best, or one step of it took so long.
HOPELESS = 1.5
LONGEST_STEP_SECONDS = 1.0

# Machine code takes seconds to make, in every worker and for every size of pack. A race ends after a twentieth of the
# budget or so, and the compiler must have earned its time well before.
USUAL_SHARE = 0.05
WORTH_COMPILING_SECONDS = 60.0


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
    (name, sizes), *others = candidates.items()
    if not others and len(sizes) == 1 and engine.program != "auto":
        return Choice(name, sizes[0])
    timings: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for name, sizes in candidates.items():
        for size in sizes:
            best = min(timings.values(), default=0.0)
            if size * best / 1000 > LONGEST_STEP_SECONDS:
                break
            found = _time(cell, trials[:size], name, timings, reasons)
            if found > HOPELESS * best > 0:
                break
    if engine.program == "auto":
        _try_compiling(cell, trials, timings, reasons)
    return Choice(*_fastest(timings), timings, reasons)


def _try_compiling(cell: Cell, trials: Sequence[Trial], timings: dict[str, float], reasons: dict[str, str]) -> None:
    """Time what must be compiled first, where there is work enough for it to pay, and packs only where they do."""
    best = min(timings.values())
    packs = {name: found for name, found in timings.items() if name.startswith("vmap-")}
    work = USUAL_SHARE * cell.loaded.study.search.count * cell.timeline.last * best / 1000
    if work < WORTH_COMPILING_SECONDS:
        reasons["compiled"] = f"not tried: about {work:.0f} s of work, and compiling must pay"
        reasons["compiled_loop"] = reasons["compiled"]
        return
    _time(cell, trials[:ALONE_PACK], "compiled_loop", timings, reasons)
    if min(packs.values(), default=math.inf) > HOPELESS * best:
        reasons["compiled"] = "not tried: one trial after the other is faster than a pack"
    else:
        _time(cell, trials[: _fastest(packs)[1]], "compiled", timings, reasons)


def _fastest(timings: Mapping[str, float]) -> tuple[str, int]:
    program, _, pack_size = min(timings, key=timings.__getitem__).rpartition("-")
    return program, int(pack_size)


def _time(cell: Cell, trials: Sequence[Trial], name: str, timings: dict[str, float], reasons: dict[str, str]) -> float:
    """Time a candidate, or note why it cannot run; infinite then."""
    try:
        found = milliseconds_per_step(PROGRAMS[name](cell), trials)
    except Exception as error:  # whatever a user's module does under a transform is a reason, not a failure
        if name == "loop":
            raise
        reasons[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
        return math.inf
    timings[f"{name}-{len(trials)}"] = found
    return found


def _candidates(engine: Engine, limit: int) -> dict[str, list[int]]:
    """Program to pack sizes, ascending."""
    names = [*ONE_BY_ONE, "traced", "vmap", "captured"] if engine.program == "auto" else [engine.program]
    if engine.pack_size != "auto":
        return {name: [engine.pack_size] for name in names}
    packs = sorted({size for size in PACK_SIZES if size < limit} | {min(limit, PACK_SIZES[-1])})
    sizes = {"vmap": packs, "captured": packs, "compiled": [min(limit, COMPILED_PACK)]}
    sizes |= dict.fromkeys(("traced", "compiled_loop"), [min(limit, ALONE_PACK)])
    return {name: sizes.get(name, [1]) for name in names}


def milliseconds_per_step(program: Program, trials: Sequence[Trial]) -> float:
    """For one step of one trial, after a first step that traces and warms up."""
    pack = Pack.fresh(program.cell, trials)
    pack, spent = _timed(program, pack, 1)  # traces, compiles, warms up
    pack, spent = _timed(program, pack, 1)
    steps = min(STRETCH_STEPS, max(1, round(TIMED_SECONDS / 4 / spent)))
    quickest, total = spent if steps == 1 else math.inf, spent
    for _ in range(TIMED_STRETCHES):
        if total > TIMED_SECONDS:
            break
        pack, seconds = _timed(program, pack, steps)
        quickest, total = min(quickest, seconds / steps), total + seconds
    return 1000 * quickest / len(trials)


def _timed(program: Program, pack: Pack, steps: int) -> tuple[Pack, float]:
    """A pack some steps on, and the seconds that took."""
    started = time.perf_counter()
    advanced = advance(program, pack, pack.step + steps, ())
    assert advanced is not None
    return advanced[0], time.perf_counter() - started
