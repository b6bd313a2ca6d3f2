"""A run folder, and the answers that its measurements give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from batchscope import report
from batchscope.analysis import Answers, Curve, Given, Refused, answered, needed, steps_to_result, summary
from batchscope.analysis.audit import Space
from batchscope.analysis.regimes import OVERHEAD
from batchscope.errors import AnalysisError, StoreError, StudyError
from batchscope.exchange.imported import in_our_words, is_tuned, lacks, selected
from batchscope.runs.planned import left_out, planned, spaces
from batchscope.spec import documents
from batchscope.spec.goal import Goal
from batchscope.spec.space import Range
from batchscope.spec.study import Study
from batchscope.store.states import weights_name
from batchscope.store.store import Store, find_runs

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
    from torch import Tensor

    from batchscope.advice.options import Option
    from batchscope.advice.recommendation import Recommendation
    from batchscope.report.markup import Section


class Run:
    """A run folder opened for reading; a driver may be writing to it meanwhile.

    Attributes:
        folder: Where it lies.
        study: What was run; None for a run that was imported.
        workload: The workload's name.
        goals: The goals of the study; an imported run may have none.
        provenance: Versions, hardware, seeds, and the programs that were chosen.
        not_counted: Trials of an earlier study in the same folder, as of the last reading.
    """

    def __init__(self, folder: str | Path) -> None:
        """Read the study and the provenance.

        Raises:
            StoreError: If the folder holds no run, or its study is damaged.
            AnalysisError: If it holds several.
        """
        self.folder = Path(folder)
        inside = [found for found in find_runs(self.folder) if found != self.folder]
        if inside and not (self.folder / "study.yaml").exists():
            names = ", ".join(str(found) for found in inside[:5]) + (", ..." if len(inside) > 5 else "")
            raise AnalysisError(f"{self.folder} holds {len(inside)} runs; give one of them: {names}")
        self._store = Store.open(self.folder)
        self.not_counted = 0
        self._answers: dict[tuple[Goal, bool], Answers] = {}
        self._answered_of: pl.DataFrame | None = None
        self.provenance = self._store.provenance
        try:
            self._read_study()
        except StudyError as error:
            raise StoreError(f"{error}\nput the study of this run back under this name") from None

    def _read_study(self) -> None:
        source = str(self.folder / "study.yaml")
        self._document = documents.load(self._store.study_text, source)
        self.study: Study | None = None
        self.goals: tuple[Goal, ...]
        if "imported" in self._document:
            self.workload = str(self._document.get("workload", ""))
            given = self._document.get("goals") or []
            if not isinstance(given, list):
                raise StudyError(f"{source}: goals: must be a list, got {given!r:.80}")
            self.goals = tuple(in_our_words(Goal.parse(str(goal)), self._document) for goal in given)
        else:
            self.study = Study.from_mapping(self._document, source)
            self.workload, self.goals = self.study.workload, self.study.goals

    @property
    def trials(self) -> pl.DataFrame:
        """One row for each trial that counts: id, batch size, hyperparameters, status, steps."""
        return self._tables()[0]

    @property
    def measurements(self) -> pl.LazyFrame:
        """One row for each evaluation of each trial: step, examples, epoch, metrics, seconds."""
        return self._tables()[1]

    @property
    def driver(self) -> str | None:
        """Host and process of the driver at work on the folder; None if there is none."""
        return self._store.driver

    @property
    def warnings(self) -> list[str]:
        """What was found damaged or lost, and what a replay may not repeat, one line each."""
        self._tables()  # what is damaged shows when it is read
        return [*self._store.warnings, *left_out(self.not_counted), *map(str, self.provenance.get("remarks", []))]

    @property
    def notes(self) -> list[str]:
        """What was used of the workload's data as it was given, and what its form costs, one line each."""
        return [str(note) for note in self.provenance.get("notes", [])]

    def steps_to_result(self, goal: str | Goal | None = None, *, equal_trials: bool = False) -> Curve:
        """The curve of a goal, by default of the study's first one.

        A text that is no goal is a ``StudyError``; a metric that was not measured, or a run without trials, an
        ``AnalysisError``.

        Args:
            goal: Such as ``"validation/error < 0.15"``; a goal of the study, or one that no evaluation ended too early
                for.
            equal_trials: Take the same number of trials at every batch size.
        """
        return self.curves([] if goal is None else [goal], equal_trials=equal_trials)[0]

    def curves(self, goals: Sequence[str | Goal] = (), *, equal_trials: bool = False) -> list[Curve]:
        """The curves of several goals, by default of all of the study's; errors are those of ``steps_to_result``."""
        return [one.curve for one in self.answers(goals, equal_trials=equal_trials)]

    def summary(
        self, goals: Sequence[str | Goal] = (), *, equal_trials: bool = False, overhead: float = OVERHEAD
    ) -> dict[str, Any]:
        """The document of ``summary.json``: the curve and the regimes of every goal, by default the study's.

        Errors are those of ``steps_to_result``; ``overhead`` is that of ``Regimes.at_overhead``.
        """
        asked = self.answers(goals, equal_trials=equal_trials)
        found = summary(asked, workload=self.workload, overhead=overhead)
        return found | {"not_counted": self.not_counted}

    def answers(self, goals: Sequence[str | Goal] = (), *, equal_trials: bool = False) -> list[Answers]:
        """The curve and every other analysis of several goals, by default of all of the study's.

        Each is computed when it is first read and kept, until trials are added to the run.
        """
        asked = self._goals(goals)
        trials, measurements = self._tables()
        if self._answered_of is None or not trials.equals(self._answered_of):
            self._answers, self._answered_of = {}, trials
        fresh = [goal for goal in asked if (goal, equal_trials) not in self._answers]
        if fresh:
            tables = needed(trials, measurements, [goal.metric for goal in fresh])
            for goal in fresh:
                self._answers[goal, equal_trials] = Answers(
                    Given(*tables, goal, lacks(self._document)), self._curve(equal_trials)
                )
        return [self._answers[goal, equal_trials] for goal in asked]

    def weights(self, batch_size: int, goal: str | Goal | None = None) -> dict[str, Tensor]:
        """The weights of the winner of a batch size as it reached a goal: ``model.load_state_dict(run.weights(64))``.

        Args:
            batch_size: Of the study.
            goal: By default the study's first.

        Raises:
            AnalysisError: If no trial reached the goal there, or its weights were not kept.
        """
        curve = self.steps_to_result(goal)
        point = curve.table.filter(pl.col("batch_size") == batch_size, pl.col("steps").is_not_null())
        if point.is_empty():
            raise AnalysisError(f"no trial of batch size {batch_size} reached {curve.goal}: there are no such weights")
        key = weights_name(batch_size, point.item(0, "winner"), point.item(0, "steps"))
        found, fault = self._store.weights(key)
        if found is None:
            raise AnalysisError(f"{fault}: run the study in a new folder with `keep: best` to keep weights")
        return found

    @property
    def weights_line(self) -> str | None:
        """A line of code that loads kept weights; None where the study keeps none."""
        if self.study is None or self.study.keep == "none":
            return None
        return f"model.load_state_dict(bs.open_run({str(self.folder)!r}).weights({self.study.batch_sizes[-1]}))"

    def status(self) -> dict[str, Any]:
        """How far the run is: who drives it, and for every batch size the trials by status and the best steps.

        Its ``state`` is ``running``, ``finished``, ``unfinished`` (stopped, killed or not begun) or ``imported``.
        """
        trials, measurements = self._tables()
        driver = self.driver
        columns = measurements.collect_schema().names()
        best: dict[str, dict[int, int]] = {}
        for goal in self.goals:
            value = pl.col(goal.metric)
            beyond = value < goal.threshold if goal.side == "<" else value > goal.threshold
            found = measurements.filter(beyond) if goal.metric in columns else measurements.clear()
            best[str(goal)] = dict(found.group_by("batch_size").agg(pl.col("step").min()).collect().iter_rows())
        waiting = {} if driver else {"running": "unfinished"}  # where nobody drives it, nothing is running
        counts = {
            size: {waiting.get(name, name): n for name, n in group["status"].value_counts(sort=True).iter_rows()}
            for (size,), group in trials.partition_by("batch_size", as_dict=True).items()
        }
        sizes = sorted({*counts, *(self.study.batch_sizes if self.study else ())})
        return {
            "workload": self.workload,
            "state": "running"
            if driver
            else self._state(any("unfinished" in statuses for statuses in counts.values())),
            "driver": driver,
            "not_counted": self.not_counted,
            "batch_sizes": [
                {
                    "batch_size": size,
                    "trials": counts.get(size, {}),
                    "best": {goal: steps.get(size) for goal, steps in best.items()},
                }
                for size in sizes
            ],
        }

    def _state(self, lacking: bool) -> str:
        """Of a run that nobody drives; the driver's note is true while there is as much as there was then."""
        if self.study is None:
            return "imported"
        noted = self.provenance.get("finished")
        done = isinstance(noted, dict) and noted.get("trials") == len(self._store.trials()) and not lacking
        return "finished" if done else "unfinished"

    def snippet(self, option: Option, kind: str = "yaml", *, goal: str | Goal | None = None) -> str:
        """An option of a recommendation, ready to use: a study file with that one point, or a PyTorch loop.

        An imported run, an option that was never trained, or another kind than ``yaml`` and ``pytorch``, is an
        ``AnalysisError``.

        Args:
            option: Such as ``recommendation.fastest``.
            kind: ``yaml`` or ``pytorch``.
            goal: That the recommendation was for, by default the study's first.
        """
        from batchscope.advice.snippet import snippet  # here, because it loads torch

        aim = self._goals([] if goal is None else [goal])[0]
        return snippet(self.study, option, aim, kind, train_size=self._train_size())

    def _train_size(self) -> int | None:
        """Examples in an epoch, as the evaluations tell them."""
        evaluations = self.measurements
        if not {"examples", "epoch"} <= set(evaluations.collect_schema().names()):
            return None
        known = evaluations.filter(pl.col("epoch").is_finite() & (pl.col("epoch") > 0))
        last = known.select("examples", "epoch").sort("examples").last().collect()
        return None if last.is_empty() else round(last.item(0, "examples") / last.item(0, "epoch"))

    def write_report(self, *, live: bool = False, advice: Recommendation | None = None) -> Path:
        """Write ``summary.json`` and ``report.html``; returns the path of the report.

        Errors are those of ``steps_to_result``.

        Args:
            live: Whether the run goes on; then the page says so and reloads itself.
            advice: The recommendation to show; by default that for the first goal on idealised hardware.
        """
        trials, measurements = self._tables()
        answers = self.answers()
        document = summary(answers, workload=self.workload, analyses=not live) | {"not_counted": self.not_counted}
        self._store.write_summary(document)
        with_curve = answered(answers)
        first = with_curve[0]
        further = [] if live else [*report.sections.on_test(first.curve), *report.sections.sections(first)]
        html = report.page.render(
            [one.curve for one in with_curve],
            trials,
            measurements,
            outcomes={one.goal: one.given.outcomes for one in with_curve},
            refused={str(one.goal): refused.reason for one in answers for refused in one.refusals},
            summary=document,
            study_text=self._store.study_text,
            provenance=self.provenance,
            title=self.workload,
            live=live,
            sections=() if live else [self._advice(first.curve, advice), *further],
            first=None if advice is None else advice.headline,
        )
        return self._store.write_report(html)

    def _advice(self, curve: Curve, given: Recommendation | None) -> Section:
        """What to do, or why that cannot be said."""
        from batchscope.advice.recommend import of_study  # here, because it knows what a run is

        try:
            return report.recommendation.recommendation_section(given or of_study(curve, self.study))
        except Exception as error:  # what is advised must not cost the page what was measured
            return report.recommendation.refused_section(Refused(error).reason)

    def figure(self, goal: str | Goal | None = None) -> Figure:
        """The curve of a goal, by default of the study's first one, as a Plotly figure, which a notebook draws."""
        return report.charts.steps_to_result(self.steps_to_result(goal))

    def picture(self) -> str:
        """The curves of the study's goals as a still SVG, for a README or a paper; errors are those of ``curves``."""
        return report.picture.steps_to_result([one.curve for one in answered(self.answers())], title=self.workload)

    def _tables(self) -> tuple[pl.DataFrame, pl.LazyFrame]:
        """Trials and measurements of one moment, as far as they count."""
        trials, measurements = self._store.tables()
        found = self.counted(trials)
        if self.not_counted:
            measurements = measurements.join(found.lazy().select("trial"), on="trial", how="semi")
        return found, measurements

    def counted(self, trials: pl.DataFrame) -> pl.DataFrame:
        """Of the trials in the folder those that the study plans, or that the source of an imported run would take."""
        if self.study is None:
            return selected(trials, self._document)
        found = planned(trials, self.study, self._store.provenance, self.folder)
        self.not_counted = len(trials) - len(found)
        return found

    def _curve(self, equal_trials: bool) -> Callable[[Given], Curve]:
        """How the curve of a goal is drawn."""
        space, tuned = self._space(), is_tuned(self._document)
        # What is drawn without a damaged segment says so, wherever it is shown.
        lacking = [f"{damage}; this curve may be wrong without them" for damage in self._store.damage]
        lacking += [*self._store.foreign, *left_out(self.not_counted)]

        def draw(given: Given) -> Curve:
            tables = given.trials, given.measurements
            curve = steps_to_result(
                *tables, given.goal, space=space, equal_trials=equal_trials, tuned=tuned, found=given.outcomes
            )
            return replace(curve, notes=(*lacking, *curve.notes))

        return draw

    def _goals(self, given: Sequence[str | Goal]) -> list[Goal]:
        """The goals that are given, else the study's."""
        goals = [Goal.parse(goal) if isinstance(goal, str) else goal for goal in given]
        if not goals and not self.goals:
            raise AnalysisError(f'{self.folder} has no goal of its own; give one, such as "validation/error < 0.15"')
        return [in_our_words(goal, self._document) for goal in goals] or list(self.goals)

    def _space(self) -> Mapping[int, Space] | None:
        """At every batch size the sides of the space, as they are after the last revision."""
        if self.study is None:
            return None
        revised = spaces(self.study, self._store.provenance, self.folder)
        found: dict[int, Space] = {}
        for size in self.study.batch_sizes:
            last = revised.get(size, [self.study.search.spaces])[-1]
            sides = {
                optimizer: {name: (d.min, d.max, d.scale) for name, d in space.items() if isinstance(d, Range)}
                for optimizer, space in last.items()
            }
            found[size] = sides.get("", sides)
        return found


def open_run(folder: str | Path) -> Run:
    """Open a run folder for reading; a folder without a run is a ``StoreError``."""
    return Run(folder)
