"""A chosen setting, ready to use: a study file with that one point, or a training loop in PyTorch."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Literal

import torch
import yaml

from batchscope.advice.options import Option
from batchscope.amounts import bounds, count, number, percent
from batchscope.errors import AnalysisError
from batchscope.optim.table import TABLE, arguments, own_arguments
from batchscope.plan.timeline import Timeline
from batchscope.spec.goal import Goal
from batchscope.spec.space import OPTIMIZER
from batchscope.spec.study import Study
from batchscope.user_file import parted
from batchscope.workloads import is_file

Kind = Literal["yaml", "pytorch"]
KINDS = ("yaml", "pytorch")
_SEEDS = 5  # with which the setting of a study is trained again
_PATIENCE = 4.0  # times the upper end of the promise, after which a script gives up


def snippet(study: Study | None, option: Option, goal: Goal, kind: str, *, train_size: int | None = None) -> str:
    """The setting as text.

    Args:
        study: What was run; None for an imported run, of which there is no snippet.
        option: The chosen setting.
        goal: What it is to reach.
        kind: ``yaml`` for a study file, ``pytorch`` for a training loop.
        train_size: Examples in an epoch; needed where the schedule is in epochs or shares of a budget in epochs.

    Raises:
        AnalysisError: If there is no such kind, or nothing is known of the optimizer or its hyperparameters.
    """
    if kind not in KINDS:
        raise AnalysisError(f"a snippet is {' or '.join(KINDS)}, got {kind!r}")
    if study is None:
        raise AnalysisError("an imported run does not say how it was trained, so there is no snippet of it")
    if not option.hyperparameters:
        raise AnalysisError(
            f"{option.place} was never trained, so its hyperparameters are not known: run the study there, or leave "
            "out --extrapolate"
        )
    study = study.of(option.hyperparameters)
    setting = {name: value for name, value in option.hyperparameters.items() if name != OPTIMIZER}
    option = replace(option, hyperparameters=setting)
    return _yaml(study, option, goal) if kind == "yaml" else _pytorch(study, option, goal, train_size)


def _setting(option: Option) -> str:
    text = option.place
    if option.step_seconds is not None:
        text += f", {number(option.device_batch_size)} examples on each"
    if option.accumulation_steps is not None and option.micro_batch_size is not None:
        text += f" in {option.accumulation_steps} x {number(option.micro_batch_size)}"
    return text


def _expected(option: Option, goal: Goal) -> str:
    steps = option.steps
    if option.lower_bound:
        return f"{goal} expected after at least {count(steps.value)} updates"
    return f"{goal} expected after about {count(steps.value)} updates ({bounds(steps.low, steps.high, count)})"


def _yaml(study: Study, option: Option, goal: Goal) -> str:
    document = study.model_dump(mode="json", exclude_none=True)
    document["batch_sizes"] = [option.batch_size]
    again = {"trials": 1, "space": dict(option.hyperparameters), "confirm": {"seeds": _SEEDS}}
    document |= {"search": again, "goals": [str(goal)], "seed": study.seed + 1}
    body = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    head = [
        _setting(option),
        _expected(option, goal),
        "trained anew here, with other seeds: save this as again.yaml, then",
    ]
    head += ["    batchscope run again.yaml -o runs/again", "    batchscope report RUN runs/again   # RUN: the search"]
    return "".join(f"# {line}\n" for line in head) + body


def _pytorch(study: Study, option: Option, goal: Goal, train_size: int | None) -> str:
    """A script: ``train`` is a plain loop, what is around it brings workload, goal and promise."""
    return "\n".join([*_heading(study, option, goal), *_train(study, option, train_size), *_main(study, option), ""])


def _heading(study: Study, option: Option, goal: Goal) -> list[str]:
    steps, devices = option.steps, option.devices
    start = f"torchrun --nproc-per-node {devices} this.py" if devices > 1 else "python this.py [SEED]"
    micro, passes = option.micro_batch_size or option.batch_size, option.accumulation_steps or 1
    files = [_named(file) for file in study.algorithm.files]
    most = max(1, math.ceil(_PATIENCE * max(steps.high or 0, steps.value or 1)))
    low = None if option.lower_bound or steps.low is None else math.floor(steps.low)
    high = None if option.lower_bound or steps.high is None else math.ceil(steps.high)
    return [
        f"# {_setting(option)}",
        f"# {_expected(option, goal)}",
        f"# Run it: {start}",
        "import os",
        "import sys",
        "from contextlib import nullcontext",
        "",
        "import torch",
        "",
        "import batchscope as bs",
        *(["from batchscope.user_file import member"] if files else []),
        "",
        f"WORKLOAD = {_workload(study)!r}",
        f"GOAL = {str(goal)!r}",
        f"DEVICES = {devices}",
        f"BATCH_SIZE = {option.device_batch_size}  # of one device, for one update" + _uneven(option),
        f"MICRO_BATCH_SIZE = {micro}  # of one pass: {passes} {'pass' if passes == 1 else 'passes'} an update",
        f"PROMISED = ({low}, {high})  # updates that {percent(steps.level, 3)} of fresh trainings take; None is open",
        f"MOST = {most}  # updates after which to give up",
        *_extras(study, option),
        *(f"{name} = member({reference!r}, {kind!r})" for name, reference, kind in files),
        "",
        "",
    ]


def _extras(study: Study, option: Option) -> list[str]:
    """What the loss of the study had besides, as constants of the script."""
    algorithm, lines = study.algorithm, []
    smoothing = option.hyperparameters.get("label_smoothing", algorithm.label_smoothing)
    if smoothing:
        lines.append(f"LABEL_SMOOTHING = {smoothing!r}")
    small = algorithm.discard_small_loss
    if small is not None:
        fraction = option.hyperparameters.get("discard_fraction", small.fraction)
        lines.append(f"DISCARD = bs.schedules.SmallLossDiscard({fraction!r}, {small.epochs or math.inf!r})")
    return [line.replace("inf)", 'float("inf"))') for line in lines]


def _train(study: Study, option: Option, train_size: int | None) -> list[str]:
    algorithm = study.algorithm
    row = TABLE.get(algorithm.optimizer)
    averages = row is not None and row.averages
    backward = ", backward=optimizer.backward" if row and row.needs_hessian_diagonal else ""
    limit, decay = (
        option.hyperparameters.get(name, getattr(algorithm, name)) for name in ("clip_gradient_norm", "average_weights")
    )
    learnt = "average.module" if decay is not None else "bare"
    lines = ["def train(model, batches, loss, reached=lambda model: False, updates=MOST):"]
    lines += ['    """Train until ``reached``; the model, and after how many updates, or None."""']
    if algorithm.ghost_batch_size:
        lines += [f"    model, _ = bs.nn.convert_ghost_batch_norm(model, {algorithm.ghost_batch_size})"]
    if decay is not None:
        lines += [
            f"    keep = torch.optim.swa_utils.get_ema_multi_avg_fn({decay!r})",
            "    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=keep)",
        ]
    lines += [
        "    bare = model",
        "    if DEVICES > 1:",
        "        model = torch.nn.parallel.DistributedDataParallel(model)",
        "    no_sync = model.no_sync if DEVICES > 1 else nullcontext",
        f"    optimizer = {_optimizer(study, option, train_size)}",
        f"    schedule = {_schedule(study, option, train_size)}",
        "    scheduler = bs.schedules.ScheduledLR(optimizer, schedule)",
        "    evaluated = 0",
        "    for update, batch in zip(range(1, updates + 1), batches):",
        "        optimizer.zero_grad()",
        "        bs.schedules.accumulate_gradients(",
        "            lambda part: loss(model, part, update - 1), batch, MICRO_BATCH_SIZE, no_sync=no_sync" + backward,
        "        )",
        *([f"        torch.nn.utils.clip_grad_norm_(model.parameters(), {limit!r})"] if limit is not None else []),
        "        optimizer.step()",
        *(["        average.update_parameters(bare)"] if decay is not None else []),
        "        scheduler.step()",
        f"        if update >= {study.evaluation.ratio!r} * evaluated or update == updates:",
        "            evaluated = update",
        *(
            ["            optimizer.eval()  # puts the average in the place of the weights"]
            if row and row.averages
            else []
        ),
        f"            if reached({learnt}):",
        f"                return {learnt}, update",
        *(["            optimizer.train()"] if averages else []),
        *(["    optimizer.eval()"] if averages else []),
        f"    return {learnt}, None",
        "",
        "",
    ]
    return lines


def _main(study: Study, option: Option) -> list[str]:
    algorithm, extras = study.algorithm, []
    if option.hyperparameters.get("label_smoothing", algorithm.label_smoothing):
        extras.append("label_smoothing=LABEL_SMOOTHING")
    if algorithm.discard_small_loss is not None:
        extras.append("discard=DISCARD, epoch=update * BATCH_SIZE * DEVICES / hand.train_size")
    loss = f"lambda model, part, update: hand.loss({', '.join(['model', 'part', *extras])})"
    given = f", dtype={study.engine.dtype!r}" if study.engine.dtype != "float32" else ""
    given += f", metrics={study.metrics!r}" if study.metrics else ""
    sampled = study.evaluation.train_examples
    given += f", train_examples={sampled}" if sampled else ""
    return [
        'if __name__ == "__main__":',
        f"    seed = int(sys.argv[1]) if len(sys.argv) > 1 else {study.seed + 1}",
        "    rank = 0",
        '    device = "auto"',
        "    if DEVICES > 1:",
        "        torch.distributed.init_process_group()",
        "        rank = torch.distributed.get_rank()",
        '        device = f"cuda:{os.environ[\'LOCAL_RANK\']}" if torch.cuda.is_available() else "cpu"',
        f"    hand = bs.ByHand(WORKLOAD, seed=seed, device=device{given})",
        "    model, took = train(",
        "        hand.model(),",
        "        hand.batches(BATCH_SIZE, rank=rank, ranks=DEVICES),",
        f"        {loss},",
        "        lambda model: hand.reached(model, GOAL),",
        "    )",
        "    if rank == 0:",
        "        low, high = PROMISED",
        '        print(f"{GOAL} after {took} updates" if took else f"{GOAL} not reached in {MOST} updates", end="; ")',
        "        if low is None and high is None:",
        '            print("nothing was promised, for the setting had not been trained again")',
        "        elif took and took <= (high or took):",
        '            more = ", and more than that" if took < (low or 0) else ""',
        '            print(f"the promise of {low} to {high} was kept{more}")',
        "        else:",
        '            print(f"the promise of {low} to {high} was not kept")',
        "    if DEVICES > 1:",
        "        torch.distributed.destroy_process_group()",
    ]


def _workload(study: Study) -> str:
    """Its name; that of a file with the folder, so that the script runs from anywhere."""
    return _absolute(study.workload) if is_file(study.workload) else study.workload


def _absolute(reference: str) -> str:
    path, name = parted(reference)
    return f"{path}:{name}"


def _named(reference: str) -> tuple[str, str, str]:
    """What a file of the algorithm's is called in the script, where it is, and what it is."""
    name = reference.rpartition(":")[2]
    return name, _absolute(reference), "optimizer" if name[:1].isupper() else "schedule"


