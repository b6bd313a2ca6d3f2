"""How good are predictions from one training? Predicted over measured critical batch sizes, on runs and closed forms.

Every run folder given is a study with its curve: its critical batch size is the measured one. One training of the
setting that reaches its goal with the fewest examples, with a seed that the study has not seen, predicts it. The noisy
quadratics need no run: their tuned steps are known. Prints a table, then one JSON line;
``--write`` puts it where ``batchscope predict`` reads its record.

    python benchmarks/predictions.py RUN... --write src/batchscope/prediction/track_record.json
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch

import batchscope as bs
from batchscope.analysis import laws
from batchscope.errors import BatchscopeError
from batchscope.prediction.track_record import METHODS, _scored, record_of
from batchscope.spec.prediction import Prediction
from batchscope.workloads.noisy_quadratic import Optimizer, steps_to_goal

DIMENSION, GOAL = 100, 0.05
SIZES = tuple(2**power for power in range(2, 13))
SEED = 17


def of_run(folder: Path) -> dict[str, Any]:
    """Measured by a study."""
    run = bs.open_run(folder)
    curve = run.steps_to_result()
    reached = curve.table.filter(curve.table[curve.quantity].is_not_null())
    steps = dict(zip(reached["batch_size"].to_list(), reached[curve.quantity].to_list(), strict=True))
    measured = curve.regimes.critical_batch_size.to_dict()
    return _row(bs.predict(folder, seed=SEED), measured, steps)


def of_quadratic(optimizer: Optimizer) -> dict[str, Any]:
    """Known in closed form; the training is at batch size 8, tuned."""
    best = {size: steps_to_goal(size, GOAL, DIMENSION, optimizer=optimizer) for size in SIZES}
    steps = {size: float(found.steps) for size, found in best.items() if found is not None}
    fitted = laws.fit(np.array(list(steps), float), np.array(list(steps.values())), sharpness=1.0)
    own = best[8]
    assert own is not None
    given = {"optimizer": optimizer, "learning_rate": own.learning_rate, "batch_size": 8, "steps": 6 * own.steps}
    given |= {"momentum": own.momentum} if optimizer != "sgd" else {}
    name = f"noisy_quadratic/{DIMENSION}"
    found = bs.predict(name, goal=f"validation/loss < {GOAL}", seed=SEED, **given)
    return _row(found, fitted.critical_batch_size.to_dict(), steps)


def _row(found: Prediction, measured: dict[str, float | None], curve: dict[int, float]) -> dict[str, Any]:
    by = {
        name: None if one.critical_batch_size is None else one.critical_batch_size.model_dump()
        for name, one in found.by.items()
    }
    return {
        "workload": found.workload,
        "optimizer": found.optimizer,
        "goal": found.goal,
        "batch_size": found.batch_size,
        "steps": found.steps,
        "measured": measured,
        "curve": curve,
        "by": by,
        "seconds": round(found.cost.seconds, 2),
        "trainings": round(found.cost.trainings, 2),
    }


def main() -> None:
    """Predict each, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--without-quadratics", action="store_true")
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    rows = []
    for folder in options.runs:
        try:
            rows.append(of_run(folder))
        except BatchscopeError as error:
            print(f"{folder}: left out: {error}")
    if not options.without_quadratics:
        rows += [of_quadratic("sgd"), of_quadratic("momentum")]
    for row in rows:
        ratios = [
            "-" if one is None or one["value"] is None else f"{one['value'] / row['measured']['value']:.2f}"
            for one in (row["by"].get(method) for method in METHODS)
        ]
        print(
            "|", row["workload"], row["optimizer"], "|", row["goal"], "|", row["measured"], "|", " | ".join(ratios), "|"
        )
    scored = [_scored({**row, "curve": {str(k): v for k, v in row["curve"].items()}}) for row in rows]
    result = {
        "benchmark": "predictions",
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "batchscope": bs.__version__},
        "records": {method: record_of(method, scored).model_dump() for method in METHODS},
        "scored": rows,
    }
    if options.write:
        options.write.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
