"""Which program computes a batch size: the fastest of those that were timed on it and do all that the loop does.

The loop is the reference and always serves. Another program is worth an evaluation only where its timing, and the check
that it gives the loop's numbers, take a small part of the work that it may shorten.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from batchscope.amounts import duration
from batchscope.engine.alone import Alone
from batchscope.engine.loop import Loop
from batchscope.engine.pack import Pack
from batchscope.engine.program import Program, advance
from batchscope.engine.qualification import Reference, qualify
from batchscope.engine.training import Training
from batchscope.engine.vmap import Vmap
from batchscope.errors import BatchscopeError, WorkloadError
from batchscope.spec.study import Engine
from batchscope.spec.trial import Trial

PROGRAMS: dict[str, Callable[[Training], Program]] = {
    "loop": Loop,
    "traced": Alone,
    "compiled_loop": partial(Alone, compiled=True),
    "vmap": Vmap,
    "compiled": partial(Vmap, compiled=True),
}
"""The plain loop; one trial after the other as a graph, or as machine code; a pack
as one graph, or as machine code."""

PACK_SIZES = (4, 8, 16, 32)
COMPILED_PACK = 8
# Trials that are advanced alone, but share their batches.
ALONE_PACK = 4

# A candidate is timed over stretches of steps, for about so long; the quickest stretch counts, because whatever else
# the machine does can only make one slower.
TIMED_SECONDS = 0.2
TIMED_STRETCHES = 8
STRETCH_STEPS = 8
# Steps that it takes at the least, and its share where little time is left for all of them.
WARM_STEPS = 4
TIMED_SHARE = 0.05

# The loop's steps say how much work there is: small ones are repeated, because the first are slow, and because one that
# has to wait for the machine takes ten times as long.
REPEATED, REPEATED_SECONDS = 5, 0.05

# A larger pack is not tried where a smaller one was this much slower than the best, or one step of it took so long.
HOPELESS = 1.5
LONGEST_STEP_SECONDS = 1.0

# A race ends after a twentieth of the budget or so. Choosing may take a tenth of that, of which half is for timing and
# half for the check of the one that is taken.
USUAL_SHARE = 0.05
CHOOSING_SHARE = 0.1
TIMING_SHARE = 0.5

# Taking a graph from a small model, and loading what does it, the first time in a process.
TRACE_SECONDS = 0.15
FIRST_TRACE_SECONDS = 1.5

# Machine code takes ten seconds or so to make, in every worker and for every size of pack, and two programs are tried:
# so much work must be left that this is a tenth of it.
WORTH_COMPILING_SECONDS = 300.0


@dataclass(frozen=True)
class ProgramChoice:
    """A program and the number of trials it advances at once.

    Attributes:
        program: A name in ``PROGRAMS``.
        pack_size: Trials to a pack.
        timings: Milliseconds for a step of one trial, by candidate; empty where nothing was timed.
        reasons: Why a candidate was not taken, where it could not run.
        remark: What a user must know of how the workload is computed; mostly empty.
    """

    program: str
    pack_size: int
    timings: dict[str, float] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    remark: str = ""


@dataclass(frozen=True)
class Chosen:
    """A choice, and the program itself with what was traced for it."""

    choice: ProgramChoice
    program: Program


class CannotTrain(Exception):
    """Not even the loop computes an update at a batch size; the cause says why."""


def program_of(choice: ProgramChoice, training: Training) -> Program:
    """The chosen program, for a training."""
    return PROGRAMS[choice.program](training)


def choose(training: Training, trials: Sequence[Trial], engine: Engine, seconds: float = math.inf) -> Chosen:
    """Time the candidates that the study leaves open on the real workload, and take the fastest that is fit.

    Args:
        training: The batch size.
        trials: As many as a pack may hold.
        engine: What the study pins.
        seconds: The most to take, roughly, beside the first steps of the loop.

    Where not even the loop can compute an update, that is a ``CannotTrain``, from what its step raised; where the
    program that the study pins cannot serve, a ``WorkloadError`` says why.
    """
    reference = Reference(training, trials)
    timings: dict[str, float] = {"loop-1": 1000 * _loop_seconds(reference)}
    watch = _Watch(seconds, _likely_steps(training), timings)
    reasons: dict[str, str] = {}
    candidates = _candidates(engine, len(trials))
    if engine.program == "auto":
        _time_all(training, trials, candidates, watch, timings, reasons)
        _try_compiling(training, trials, watch, timings, reasons)
        name, size, program = _fastest_fit(reference, timings, reasons)
        size = size if engine.pack_size == "auto" else engine.pack_size
        return Chosen(ProgramChoice(name, size, timings, reasons, reference.loop.habits.remark), program)
    timings = {}
    ((name, sizes),) = candidates.items()
    if len(sizes) > 1:  # to find the size; that there is no time for it, or that one fails, is no reason yet
        _time_all(training, trials, candidates, watch, timings, {})
    size = _fastest(timings)[1] if timings else min(sizes, key=lambda size: abs(size - COMPILED_PACK))
    fit = _fit(reference, name, size, reasons)
    if fit is None:
        raise _refusal(name, training, reasons)
    return Chosen(ProgramChoice(name, size, timings, reasons, reference.loop.habits.remark), fit)


def serving(chosen: Chosen, training: Training, trials: Sequence[Trial], engine: Engine) -> Chosen:
    """The choice that was made for one optimizer as it serves another: the same program, or else the loop for both.

    Errors are those of ``choose``.
    """
    choice, reasons = chosen.choice, dict(chosen.choice.reasons)
    reference = Reference(training, trials)
    _loop_seconds(reference)
    fit = _fit(reference, choice.program, choice.pack_size, reasons)
    if fit is not None:
        return Chosen(choice, fit)
    if engine.program != "auto":
        raise _refusal(choice.program, training, reasons)
    return Chosen(replace(choice, program="loop", reasons=reasons), reference.loop)


def _refusal(name: str, training: Training, reasons: Mapping[str, str]) -> WorkloadError:
    return WorkloadError(
        f"engine.program: {name} cannot compute batch size {training.batch_size}: {reasons[name]}. Write "
        "engine.program: auto, or loop, which takes any model"
    )


class _Watch:
    """How long the timing may take: the less, the faster the run will be by what is known already."""

    def __init__(self, seconds: float, steps: float, timings: Mapping[str, float]) -> None:
        self._most, self._steps, self._timings = seconds, steps, timings
        self._started = time.perf_counter()
        self._last = TRACE_SECONDS if "torch._dynamo" in sys.modules else FIRST_TRACE_SECONDS

    @property
    def seconds(self) -> float:
        """For all candidates together."""
        best = min(self._timings.values(), default=math.inf) / 1000
        return min(self._most, CHOOSING_SHARE * self._steps * best) * TIMING_SHARE

    def affords(self, name: str, step: float) -> bool:
        """Whether there is time for another candidate, whose step takes about so long."""
        trace = 0.0 if name == "loop" else self._last
        return time.perf_counter() - self._started + trace + WARM_STEPS * step <= self.seconds

    def time(self, name: str, work: Callable[[], float]) -> float:
        """Do it, and remember how long it took."""
        started = time.perf_counter()
        found = work()
        if name != "loop":
            self._last = time.perf_counter() - started
        return found


def _loop_seconds(reference: Reference) -> float:
    """Of a step of the loop, after updates of every size that a trial makes, and an evaluation of every part."""
    step, repeated = math.inf, 0.0
    try:
        for steps in reference.ranges:
            started = time.perf_counter()
            reference.after(0, steps)
            step = min(step, (time.perf_counter() - started) / (steps[1] - steps[0]))
        for _ in range(REPEATED):
            if repeated + step < REPEATED_SECONDS:
                taken = reference.seconds()
                step, repeated = min(step, taken), repeated + taken
    except BatchscopeError:
        raise
    except Exception as error:  # of the user's own code, at this batch size
        raise CannotTrain from error
    for part in reference.parts:
        reference.values(0, part)
    return step


def _likely_steps(training: Training) -> float:
    """Of all trials together, as far as the policy lets one tell."""
    study = training.loaded.study
    return (USUAL_SHARE if study.policy == "race" else 1.0) * study.search.count * training.timeline.last


def _time_all(
    training: Training,
    trials: Sequence[Trial],
    candidates: Mapping[str, Sequence[int]],
    watch: _Watch,
    timings: dict[str, float],
    reasons: dict[str, str],
) -> None:
    """Time one candidate after the other, as long as there is time."""
    for name, sizes in candidates.items():
        for size in sizes:
            best = min(timings.values(), default=0.0)
            if not watch.affords(name, size * best / 1000):
                if name != "loop":  # whose first steps will do
                    reasons.setdefault(
                        name, f"not tried: there are {duration(watch.seconds)} for timing, which must pay"
                    )
                break
            if size * best / 1000 > LONGEST_STEP_SECONDS and name != "loop":
                break
            found = _time(training, trials[:size], name, watch, timings, reasons)
            if found > HOPELESS * best > 0:
                break


def _try_compiling(
    training: Training, trials: Sequence[Trial], watch: _Watch, timings: dict[str, float], reasons: dict[str, str]
) -> None:
    """Time what must be compiled first, where there is work enough for it to pay, and packs only where they do."""
    best = min(timings.values())
    packs = {name: found for name, found in timings.items() if name.startswith("vmap-")}
    work = _likely_steps(training) * best / 1000
    if work < WORTH_COMPILING_SECONDS:
        reasons["compiled"] = f"not tried: about {duration(work)} of work, and compiling must pay"
        reasons["compiled_loop"] = reasons["compiled"]
        return
    _time(training, trials[:ALONE_PACK], "compiled_loop", watch, timings, reasons)
    if min(packs.values(), default=math.inf) > HOPELESS * best:
        reasons["compiled"] = "not tried: one trial after the other is faster than a pack"
    else:
        _time(training, trials[: _fastest(packs)[1]], "compiled", watch, timings, reasons)


def _fastest_fit(
    reference: Reference, timings: Mapping[str, float], reasons: dict[str, str]
) -> tuple[str, int, Program]:
    """The fastest program that does all that a run will ask and gives the loop's numbers; the loop does in any case."""
    while True:
        left = {key: found for key, found in timings.items() if key.rpartition("-")[0] not in reasons}
        name, size = _fastest(left)
        if (program := _fit(reference, name, size, reasons)) is not None:
            return name, size, program


