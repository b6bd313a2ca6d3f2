"""Does raising the batch size give the learning curve of decaying the rate, with fewer updates (S18 figure 1)?

Runs the three variants of ``examples/batch_schedules.yaml``, 12 seeds each, and compares their mean curves
with the spread between seeds. Prints one JSON line; ``--svg FILE`` draws the curves (needs matplotlib).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

import batchscope as bs
from batchscope.plan.timeline import Timeline

EXAMPLE = Path(__file__).parents[1] / "examples" / "batch_schedules.yaml"
VARIANTS = ("decay", "hybrid", "increase")
EPOCHS = np.arange(2, 61)


def curves(variant: str, folder: Path, metric: str) -> tuple[np.ndarray, int, int]:
    """(seeds, epochs) curves of a metric, updates of a trial, and updates that the compiler promises."""
    study = bs.Study.from_yaml(EXAMPLE, [f"algorithm.batch_schedule.variant={variant}"])
    run = bs.run(study, folder / variant)
    promised = Timeline(study, 16, 1297).last
    evaluations = run.measurements.collect().sort("trial", "step")
    rows = [
        np.interp(EPOCHS, group["epoch"].to_numpy(), group[metric].to_numpy())
        for _, group in evaluations.group_by("trial", maintain_order=True)
    ]
    (steps,) = set(run.trials["steps"])
    return np.array(rows), steps, promised


def main() -> None:
    """Run, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--svg", type=Path)
    parser.add_argument("--metric", default="validation/loss")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {variant: curves(variant, Path(folder), options.metric) for variant in VARIANTS}
    reference = found["decay"][0]
    result: dict[str, object] = {"benchmark": "batch_schedules", "metric": options.metric, "seeds": len(reference)}
    for variant, (rows, steps, promised) in found.items():
        spread = np.sqrt((rows.var(0, ddof=1) + reference.var(0, ddof=1)) / 2)
        gap = np.abs(rows.mean(0) - reference.mean(0)) / spread
        result[variant] = {
            "updates": steps,
            "promised": promised,
            "final": round(float(rows[:, -1].mean()), 4),
            "final_spread": round(float(rows[:, -1].std(ddof=1)), 4),
            "largest_gap_in_spreads": round(float(gap.max()), 3),
        }
    if options.svg:
        draw(found, options.metric, options.svg)
    print(json.dumps(result))


def draw(found: dict[str, tuple[np.ndarray, int, int]], metric: str, path: Path) -> None:
    """Mean curves with the band of one spread, against epochs and against updates."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    for variant, (rows, steps, _) in found.items():
        mean, spread = rows.mean(0), rows.std(0, ddof=1)
        study = bs.Study.from_yaml(EXAMPLE, [f"algorithm.batch_schedule.variant={variant}"])
        timeline = Timeline(study, 16, 1297)
        done = np.array([timeline.epoch(step) for step in range(steps + 1)])
        for axis, x in ((axes[0], EPOCHS), (axes[1], np.searchsorted(done, EPOCHS))):
            (line,) = axis.plot(x, mean, label=f"{variant}: {steps:,} updates")
            axis.fill_between(x, mean - spread, mean + spread, alpha=0.15, color=line.get_color(), linewidth=0)
    for axis, label in zip(axes, ("epochs", "weight updates"), strict=True):
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(metric)
    axes[0].legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
