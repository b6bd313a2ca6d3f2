"""Question: does a step of a layer-wise rule cost at most 1.3 times one of ``torch.optim.SGD(foreach=True)``?

Parameters are those of ResNet-18 (62 tensors, 11,689,512 numbers, float32), with fixed gradients; momentum 0.9 and
weight decay 5e-4 wherever a rule has them. Every round steps each optimizer once, in an order that is drawn anew, so
that what else the machine does falls on all alike; the table gives medians over rounds, and ratios of these medians.

On Linux the C library's allocator gives large freed blocks back to the kernel and must fault them in again, which
costs whatever allocates temporaries of the size of a model, as foreach on a CPU does, and nothing else. It is
therefore measured twice: with the allocator as it is, and with one that keeps its memory.

"Passes" is how many times arrays of the size of the model must go between memory and processor (a read or a write
each), were caches to help nothing beyond a block: what binds once calls are cheap.

    python benchmarks/optimizer_step.py [--rounds 41] [--threads 1] [--clock wall|cpu] [--device cpu|cuda]

On a machine that does other work too, one thread and the processor's clock are fair: they do not count the waiting.
The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from batchscope import __version__, optim

BASELINE = "torch SGD foreach"
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
LAYER_WISE = ("LARS", "LAMB", "PercentDelta", "MCLR", "MCLR literal")
KEEPS_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**40)}
DECAY: dict[str, Any] = {"lr": 1e-4, "weight_decay": 5e-4}
HEAVY: dict[str, Any] = {**DECAY, "momentum": 0.9}

Make = Callable[[list[Tensor]], Optimizer]
OPTIMIZERS: dict[str, tuple[int, Make]] = {  # passes, optimizer
    BASELINE: (11, lambda p: torch.optim.SGD(p, foreach=True, **HEAVY)),
    "torch SGD, one tensor at a time": (11, lambda p: torch.optim.SGD(p, foreach=False, **HEAVY)),
    "torch SGD fused": (5, lambda p: torch.optim.SGD(p, fused=True, **HEAVY)),
    "torch Adam foreach": (20, lambda p: torch.optim.Adam(p, foreach=True, **DECAY)),
    "torch Adam, one tensor at a time": (20, lambda p: torch.optim.Adam(p, foreach=False, **DECAY)),
    "SGD": (3, lambda p: optim.SGD(p, **DECAY)),
    "Momentum": (5, lambda p: optim.Momentum(p, **HEAVY)),
    "Nesterov": (5, lambda p: optim.Nesterov(p, **HEAVY)),
    "Adam": (7, lambda p: optim.Adam(p, **DECAY)),
    "AdamW": (7, lambda p: optim.AdamW(p, **DECAY)),
    "RMSProp": (7, lambda p: optim.RMSProp(p, **HEAVY)),
    "LARS": (7, lambda p: optim.LARS(p, **HEAVY)),
    "LAMB": (12, lambda p: optim.LAMB(p, **DECAY)),
    "PercentDelta": (7, lambda p: optim.PercentDelta(p, **HEAVY)),
    "CBLR estimate": (5, lambda p: optim.CBLR(p, curvature="estimate", **HEAVY)),
    "MCLR": (7, lambda p: optim.MCLR(p, **HEAVY)),
    "MCLR literal": (7, lambda p: optim.MCLR(p, median="literal", **HEAVY)),
}


def resnet18_shapes() -> list[tuple[int, ...]]:
    """Convolutions, batch norms and the last layer of ResNet-18 for 1,000 classes, in torchvision's order."""
    shapes: list[tuple[int, ...]] = [(64, 3, 7, 7), (64,), (64,)]
    before = 64
    for width in (64, 128, 256, 512):
        for first in (True, False):
            shapes += [(width, before if first else width, 3, 3), (width,), (width,)]
            shapes += [(width, width, 3, 3), (width,), (width,)]
            if first and width != 64:
                shapes += [(width, before, 1, 1), (width,), (width,)]
        before = width
    return [*shapes, (1000, 512), (1000,)]


def parameters(device: str) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    made = []
    for shape in resnet18_shapes():
        weight = (0.05 * torch.randn(shape, generator=generator)).to(device).requires_grad_()
        weight.grad = (0.01 * torch.randn(shape, generator=generator)).to(device)
        made.append(weight)
    return made


def measure(rounds: int, device: str, clock: Callable[[], float]) -> dict[str, float]:
    """The median milliseconds of a step of each optimizer."""
    optimizers = {name: make(parameters(device)) for name, (_, make) in OPTIMIZERS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in optimizers}
    order = list(optimizers)
    for turn in range(rounds + 3):
        random.Random(turn).shuffle(order)
        for name in order:
            wait(device)
            start = clock()
            optimizers[name].step()
            wait(device)
            if turn >= 3:  # state is made in the first, and the allocator finds its way in the next
                seconds[name].append(clock() - start)
    return {name: 1e3 * statistics.median(values) for name, values in seconds.items()}


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--only-measure", action="store_true", help="print medians as JSON, as run here")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.only_measure:
        print(json.dumps(measure(options.rounds, options.device, CLOCKS[options.clock])))
        return

    runs = {}
    for allocator, environment in {"as it is": {}, "keeps memory": KEEPS_MEMORY}.items():
        command = [sys.executable, __file__, *sys.argv[1:], "--only-measure"]
        done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
        runs[allocator] = json.loads(done.stdout)

    elements = sum(torch.Size(shape).numel() for shape in resnet18_shapes())
    machine = (
        f"{platform.machine()}, {os.cpu_count()} cores" if options.device == "cpu" else torch.cuda.get_device_name()
    )
    versions = f"batchscope {__version__}, torch {torch.__version__}, Python {platform.python_version()}"
    today = datetime.date.today().isoformat()
    print(
        f"{versions}; {machine}, {options.threads} threads, {options.clock} clock; n = {options.rounds} rounds; {today}"
    )
    print(f"ResNet-18: {len(resnet18_shapes())} tensors, {elements:,} numbers, {4e-6 * elements:.1f} MB\n")
    print(f"{'':34}{'passes':>7}" + "".join(f"{f'allocator {name}':>28}" for name in runs))
    print(f"{'':41}" + f"{'ms':>12}{'ratio':>8}{'GB/s':>8}" * len(runs))
    for name, (passes, _) in OPTIMIZERS.items():
        cells = ""
        for run in runs.values():
            rate = passes * 4 * elements / run[name] / 1e6
            cells += f"{run[name]:>12.2f}{run[name] / run[BASELINE]:>8.2f}{rate:>8.1f}"
        print(f"{name:34}{passes:>7}{cells}")
    ratios = {
        allocator: {name: round(run[name] / run[BASELINE], 3) for name in LAYER_WISE} for allocator, run in runs.items()
    }
    print()
    print(
        json.dumps(
            {
                "benchmark": "optimizer_step",
                "rounds": options.rounds,
                "threads": options.threads,
                "clock": options.clock,
                "device": options.device,
                "milliseconds": {a: {k: round(v, 3) for k, v in run.items()} for a, run in runs.items()},
                "ratio_to_sgd_foreach": ratios,
                "within_1.3": {a: [n for n, r in values.items() if r <= 1.3] for a, values in ratios.items()},
            }
        )
    )


if __name__ == "__main__":
    main()
