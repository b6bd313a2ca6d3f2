"""A chosen setting, ready to use: a study file with that one point, or a training loop in PyTorch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import torch
import yaml

from batchscope.advice.options import Option
from batchscope.amounts import bounds, count, number
from batchscope.errors import AnalysisError
from batchscope.optim.table import TABLE, arguments, own_arguments
from batchscope.plan.timeline import Timeline
from batchscope.spec.goal import Goal
from batchscope.spec.study import Study

Kind = Literal["yaml", "pytorch"]
KINDS = ("yaml", "pytorch")


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
    return f"{goal} expected after {count(steps.value)} updates ({bounds(steps.low, steps.high, count)})"


def _yaml(study: Study, option: Option, goal: Goal) -> str:
    document = study.model_dump(mode="json", exclude_none=True)
    document["batch_sizes"] = [option.batch_size]
    document["search"] = {"trials": 1, "space": dict(option.hyperparameters), "confirm": {"seeds": 0}}
    document["goals"] = [str(goal)]
    body = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    return f"# {_setting(option)}\n# {_expected(option, goal)}\n{body}"


def _pytorch(study: Study, option: Option, goal: Goal, train_size: int | None) -> str:
    algorithm = study.algorithm
    row = TABLE.get(algorithm.optimizer)
    cls = f"bs.optim.{row.cls}" if row else re.split(r"\.py:", algorithm.optimizer)[-1]
    optimizer = f"{cls}(model.parameters(), {_arguments(study, option, train_size)})"
    backward = ", backward=optimizer.backward" if row and row.needs_hessian_diagonal else ""
    limit, decay = (
        option.hyperparameters.get(name, getattr(algorithm, name)) for name in ("clip_gradient_norm", "average_weights")
    )
    clipping = [f"        torch.nn.utils.clip_grad_norm_(model.parameters(), {limit!r})"] if limit is not None else []
    averaging, averaged, average_in_place = [], [], []
    if row and row.averages:
        average_in_place = ["    optimizer.eval()  # puts the average in the place of the weights"]
    if decay is not None:
        averaging = [
            f"    keep = torch.optim.swa_utils.get_ema_multi_avg_fn({decay!r})",
            "    trained, average = model, torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=keep)",
        ]
        averaged = ["        average.update_parameters(trained)"]
    micro = option.micro_batch_size or option.batch_size
    passes = option.accumulation_steps or 1
    ghost = [f"    model, _ = bs.nn.convert_ghost_batch_norm(model, {algorithm.ghost_batch_size})"]
    lines = [
        f"# {_setting(option)}",
        f"# {_expected(option, goal)}",
        "from contextlib import nullcontext",
        "",
        "import torch",
        "",
        "import batchscope as bs",
        *(f"from {Path(file).stem} import {name}" for file, _, name in (f.rpartition(":") for f in algorithm.files)),
        "",
        f"DEVICES = {option.devices}"
        + (f"  # start with torchrun --nproc-per-node {option.devices}" if option.devices > 1 else ""),
        f"BATCH_SIZE = {option.device_batch_size}  # of one device, for one update" + _uneven(option),
        f"MICRO_BATCH_SIZE = {micro}  # of one pass: {passes} {'pass' if passes == 1 else 'passes'} an update",
        f"UPDATES = {max(1, round(option.steps.value or 1))}  # expected; watch the goal, {goal}",
        "",
        "",
        "def batches(dataset):",
        "    epoch, sampler = 0, None",
        "    if DEVICES > 1:",
        "        sampler = torch.utils.data.DistributedSampler(dataset)",
        "    while True:",
        "        if sampler is not None:",
        "            sampler.set_epoch(epoch)",
        "        yield from torch.utils.data.DataLoader(",
        "            dataset, batch_size=BATCH_SIZE, shuffle=sampler is None, sampler=sampler, drop_last=True",
        "        )",
        "        epoch += 1",
        "",
        "",
        "def train(model, loss, dataset):",
        '    """loss(outputs, targets) is the mean over the examples; dataset gives (input, target)."""',
        *(ghost if algorithm.ghost_batch_size else []),
        *_not_in_the_loop(study),
        *averaging,
        "    if DEVICES > 1:  # after torch.distributed.init_process_group()",
        "        model = torch.nn.parallel.DistributedDataParallel(model)",
        "    no_sync = model.no_sync if DEVICES > 1 else nullcontext",
        f"    optimizer = {optimizer}",
        f"    schedule = {_schedule(study, option, train_size)}",
        "    scheduler = bs.schedules.ScheduledLR(optimizer, schedule)",
        "    for _, batch in zip(range(UPDATES), batches(dataset)):",
        "        optimizer.zero_grad()",
        "        bs.schedules.accumulate_gradients(",
        "            lambda part: loss(model(part[0]), part[1]), batch, MICRO_BATCH_SIZE, no_sync=no_sync" + backward,
        "        )",
        *clipping,
        "        optimizer.step()",
        *averaged,
        "        scheduler.step()",
        *average_in_place,
        "    return average.module" if averaging else "    return model",
        "",
    ]
    return "\n".join(lines)


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
    return ", ".join(f"{name}={value!r}" for name, value in (used | dict(row.options)).items())


def _schedule(study: Study, option: Option, train_size: int | None) -> str:
    """The learning-rate schedule in updates at this batch size, warm-up included, as an expression."""
    timeline = Timeline(study, option.batch_size, train_size)
    searched = {name: float(option.hyperparameters[name]) for name in timeline.searched}
    schedule = timeline.rate(searched)  # type: ignore[arg-type]  # numbers do where tensors do
    return re.sub(r"\b([A-Z]\w*)\(", r"bs.schedules.\1(", repr(schedule))


def _not_in_the_loop(study: Study) -> list[str]:
    """What the study trained with, and the loop leaves to the caller."""
    algorithm, lines = study.algorithm, []
    if algorithm.label_smoothing or "label_smoothing" in study.search.space:
        shown = algorithm.label_smoothing or "as found"
        lines.append(f"    # The study smoothed labels ({shown}): loss must do so too.")
    if algorithm.discard_small_loss is not None:
        lines.append("    # The study left out small losses: loss must do so too, with bs.schedules.SmallLossDiscard.")
    return lines
