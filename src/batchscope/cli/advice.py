"""A recommendation for a terminal of 80 columns."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from batchscope.advice.across import Across
from batchscope.advice.options import Option
from batchscope.advice.recommendation import Recommendation
from batchscope.advice.strong_scaling import sentence
from batchscope.advice.verdicts import Verdict
from batchscope.amounts import bounds, count, number, percent
from batchscope.analysis.headline import LEADING
from batchscope.cli.show import cell, print_table, printable
from batchscope.cli.show_answers import print_headline
from batchscope.errors import AnalysisError

_CHOICES = ("recommended", "fastest", "balanced", "cheapest", "deadline", "budget")


def whole_numbers(text: str, example: str) -> list[int]:
    """Read ``1,2,4``.

    Raises:
        AnalysisError: If there is anything else.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise AnalysisError(f"whole numbers with commas between them are wanted, got {text!r}: {example}") from None


def chosen(found: Recommendation, choice: str) -> Option:
    """An option by its name.

    Raises:
        AnalysisError: If there is no such choice, or no such limit was given.
    """
    if choice not in _CHOICES:
        raise AnalysisError(f"a choice is one of {', '.join(_CHOICES)}, got {choice!r}")
    option = getattr(found, choice)
    if option is None:
        raise AnalysisError(f"--choice {choice} needs --{choice} too")
    return option.option if isinstance(option, Verdict) else option


def print_recommendation(to: Console, found: Recommendation, *, everything: bool = False) -> None:
    """The answer and the other choices; with ``everything`` why, the Pareto front, and what it all rests on."""
    print_headline(to, found.headline, everything=everything)
    if everything:
        _print_all(to, found)
        return
    to.print(_choices(found))
    for verdict in (found.deadline, found.budget):
        if verdict is not None:
            to.print(Text(printable(verdict.sentence)))
    if found.scaling.height > 1:
        to.print(Text(sentence(found.scaling)))
    left_out = len(found.headline.further)
    reservations = f"{left_out} further reservation{'s' * (left_out != 1)}, " if left_out else ""
    to.print(Text(f"{reservations}every option and what this rests on: the same with --all"))
    if found.recommended.hyperparameters:
        to.print(Text("a script that trains this setting: the same with --snippet pytorch"))


def print_across(to: Console, found: Across) -> None:
    """Which of several runs to take, and what each would take."""
    to.print(Text(printable(str(found.chosen.goal)), style="bold"))
    to.print(Text(printable(found.sentence)))
    to.print(Text(printable(found.trust)))
    for caveat in found.chosen.headline.caveats:
        to.print(Text(f"! {printable(caveat)}"))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    heads = ["batch\nsize", *([] if found.chosen.idealised else ["devices", "time"]), "steps"]
    table.add_column("run", overflow="fold")
    for head in (*heads, f"{percent(found.chosen.level, 3)}\ninterval", "learning\nrate"):
        table.add_column(head, justify="right", no_wrap=True)
    for name, one in found.found.items():
        option = one.recommended
        cells = [printable(name), number(option.batch_size)]
        cells += [] if one.idealised else [number(option.devices), one.shown_time(option.time.value)]
        cells += [count(option.steps.value), bounds(option.steps.low, option.steps.high, count)]
        table.add_row(*map(Text, [*cells, cell(option.hyperparameters.get("learning_rate"))]))
    to.print(table)
    to.print(Text("their curves in one page: batchscope report with the same runs"))


def _choices(found: Recommendation) -> Table:
    """A row for every choice: within 60 columns what matters, behind it what fits."""
    rows = [("recommended", found.recommended), ("fastest", found.fastest), ("cheapest", found.cheapest)]
    if not _same(found.balanced, found.recommended):
        rows.append(("balanced", found.balanced))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    names = [name for name in LEADING if any(name in option.hyperparameters for _, option in rows)]
    lower = found.idealised and found.recommended.lower_bound
    heads = [
        "batch\nsize",
        "at least" if lower else "steps",
        f"{percent(found.level, 3)}\ninterval",
        *(name.replace("_", "\n") for name in names),
    ]
    if not found.idealised:
        heads[1:3] = ["devices", "time", "cost" if found.cost_unit == "money" else found.cost_unit]
    table.add_column("", no_wrap=True)
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for label, option in rows:
        cells = [label, number(option.batch_size)]
        if found.idealised:
            cells += [count(option.steps.value), bounds(option.steps.low, option.steps.high, count)]
        else:
            cells += [number(option.devices), found.shown_time(option.time.value), number(option.cost.value)]
        table.add_row(*map(Text, [*cells, *(cell(option.hyperparameters.get(name)) for name in names)]))
    return table