def _optimizer(study: Study, option: Option, train_size: int | None) -> str:
    """The expression that makes the optimizer: torch's own class where it does the same."""
    name, given = study.algorithm.optimizer, _arguments(study, option, train_size)
    row = TABLE.get(name)
    if row is None:
        return f"{name.rpartition(':')[2]}(model.parameters(), {given})"
    cls = f"torch.optim.{row.torch}" if row.torch else f"bs.optim.{row.cls}"
    further = "".join(f", {key}={value!r}" for key, value in row.torch_options.items()) if row.torch else ""
    return f"{cls}(model.parameters(), {given}{further})"


def _uneven(option: Option) -> str:
    """A batch that the devices cannot share equally becomes a little larger."""
    whole = option.device_batch_size * option.devices
    return "" if whole == option.batch_size else f"; {whole} over all, where {option.batch_size} was measured"


def _arguments(study: Study, option: Option, train_size: int | None) -> str:
    """Every hyperparameter of the rule, carried to this batch size where the study has a scaling rule."""
    point = {name: value for name, value in option.hyperparameters.items() if not isinstance(value, str)}
    values_given = study.algorithm.hyperparameters(point)
    given = {name: torch.tensor(value, dtype=torch.float64) for name, value in values_given.items()}
    scaled = Timeline(study, option.batch_size, train_size).scaled(given)
    row = TABLE.get(study.algorithm.optimizer)
    names = row.defaults if row else sorted(scaled, key=lambda name: name != "learning_rate")  # which comes first
    rounded = {name: float(f"{float(scaled[name]):.10g}") for name in names}
    if row is None:
        return ", ".join(f"{name}={value!r}" for name, value in own_arguments(rounded).items())
    used = arguments(rounded)
    if row.needs_hessian_diagonal:
        used["probes"] = study.algorithm.hessian_probes
    return ", ".join(f"{name}={value!r}" for name, value in (used | ({} if row.torch else dict(row.options))).items())


def _schedule(study: Study, option: Option, train_size: int | None) -> str:
    """The learning-rate schedule in updates at this batch size, warm-up included, as an expression."""
    timeline = Timeline(study, option.batch_size, train_size)
    searched = {name: float(option.hyperparameters[name]) for name in timeline.searched}
    schedule = timeline.rate(searched)  # type: ignore[arg-type]  # numbers do where tensors do
    return re.sub(r"\b([A-Z]\w*)\(", r"bs.schedules.\1(", repr(schedule))
