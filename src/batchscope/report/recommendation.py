"""The recommendation on the page: figure data as tables, charts of them, and the words around both."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
import polars as pl

from batchscope.advice.options import Option
from batchscope.advice.recommendation import Recommendation
from batchscope.advice.strong_scaling import sentence
from batchscope.amounts import bounds, count, counted, duration, number, percent
from batchscope.analysis import Interval
from batchscope.analysis.outcomes import PREFIX
from batchscope.report.axes import bare_axis, count_axis, log_range, short
from batchscope.report.marks import DASHES, EXACT, SYMBOLS, finish, marker, whiskers
from batchscope.report.markup import Cell, Chart, Section, Table
from batchscope.report.palette import LIGHT, NAMED, Palette
from batchscope.report.wording import chart_text, name, plain

_UNITS = (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))
TITLE = "Recommendation"


def time_unit(found: Recommendation) -> tuple[str, float]:
    """The unit that shows the times best, and how many seconds it has; steps on idealised hardware."""
    longest = max(found.options["time"].to_list())
    if found.idealised:
        return "steps", 1.0
    return next(((unit, size) for unit, size in _UNITS if longest >= 2 * size), _UNITS[-1])


def time_cost(found: Recommendation) -> pl.DataFrame:
    """The points of the time-cost figure: ``devices``, ``batch_size``, ``time``, ``cost``, with their intervals,
    ``pareto_front``, ``extrapolated``; times in ``time_unit``.
    """
    _, size = time_unit(found)
    times = [pl.col(column) / size for column in ("time", "time_low", "time_high")]
    rest = ("cost", "cost_low", "cost_high", "pareto_front", "extrapolated")
    return found.options.select("devices", "batch_size", *times, *rest).sort("devices", "batch_size")


def strong_scaling(found: Recommendation) -> pl.DataFrame:
    """The line of the strong-scaling figure: ``Recommendation.scaling`` with times in ``time_unit``, and ``ideal``."""
    _, size = time_unit(found)
    times = [pl.col(column) / size for column in ("time", "time_low", "time_high")]
    ideal = pl.col("time").first() * pl.col("devices").first() / pl.col("devices")
    return found.scaling.with_columns(times).with_columns(ideal=ideal)


def time_cost_chart(found: Recommendation, palette: Palette = LIGHT) -> go.Figure:
    """Cost against time, a mark for every option, and the line of the Pareto front."""
    points, unit = time_cost(found), time_unit(found)[0]
    figure = go.Figure()
    best = points.filter("pareto_front").sort("time")
    figure.add_scatter(
        x=[short(value) for value in best["time"]],
        y=[short(value) for value in best["cost"]],
        mode="lines",
        name="Pareto front: none is both faster and cheaper",
        hoverinfo="skip",
        line={"color": palette.ink, "width": 1.5, "dash": "dot"},
    )
    groups = points.partition_by("devices", maintain_order=True)
    for index, group in enumerate(groups):
        colour, symbol = palette.lines(len(groups))[index], SYMBOLS[index % len(SYMBOLS)]
        times, costs = group["time"].to_list(), group["cost"].to_list()
        shapes = [f"{symbol}-open" if beyond else symbol for beyond in group["extrapolated"]]
        figure.add_scatter(
            x=[short(value) for value in times],
            y=[short(value) for value in costs],
            error_x=whiskers(times, group["time_low"].to_list(), group["time_high"].to_list(), colour),
            text=[_hover(row, unit, found) for row in group.iter_rows(named=True)],
            hovertemplate=EXACT,
            mode="markers",
            name="every batch size" if found.idealised else counted(int(group.item(0, "devices")), "device"),
            marker=marker(colour, shapes, 9),
        )
    across = [value for column in ("time", "time_low", "time_high") for value in points[column]]
    axes = {
        "xaxis": count_axis(f"{unit} to the goal", across, palette),
        "yaxis": count_axis(_cost_title(found), points["cost"].to_list(), palette),
    }
    return finish(figure, palette, "Time and cost to the goal", height=480, **axes)


def strong_scaling_chart(found: Recommendation, palette: Palette = LIGHT) -> go.Figure:
    """Time of the fastest option against the number of devices, beside what perfect scaling would give."""
    lines, unit = strong_scaling(found), time_unit(found)[0]
    counts, times = lines["devices"].to_list(), lines["time"].to_list()
    figure = go.Figure()
    figure.add_scatter(
        x=counts,
        y=[short(value) for value in lines["ideal"]],
        mode="lines",
        name="perfect scaling",
        hoverinfo="skip",
        line={"color": palette.muted, "width": 1.5, "dash": "dash"},
    )
    figure.add_scatter(
        x=counts,
        y=[short(value) for value in times],
        error_y=whiskers(times, lines["time_low"].to_list(), lines["time_high"].to_list(), palette.series[0]),
        text=[
            f"{counted(row['devices'], 'device')}: <b>{number(row['time'])} {unit}</b><br>batch size "
            f"{number(int(str(row['batch_size'])))}, efficiency {percent(row['efficiency'])}"
            for row in lines.iter_rows(named=True)
        ],
        hovertemplate=EXACT,
        mode="lines+markers",
        name="best batch size at each",
        line={"color": palette.series[0], "width": 2, "dash": DASHES[0]},
        marker=marker(palette.series[0], SYMBOLS[0], 8),
    )
    ticks = {"tickvals": counts, "ticktext": [number(count) for count in counts]}
    across = bare_axis("devices", palette) | {"type": "log", "range": log_range(min(counts), max(counts)), **ticks}
    values = [value for column in ("time", "time_low", "time_high", "ideal") for value in lines[column]]
    up = count_axis(f"{unit} to the goal", values, palette)
    return finish(figure, palette, "What more devices bring", height=420, xaxis=across, yaxis=up)


def recommendation_section(found: Recommendation) -> Section:
    """The part of the page: what to choose and why, both figures, every option, and what it all rests on."""
    goal = plain(found.goal)
    shown = [Chart(time_cost_chart(found, NAMED), f"Cost against time to {goal}", "time-cost")]
    tables = [_chosen(found), _all(found)]
    if found.scaling.height > 1:
        shown.append(
            Chart(strong_scaling_chart(found, NAMED), f"Time to {goal} by number of devices", "strong-scaling")
        )
        tables.insert(1, _devices(found))
    paragraphs = [found.headline.sentence, sentence(found.scaling)]
    paragraphs += [verdict.sentence for verdict in (found.deadline, found.budget) if verdict is not None]
    paragraphs += [*found.assumptions, *(f"Note: {note}." for note in found.notes)]
    return Section(TITLE, [plain(text) for text in paragraphs if text], shown, tables)


def refused_section(reason: str) -> Section:
    """The part of the page where nothing can be recommended."""
    return Section(TITLE, [f"There is none: {plain(reason)}."])


def _chosen(found: Recommendation) -> Table:
    rows = [
        ("recommended", found.recommended),
        ("fastest", found.fastest),
        ("within 10% of the cheapest", found.balanced),
        ("cheapest", found.cheapest),
    ]
    for label, verdict in (("for the deadline", found.deadline), ("within the budget", found.budget)):
        if verdict is not None:
            rows.append((label, verdict.option))
    names = list(dict.fromkeys(name for _, option in rows for name in option.hyperparameters))
    known = {"optimizer": found.fastest.optimizer, "schedule": found.fastest.schedule}
    training = [head for head, value in known.items() if value]
    cells = []
    for label, option in rows:
        made = [Cell(value) for value in (option.optimizer, option.schedule) if value]
        point = [_value(option.hyperparameters.get(name)) for name in names]
        why = "; ".join([option.why, *option.remarks])
        cells.append([_value(option.batch_size), Cell(label), *_cells(option, found, point), *made, Cell("", note=why)])
    heads = ["batch size", "choice", *_heads(found, list(map(name, names))), *training, "why"]
    return Table("What to choose, and why", heads, cells)


def _all(found: Recommendation) -> Table:
    names = [column for column in found.options.columns if column.startswith(PREFIX)]
    remarked = found.options["remarks"].count() > 0
    rows = []
    for row in found.options.iter_rows(named=True):
        interval = bounds(row["time_low"], row["time_high"], count if found.idealised else duration)
        time = Cell(count(row["time"]) if found.idealised else duration(row["time"]), row["time"])
        cells = [_value(row["batch_size"]), *([] if found.idealised else [_value(row["devices"])])]
        cells += [time, Cell(interval, row["time_low"]), *(_value(row[column]) for column in names)]
        cells += [] if found.idealised else [Cell(count(row["steps"]), row["steps"])]
        cells += [Cell(count(row["cost"]) if found.idealised else number(row["cost"]), row["cost"])]
        cells += [Cell("yes" if row["pareto_front"] else "no")]
        rows.append([*cells, *([Cell("", note=row["remarks"] or "")] if remarked else [])])
    heads = [
        "batch size",
        *(["steps"] if found.idealised else ["devices", "time"]),
        f"{percent(found.level, 3)} interval",
    ]
    heads += [*(name(column.removeprefix(PREFIX)) for column in names), *([] if found.idealised else ["steps"])]
    heads += [_cost_title(found), "on the Pareto front", *(["remarks"] if remarked else [])]
    return Table("Every option", heads, rows)


def _devices(found: Recommendation) -> Table:
    rows = [
        [
            _value(row["devices"]),
            _value(row["batch_size"]),
            Cell(found.shown_time(row["time"]), row["time"]),
            _value(row["cost"]),
            Cell(f"{number(row['speedup'], 3)}×", row["speedup"]),
            Cell(percent(row["efficiency"]), row["efficiency"]),
        ]
        for row in found.scaling.iter_rows(named=True)
    ]
    heads = ["devices", "batch size", "time", _cost_title(found), "speedup", "efficiency"]
    return Table("The fastest batch size for each number of devices", heads, rows)


def _heads(found: Recommendation, names: list[str]) -> list[str]:
    """Of ``_cells``."""
    interval, cost = f"{percent(found.level, 3)} interval", [_cost_title(found), "interval of cost"]
    if found.idealised:
        return ["steps", interval, *names, *cost]
    energy = ["energy (kWh)", "interval of energy"] if found.fastest.energy else []
    return ["devices", "time", interval, *names, "steps", "micro batch", "passes", *cost, *energy]


def _cells(option: Option, found: Recommendation, point: list[Cell]) -> list[Cell]:
    time, cost, energy = option.time, option.cost, option.energy
    if found.idealised:
        ends = Cell(bounds(time.low, time.high, count), time.low)
        examples = [Cell(count(cost.value), cost.value), Cell(bounds(cost.low, cost.high, count), cost.low)]
        return [Cell(count(time.value), time.value), ends, *point, *examples]
    return [
        _value(option.devices),
        Cell(duration(time.value), time.value),
        Cell(bounds(time.low, time.high, duration), time.low),
        *point,
        Cell(count(option.steps.value), option.steps.value),
        _value(option.micro_batch_size),
        _value(option.accumulation_steps),
        _value(cost.value),
        _bounds(cost),
        *([] if energy is None else [_value(energy.value), _bounds(energy)]),
    ]


def _bounds(interval: Interval) -> Cell:
    return Cell(f"{number(interval.low, 3)} to {number(interval.high, 3)}", interval.low)


def _value(value: float | str | None) -> Cell:
    return Cell(value, value) if isinstance(value, str) else Cell(number(value, 4), value)


def _cost_title(found: Recommendation) -> str:
    return "cost" if found.cost_unit == "money" else found.cost_unit


def _hover(row: dict[str, object], unit: str, found: Recommendation) -> str:
    values: Sequence[float | None] = [row[column] for column in ("time", "time_low", "time_high", "cost")]  # type: ignore[misc]
    time, low, high, cost = values
    on = "" if found.idealised else f" on {counted(int(str(row['devices'])), 'device')}"
    lines = [
        f"batch size {number(int(str(row['batch_size'])))}{on}" + (" (extrapolated)" if row["extrapolated"] else ""),
        f"<b>{number(time)} {unit}</b>, {number(low)} to {number(high)}",
        f"{chart_text(_cost_title(found))} {number(cost)}",
    ]
    return "<br>".join(lines)
