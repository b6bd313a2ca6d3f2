"""Every value of every key of a study: a row for each, on a workload of seconds.

``wanted`` reads the keys, and what they may be, from the models of the study, so that a new key, or a new choice of an
old one, is missing from ``ROWS`` until it has a row there.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

from batchscope.optim import RULES
from batchscope.schedules import LEARNING_RATE_SCHEDULES, SCALING_RULES
from batchscope.spec.study import Study

BASE = """
workload: digits/softmax
algorithm: {optimizer: sgd}
batch_sizes: [64, 128]
search: {trials: 2, confirm: {seeds: 0}, space: {learning_rate: [0.1, 0.3]}}
goals: ["validation/error < 0.5"]
budget: {steps: 24}
evaluation: {ratio: 1.3}
engine: {program: loop, pack_size: 2, threads: 1}
"""
# What the graph of a pack holds. One is made for each batch size, which takes most of the time of a row.
PACKED = ("workload", "algorithm", "search.space", "search.optimizers", "metrics", "evaluation", "engine")


@dataclass(frozen=True)
class Row:
    """One value of one key, as the overrides that make a study of ``BASE`` with it."""

    key: str
    value: str
    overrides: tuple[str, ...]

    @property
    def name(self) -> str:
        """As a test is called."""
        return f"{self.key}={self.value}"


def row(key: str, value: object, *also: str, written: str | None = None) -> Row:
    """``key=value`` after the overrides ``also``; ``written`` instead, where the key is inside another's value."""
    in_a_pack = ("engine.program=vmap", "batch_sizes=64") if key.startswith(PACKED) else ()
    return Row(key, str(value), (*in_a_pack, *also, f"{key}={value}" if written is None else written))


# What a key that takes a name may be, where its type does not say.
REGISTERED: dict[str, typing.Iterable[str]] = {
    "algorithm.optimizer": RULES,
    "algorithm.learning_rate_schedule.name": LEARNING_RATE_SCHEDULES,
    "algorithm.scaling_rule.name": SCALING_RULES,
}
ANY = "*"  # a key of free values is wanted with one at least


def wanted() -> set[tuple[str, str]]:
    """Every key with every value that it can be told to take, and ``ANY`` where these are without end."""
    pairs = {pair for pair in _of_model(Study, "")}
    pairs = {pair for pair in pairs if not pair[0].startswith("search.optimizers.")}  # are as in search.space
    for key, names in REGISTERED.items():
        pairs = {pair for pair in pairs if pair[0] != key} | {(key, name) for name in names}
    schedules = LEARNING_RATE_SCHEDULES.values()
    parameters = {name for schedule in schedules for name in inspect.signature(schedule).parameters}
    return pairs | {(f"algorithm.learning_rate_schedule.{name}", ANY) for name in parameters}


def _of_model(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str]]:
    for name, field in model.model_fields.items():
        for annotation in (field.annotation, *field.metadata):
            yield from _of_type(annotation, prefix + (field.alias or name))


