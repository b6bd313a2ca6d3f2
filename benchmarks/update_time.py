"""What does an update cost in a training, beside one that does nothing else between updates, as a probe times it?

Of a workload in memory, by an eager loop with Nesterov momentum, in rounds that take turns:

    ready        the batch lies ready, always the same
    fetched      it is indexed out of the training data
    evaluated    it is fetched, and the update is the first after an evaluation

Processor time of the one thread that trains, which other work on the machine does not enter; ``--threads`` with more
than one counts time on the clock instead, for the others' time is not that thread's.

    python benchmarks/update_time.py fashion_mnist/fc-256 --batch-size 256 [--threads 1] [--rounds 60] [--data-dir DIR]

The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from batchscope import workloads
from batchscope.machine.cores import processor_name
from recommended_training import validate

UPDATES = 5  # of a kind in a round
WARM_UP = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--data-dir", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    clock = time.thread_time if options.threads == 1 else time.perf_counter
    workload = workloads.load(options.workload, options.data_dir)
    assert isinstance(workload.train, tuple)
    inputs, targets = workload.train
    assert isinstance(inputs, Tensor) and isinstance(targets, Tensor)
    metric = next(iter(workload.metrics))
    model = workload.model()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9, nesterov=True)
    parts = torch.randperm(len(inputs)).split(options.batch_size)[:-1]  # type: ignore[no-untyped-call]
    same = inputs[parts[0]], targets[parts[0]]
    updates = 0

    def update(fetch: bool) -> float:
        nonlocal updates
        updates += 1
        started = clock()
        batch = parts[updates % len(parts)]
        examples, wanted = (inputs[batch], targets[batch]) if fetch else same
        optimizer.zero_grad()
        workload.loss(model(examples), wanted).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return clock() - started

    for _ in range(WARM_UP):
        update(True)
    found: dict[str, list[float]] = {"ready": [], "fetched": [], "evaluated": []}
    for _ in range(options.rounds):
        for name in ("ready", "fetched"):
            found[name] += [update(name == "fetched") for _ in range(1 + UPDATES)][1:]
        validate(model, workload, metric)
        found["evaluated"].append(update(True))
    rows = {name: [1e3 * float(np.quantile(times, share)) for share in (0.1, 0.5)] for name, times in found.items()}
    for name, (fast, middle) in rows.items():
        print(f"{name}: {middle:.2f} ms, {fast:.2f} in the fastest tenth")
    summary = {
        "benchmark": "update_time",
        "workload": options.workload,
        "batch_size": options.batch_size,
        "threads": options.threads,
        "rounds": options.rounds,
        "milliseconds": {name: middle for name, (_, middle) in rows.items()},
        "machine": processor_name(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