def _print_all(to: Console, found: Recommendation) -> None:
    choices = [("fastest", found.fastest), ("within 10% of the cheapest", found.balanced), ("cheapest", found.cheapest)]
    told: list[Option] = []
    for label, option in choices:
        same = [name for name, other in choices if _same(other, option) and name != label]
        if any(_same(option, other) for other in told):
            continue
        told.append(option)
        _print_option(to, ", ".join([label, *same]), option, found)
    for label, verdict in (("deadline", found.deadline), ("budget", found.budget)):
        if verdict is not None:
            to.print()
            to.print(Text(f"{label}: {verdict.sentence}"))
            if not any(_same(verdict.option, other) for other in told):
                _print_option(to, f"for the {label}", verdict.option, found)
    to.print()
    print_table(to, _pareto_front(found))
    if found.scaling.height > 1:
        print_table(to, _devices(found))
        to.print(Text(sentence(found.scaling)))
    to.print()
    to.print(Text("What this rests on", style="bold"))
    for line in found.assumptions:
        to.print(Text(f"- {printable(line)}"))
    for note in found.notes:
        to.print(Text(f"note: {printable(note)}"))


def _same(one: Option, other: Option) -> bool:
    return (one.batch_size, one.devices) == (other.batch_size, other.devices)


def _print_option(to: Console, label: str, option: Option, found: Recommendation) -> None:
    time, cost, energy = option.time, option.cost, option.energy
    to.print()
    to.print(Text(f"{label}: {option.place}", style="bold"))
    to.print(
        Text(f"  {found.shown_time(time.value)}  ({found.shown_time(time.low)} to {found.shown_time(time.high)})")
        if not found.idealised
        else Text(f"  {'at least ' * option.lower_bound}{_interval(option.steps)} steps")
    )
    unit = "" if found.cost_unit == "money" else f" {found.cost_unit}"
    to.print(Text(f"  {'cost ' if not unit else ''}{_interval(cost)}{unit}"))
    if energy is not None:
        to.print(Text(f"  {_interval(energy)} kWh"))
    if option.micro_batch_size is not None:
        passes = "1 pass" if option.accumulation_steps == 1 else f"{option.accumulation_steps} passes"
        share = f"{number(option.device_batch_size)} examples in {passes} of {number(option.micro_batch_size)}"
        to.print(Text(f"  {count(option.steps.value)} steps; on each device {share}"))
    point = ", ".join(f"{name} {cell(value)}" for name, value in option.hyperparameters.items())
    training = ", ".join(filter(None, [option.optimizer, point, option.schedule and f"schedule {option.schedule}"]))
    to.print(Text(f"  {printable(training) or 'hyperparameters not known: tune them there'}"))
    to.print(Text(f"  why: {option.why}"))
    for remark in option.remarks:
        to.print(Text(f"  ! {printable(remark)}"))


def _interval(found: object) -> str:
    value, low, high = (getattr(found, side) for side in ("value", "low", "high"))
    return f"{number(value)}  ({number(low)} to {number(high)})"


def _pareto_front(found: Recommendation) -> Table:
    table = Table(title="the time-cost Pareto front", title_justify="left")
    heads = ["batch size", "steps"] if found.idealised else ["batch size", "devices", "time"]
    heads += [f"{percent(found.level, 3)} interval", found.cost_unit, ""]
    for head in heads:
        table.add_column("cost" if head == "money" else head, justify="right")
    show = count if found.idealised else found.shown_time
    for option in found.pareto_front:
        bounds = f"{show(option.time.low)} to {show(option.time.high)}"
        cells = [number(option.batch_size), *([] if found.idealised else [number(option.devices)])]
        cells += [show(option.time.value), bounds, number(option.cost.value)]
        mark = "extrapolated" if option.extrapolated else "see !" if option.remarks else ""
        table.add_row(*map(Text, [*cells, mark]))
    return table


def _devices(found: Recommendation) -> Table:
    table = Table(title="the fastest batch size for each number of devices", title_justify="left")
    for head in ("devices", "batch size", "time", "speedup", "efficiency"):
        table.add_column(head, justify="right")
    for row in found.scaling.iter_rows(named=True):
        time, speedup = found.shown_time(row["time"]), f"{number(row['speedup'], 3)}x"
        cells = [number(row["devices"]), number(row["batch_size"]), time, speedup, percent(row["efficiency"])]
        table.add_row(*map(Text, cells))
    return table