def _of_type(annotation: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from _of_model(annotation, f"{key}.")
    elif typing.get_origin(annotation) is Literal:
        yield from ((key, str(value)) for value in typing.get_args(annotation))
    elif annotation is bool:
        yield from ((key, "true"), (key, "false"))
    elif annotation in (int, float, str):
        yield key, ANY
    else:
        for argument in typing.get_args(annotation):
            yield from _of_type(argument, key)


def missing(rows: typing.Iterable[Row]) -> set[tuple[str, str]]:
    """What is wanted, and has no row."""
    named = wanted()
    found = {pair if pair in named else (pair[0], ANY) for pair in ((row.key, row.value) for row in rows)}
    return named - found


def explained(pairs: set[tuple[str, str]]) -> str:
    """What to type for what is missing."""
    lines = [f'    row("{key}", {"SOME VALUE" if value == ANY else repr(value)}),' for key, value in sorted(pairs)]
    told = (
        "these keys of a study have no row in tests/spec/key_values.py; add to ROWS, with what a study needs beside it,"
    )
    return "\n".join([f"{told} such as", '    row("margin", 2, "policy=race"),', "here:", *lines])


_LOG = "search.space.learning_rate={min: 0.05, max: 0.5, scale: log}"
_RATE = "search.space.learning_rate="
_SCHEDULE = "algorithm.learning_rate_schedule"
_COSINE = f"{_SCHEDULE}={{name: cosine, decay_steps: 20}}"
_DROPS = f"{_SCHEDULE}={{name: piecewise_constant, steps: [8, 16], factors: [0.5, 0.1]}}"
_GRID = "search.method=grid"
OWN = "tests/spec/key_workloads.py:Decayed"
_ONE_RATE = "search.space={learning_rate: 0.3}"
_BATCHES = ("budget={epochs: 3}", _ONE_RATE, "algorithm.batch_schedule.max_batch_size=512")
_NEEDED = {  # of a schedule's parameters, those without a default
    "decay_steps": "decay_steps: 20",
    "steps": "steps: [0, 16]",
    "factors": "factors: [1, 0.1]",
}


def _schedule(name: str) -> Row:
    signature = inspect.signature(LEARNING_RATE_SCHEDULES[name])
    given = [_NEEDED[n] for n, p in signature.parameters.items() if p.default is inspect.Parameter.empty]
    text = ", ".join([f"name: {name}", *given]).replace("[0, 16]", "[8, 16]" if "constant" in name else "[0, 16]")
    return row(f"{_SCHEDULE}.name", name, written=f"{_SCHEDULE}={{{text}}}")


def _searched() -> Iterator[Row]:
    """Every hyperparameter of any optimizer, in the space."""
    seen = {"learning_rate"}
    for name, rule in RULES.items():
        for hyperparameter, default in rule.hyperparameters.items():
            if hyperparameter not in seen:
                values = f"[{default or 0.001}, {0.9 * (default or 0.0)}]"
                yield row(f"search.space.{hyperparameter}", values, f"algorithm.optimizer={name}")
            seen.add(hyperparameter)


ROWS: tuple[Row, ...] = (
    row("workload", "noisy_quadratic/16", "goals=['validation/loss < 1.6']"),
    row("workload", "digits/mlp-8"),
    *(row("algorithm.optimizer", name) for name in RULES),
    row("algorithm.optimizer", "torch.optim.NAdam", "engine.program=loop"),
    row("algorithm.optimizer", OWN, "engine.program=auto", "search.space.strength=[0.1, 0.2]"),
    row(
        "search.space.momentum_decay", "[0.001, 0.004]", "engine.program=loop", "algorithm.optimizer=torch.optim.NAdam"
    ),
    *map(_schedule, LEARNING_RATE_SCHEDULES),
    row(_SCHEDULE, "'0.3, 0.05@1'"),
    row(_SCHEDULE, "tests/spec/key_workloads.py:falling"),
    row(_SCHEDULE, "'0.3, 0.05@1'", "search.space={weight_decay: [0, 1e-3]}"),
    row(_SCHEDULE, "'cosine 0.3, decay_steps=1, warm_up=0.5'"),
    row(f"{_SCHEDULE}.unit", "steps", _COSINE),
    row(f"{_SCHEDULE}.unit", "epochs", f"{_SCHEDULE}={{name: cosine, decay_steps: 1}}"),
    row(f"{_SCHEDULE}.unit", "budget", f"{_SCHEDULE}={{name: cosine, decay_steps: 1}}"),
    row(f"{_SCHEDULE}.decay_steps", 12, _COSINE),
    row(f"{_SCHEDULE}.decay_factor", 0.1, _COSINE),
    row("search.space.decay_factor", "[0.1, 0.01]", _COSINE),
    row(f"{_SCHEDULE}.power", 2, f"{_SCHEDULE}={{name: exponential_polynomial, decay_steps: 20}}"),
    row(f"{_SCHEDULE}.steps", "[4, 12]", _DROPS),
    row(f"{_SCHEDULE}.factors", "[0.3, 0.1]", _DROPS),
    row("algorithm.warm_up.name", "linear", "algorithm.warm_up.length=4"),
    row("algorithm.warm_up.name", "goyal"),
    row("algorithm.warm_up.name", "golmant", "algorithm.scaling_rule={name: linear, base_batch_size: 32}"),
    row("algorithm.warm_up.length", 4),
    row("search.space.warm_up_length", "[2, 4]", "algorithm.warm_up.name=linear"),
    row("algorithm.warm_up.unit", "steps", "algorithm.warm_up.length=4"),
    row("algorithm.warm_up.unit", "epochs", "algorithm.warm_up.length=0.5"),
    row("algorithm.warm_up.unit", "budget", "algorithm.warm_up.length=0.2"),
    row("algorithm.warm_up.start", 0.1, "algorithm.warm_up.length=4"),
    *(row("algorithm.scaling_rule.name", name, "algorithm.scaling_rule.base_batch_size=32") for name in SCALING_RULES),
    row("algorithm.scaling_rule.base_batch_size", 16, "algorithm.scaling_rule.name=square_root"),
    *(row("algorithm.batch_schedule.variant", v, *_BATCHES, _DROPS) for v in ("increase", "hybrid", "decay")),
    row("algorithm.batch_schedule.max_batch_size", 256, *_BATCHES, _DROPS),
    row("algorithm.batch_schedule.granularity", 32, *_BATCHES, _DROPS),
    row("algorithm.batch_schedule.learning_rate_factor", 1.5, *_BATCHES, _DROPS),
    row(
        "algorithm.batch_schedule.momentum_to",
        0.95,
        *_BATCHES,
        _DROPS,
        "algorithm.optimizer=momentum",
        "search.space.momentum=0.9",
    ),
    row("algorithm.first_epochs.batch_size", 32, *_BATCHES[:2]),
    row("algorithm.first_epochs.learning_rate_factor", 0.5, *_BATCHES[:2], "algorithm.first_epochs.batch_size=32"),
    row("algorithm.first_epochs.epochs", 0.5, *_BATCHES[:2], "algorithm.first_epochs.batch_size=32"),
    row("algorithm.ghost_batch_size", 16, "workload=tests/spec/key_workloads.py:batch_norm"),
    row("algorithm.label_smoothing", 0.1),
    row("algorithm.clip_gradient_norm", 1.0),
    row("algorithm.average_weights", 0.99),
    row("search.space.clip_gradient_norm", "[0.5, 1]"),
    row("search.space.average_weights", "{min: 0.9, max: 0.999, scale: reverse_log}"),
    row("search.space.label_smoothing", "[0, 0.1]"),
    row("algorithm.discard_small_loss.fraction", 0.2),
    row("algorithm.discard_small_loss.epochs", 0.5, "algorithm.discard_small_loss.fraction=0.2"),
    row("search.space.discard_fraction", "[0.1, 0.2]", "algorithm.discard_small_loss.fraction=0.2"),
    row("algorithm.weight_decay", 0.001),
    row("algorithm.hessian_probes", 2, "algorithm.optimizer=cblr_estimate"),
    row("batch_sizes", 64),
    row("batch_sizes", "[32, 64]"),
    row("batch_sizes.from", 32, written="batch_sizes={from: 32, to: 64}"),
    row("batch_sizes.to", 128, written="batch_sizes={from: 64, to: 128}"),
    row("batch_sizes.factor", 1.5, written="batch_sizes={from: 64, to: 100, factor: 1.5}"),
    row("search.method", "sobol", _LOG),
    row("search.method", "halton", _LOG),
    row("search.method", "random", _LOG),
    row("search.method", "grid"),
    row("search.method", "grid", "search.trials=4", "search.space.weight_decay=[0, 0.1]"),
    row("search.trials", 1),
    row("search.space.min", 0.1, written=_RATE + "{min: 0.1, max: 0.5}"),
    row("search.space.max", 0.4, written=_RATE + "{min: 0.1, max: 0.4}"),
    row("search.space.scale", "linear", written=_RATE + "{min: 0.1, max: 0.4, scale: linear}"),
    row("search.space.scale", "log", written=_RATE + "{min: 0.1, max: 0.4, scale: log}"),
    row("search.space.scale", "reverse_log", written=_RATE + "{min: 0.1, max: 0.4, scale: reverse_log}"),
    row("search.space.points", 2, _GRID, written=_RATE + "{min: 0.1, max: 0.4, points: 2}"),
    row("search.space.values", "[0.1, 0.3]", written=_RATE + "{values: [0.1, 0.3]}"),
    row("search.space", "{learning_rate: 0.3}"),
    row("search.optimizers", "[sgd, adam]"),
    row("search.optimizers", "{sgd: {learning_rate: 0.3}, adam: {beta1: [0.8, 0.9]}}", _GRID, "search.trials=5"),
    row("search.optimizers", f"{{sgd: {{}}, '{OWN}': {{strength: 0.1}}}}", "engine.program=auto"),
    row("search.optimizers", "{sgd: {learning_rate: {min: 0.2, max: 0.4}}, adam: {}}", "search.widen.rounds=1"),
    *_searched(),
    row("search.widen.edge", 0.2, _LOG, "search.widen.rounds=1"),
    row("search.widen.rounds", 1, _LOG),
    row("search.confirm.seeds", 1),
    row("search.confirm.seeds", 2),
    row("search.confirm.candidates", 1, "search.confirm.seeds=2"),
    row("goals", "['validation/error < 0.5', 'validation/error < 0.4']"),
    row("goals", "['train/loss < 1.5', 'train/error < 0.5']"),
    row("goals", "['validation/error < 1e-9']"),
    row("budget.epochs", 2, written="budget={epochs: 2}"),
    row("budget.steps", 24, written="budget={steps: 24}"),
    row("budget.examples", 2560, written="budget={examples: 2560}"),
    row("policy", "race"),
    row("policy", "full"),
    row("policy", "halving", "search.trials=4"),
    row("metrics", "[accuracy, top_2_error, perplexity]"),
    row("keep", "none"),
    row("keep", "best"),
    row("margin", 1),
    row("evaluation.ratio", 1.5),
    row("evaluation.first", 3),
    row("evaluation.train_examples", 40),
    row("evaluation.sequential", "true"),
    row("evaluation.sequential", "false"),
    row("engine.program", "traced", "workload=tests/spec/key_workloads.py:convolution"),
    *(row("engine.program", name) for name in ("auto", "loop", "traced", "compiled_loop", "vmap", "compiled")),
    row("engine.pack_size", "auto"),
    row("engine.pack_size", 1),
    row("engine.dtype", "float32"),
    row("engine.dtype", "float64"),
    row("engine.dtype", "bfloat16"),
    row("engine.threads", "auto"),
    row("engine.threads", 2),
    row("seed", 7),
)