def _fit(reference: Reference, name: str, size: int, reasons: dict[str, str]) -> Program | None:
    """A program that qualifies; of one that does not the reason is noted."""
    if name == "loop":
        return reference.loop
    count = min(size, len(reference.trials))
    # A pack in one piece is filled up rather than compiled again.
    fewest = -(-count // 4) if name == "compiled" else 1
    try:
        program = PROGRAMS[name](reference.training)
        qualify(program, reference, count, fewest)
    except Exception as error:  # whatever a user's module does under a transform is a reason, not a failure
        reasons[name] = in_words(error)
        return None
    return program


def in_words(error: Exception) -> str:
    """An error in one line."""
    told = str(error).strip().splitlines()
    words = told[0][:200] if told else ""
    return words if isinstance(error, BatchscopeError) else f"{type(error).__name__}: {words}"


def _fastest(timings: Mapping[str, float]) -> tuple[str, int]:
    program, _, pack_size = min(timings, key=timings.__getitem__).rpartition("-")
    return program, int(pack_size)


def _time(
    training: Training,
    trials: Sequence[Trial],
    name: str,
    watch: _Watch,
    timings: dict[str, float],
    reasons: dict[str, str],
) -> float:
    """Time a candidate, or note why it cannot run; infinite then."""
    seconds = min(TIMED_SECONDS, TIMED_SHARE * watch.seconds)
    try:
        found = watch.time(name, lambda: milliseconds_per_step(PROGRAMS[name](training), trials, seconds))
    except Exception as error:  # as for ``_fit``
        if name == "loop":
            raise
        reasons[name] = in_words(error)
        return math.inf
    key = f"{name}-{len(trials)}"
    timings[key] = min(found, timings.get(key, math.inf))  # whatever else the machine does only makes one slower
    return found


def _candidates(engine: Engine, limit: int) -> dict[str, list[int]]:
    """Program to pack sizes, ascending."""
    names = ["loop", "traced", "vmap"] if engine.program == "auto" else [engine.program]
    if engine.pack_size != "auto":
        return {name: [engine.pack_size] for name in names}
    packs = sorted({size for size in PACK_SIZES if size < limit} | {min(limit, PACK_SIZES[-1])})
    sizes = {"vmap": packs, "compiled": [min(limit, COMPILED_PACK)]}
    sizes |= dict.fromkeys(("traced", "compiled_loop"), [min(limit, ALONE_PACK)])
    return {name: sizes.get(name, [1]) for name in names}


def milliseconds_per_step(program: Program, trials: Sequence[Trial], seconds: float = TIMED_SECONDS) -> float:
    """For one step of one trial, after a first step that traces and warms up; ``seconds`` are spent on it or so."""
    pack = Pack.fresh(program.training, trials)
    pack, spent = _timed(program, pack, 1)  # traces, compiles, warms up
    pack, spent = _timed(program, pack, 1)
    steps = min(STRETCH_STEPS, max(1, round(seconds / 4 / spent)))
    quickest, total = spent if steps == 1 else math.inf, spent
    for _ in range(TIMED_STRETCHES):
        if total > seconds and quickest < math.inf:
            break
        pack, taken = _timed(program, pack, steps)
        quickest, total = min(quickest, taken / steps), total + taken
    return 1000 * quickest / len(trials)


def _timed(program: Program, pack: Pack, steps: int) -> tuple[Pack, float]:
    """A pack some steps on, and the seconds that took."""
    started = time.perf_counter()
    advanced = advance(program, pack, pack.step + steps, ())
    assert advanced is not None
    return advanced[0], time.perf_counter() - started
