"""Question: does a drop-in cost what torch's fused kernel costs, and a layer-wise one no more than a plain loop?

Parameters are those of ResNet-18 (62 tensors, 11,689,512 numbers, float32), with fixed gradients; momentum 0.9 and
weight decay 5e-4 wherever a rule has them. SGD, momentum, Nesterov, Adam and AdamW are compared with
``torch.optim``'s ``fused=True``; the rules that torch lacks with the loop in place that one would write without a
library, below, which makes no temporary copy that it can do without; Adafactor and Muon with torch's own.

Every round steps each optimizer once, in an order that is drawn anew, so that what else the machine does falls on all
alike; each is beside its rival in the order, and the ratio is the median over rounds of the ratio in a round, with its
quartiles. Where tensors happen to lie in memory moves a step by a tenth, of torch's as of ours: so both are made anew
some times, with tensors elsewhere, and the rounds of all these places count together. On Linux the C library's
allocator gives large freed blocks back to the kernel and must fault them in again: that is part of what a step costs
in a plain process, and is left as it is.

    python benchmarks/optimizer_step.py [--rounds 11] [--places 5] [--threads 1] [--clock wall|cpu] [--device cpu|cuda]

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
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from batchscope import __version__, optim

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
DECAY: dict[str, Any] = {"lr": 1e-4, "weight_decay": 5e-4}
HEAVY: dict[str, Any] = {**DECAY, "momentum": 0.9}
LR, WD, M, B1, B2, EPS, LOW, HIGH = 1e-4, 5e-4, 0.9, 0.9, 0.999, 1e-6, 1e-2, 1e4

Step = Callable[[], Any]
Make = Callable[[list[Tensor]], Step]


def plain(update: Callable[..., None], slots: int) -> Make:
    """A loop over layers: ``update(weight, gradient, step, *slots)`` in place."""

    def make(weights: list[Tensor]) -> Step:
        state, count = [[torch.zeros_like(w) for _ in range(slots)] for w in weights], [0]

        @torch.no_grad()
        def step() -> None:
            count[0] += 1
            for weight, own in zip(weights, state, strict=True):
                update(weight, weight.grad, count[0], *own)

        return step

    return make


def heavy_ball(w: Tensor, g: Tensor, v: Tensor, rate: float) -> None:
    v.mul_(M).add_(g, alpha=rate).add_(w, alpha=rate * WD)
    w.add_(v, alpha=-LR)


def lars(w: Tensor, g: Tensor, step: int, v: Tensor) -> None:
    norm = float(w.norm())
    heavy_ball(w, g, v, 0.001 * norm / (float(g.norm()) + WD * norm))


def lamb(w: Tensor, g: Tensor, step: int, m: Tensor, v: Tensor) -> None:
    m.lerp_(g, 1 - B1)
    v.mul_(B2).addcmul_(g, g, value=1 - B2)
    root = (1 - B2**step) ** 0.5
    u = torch.div(m, v.sqrt().add_(EPS * root)).mul_(root / (1 - B1**step)).add_(w, alpha=WD)
    w.add_(u, alpha=-LR * float(w.norm()) / float(u.norm()))


def percent_delta(w: Tensor, g: Tensor, step: int, v: Tensor) -> None:
    heavy_ball(w, g, v, 1 / float(torch.div(g, w).add_(WD).abs_().clamp_(1 / HIGH, 1 / LOW).mean()))


def mclr(w: Tensor, g: Tensor, step: int, v: Tensor) -> None:
    weight, slope = float(w.abs().median()), float(g.abs().median())
    heavy_ball(w, g, v, min(max(weight / (slope + WD * weight), LOW), HIGH))


def cblr_estimate(w: Tensor, g: Tensor, step: int, v: Tensor) -> None:
    slope = g.add(w, alpha=WD)
    v.mul_(M).addcmul_(torch.div(w, slope).abs_().clamp_(LOW, HIGH), slope)
    w.add_(v, alpha=-LR)


def lion(w: Tensor, g: Tensor, step: int, m: Tensor) -> None:
    w.mul_(1 - LR * WD).add_(torch.lerp(g, m, B1).sign_(), alpha=-LR)
    m.lerp_(g, 1 - 0.99)


def matrices(weights: list[Tensor]) -> list[Tensor]:
    """Those of two dimensions, and convolutions as such, for what takes matrices only."""
    found = []
    for weight in weights:
        if weight.ndim > 1:
            assert weight.grad is not None
            matrix = weight.detach().reshape(weight.shape[0], -1)[:512, :512].clone().requires_grad_()
            matrix.grad = weight.grad.reshape(weight.shape[0], -1)[:512, :512].clone()
            found.append(matrix)
    return found


PAIRS: dict[str, tuple[float | None, Make, Make]] = {  # most that the ratio may be, ours, what it is compared with
    "SGD": (1.05, lambda p: optim.SGD(p, **DECAY).step, lambda p: torch.optim.SGD(p, fused=True, **DECAY).step),
    "Momentum": (
        1.05,
        lambda p: optim.Momentum(p, **HEAVY).step,
        lambda p: torch.optim.SGD(p, fused=True, **HEAVY).step,
    ),
    "Nesterov": (
        1.05,
        lambda p: optim.Nesterov(p, **HEAVY).step,
        lambda p: torch.optim.SGD(p, fused=True, nesterov=True, **HEAVY).step,
    ),
    "Adam": (1.05, lambda p: optim.Adam(p, **DECAY).step, lambda p: torch.optim.Adam(p, fused=True, **DECAY).step),
    "AdamW": (1.05, lambda p: optim.AdamW(p, **DECAY).step, lambda p: torch.optim.AdamW(p, fused=True, **DECAY).step),
    "RMSProp": (None, lambda p: optim.RMSProp(p, **HEAVY).step, lambda p: torch.optim.RMSprop(p, **HEAVY).step),
    "LARS": (1.0, lambda p: optim.LARS(p, **HEAVY).step, plain(lars, 1)),
    "LAMB": (1.0, lambda p: optim.LAMB(p, **DECAY).step, plain(lamb, 2)),
    "PercentDelta": (1.0, lambda p: optim.PercentDelta(p, **HEAVY).step, plain(percent_delta, 1)),
    "MCLR": (1.0, lambda p: optim.MCLR(p, **HEAVY).step, plain(mclr, 1)),
    "CBLR estimate": (None, lambda p: optim.CBLR(p, curvature="estimate", **HEAVY).step, plain(cblr_estimate, 1)),
    "Lion": (None, lambda p: optim.Lion(p, **DECAY).step, plain(lion, 1)),
    "Adafactor": (None, lambda p: optim.Adafactor(p, **DECAY).step, lambda p: torch.optim.Adafactor(p, **DECAY).step),
    "Muon": (
        None,
        lambda p: optim.Muon(matrices(p), **DECAY).step,
        lambda p: torch.optim.Muon(matrices(p), adjust_lr_fn="match_rms_adamw", **DECAY).step,
    ),
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


def measure(
    names: list[str], rounds: int, places: int, device: str, clock: Callable[[], float]
) -> dict[str, tuple[float, float, list[float]]]:
    """Medians of milliseconds, ours and what it is compared with, and the quartiles of their ratio."""
    seconds: dict[str, list[list[float]]] = {name: [[], []] for name in names}
    order, kept = list(names), []
    for place in range(places):
        drawn = random.Random(place)
        drawn.shuffle(order)
        steps: dict[str, dict[int, Step]] = {name: {} for name in names}
        for name in order:
            for which in drawn.sample((0, 1), 2):
                kept.append(torch.empty(drawn.randrange(1 << 20)))  # so that the next ones lie elsewhere
                steps[name][which] = PAIRS[name][1 + which](parameters(device))  # type: ignore[operator]
        for turn in range(rounds + 3):
            drawn.shuffle(order)
            for name in order:
                for which in drawn.sample((0, 1), 2):
                    wait(device)
                    start = clock()
                    steps[name][which]()
                    wait(device)
                    if turn >= 3:  # state is made in the first, and the allocator finds its way in the next
                        seconds[name][which].append(clock() - start)
    found = {}
    for name, (ours, theirs) in seconds.items():
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        quartiles = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        found[name] = (1e3 * statistics.median(ours), 1e3 * statistics.median(theirs), quartiles)
    return found


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--places", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--only", nargs="+", choices=sorted(PAIRS), default=list(PAIRS))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = measure(options.only, options.rounds, options.places, options.device, CLOCKS[options.clock])

    elements = sum(torch.Size(shape).numel() for shape in resnet18_shapes())
    machine = (
        f"{platform.machine()}, {os.cpu_count()} cores" if options.device == "cpu" else torch.cuda.get_device_name()
    )
    versions = f"batchscope {__version__}, torch {torch.__version__}, Python {platform.python_version()}"
    today = datetime.date.today().isoformat()
    print(
        f"{versions}; {machine}, {options.threads} threads, {options.clock} clock; "
        f"n = {options.rounds} rounds at each of {options.places} places; {today}"
    )
    print(f"ResNet-18: {len(resnet18_shapes())} tensors, {elements:,} numbers, {4e-6 * elements:.1f} MB\n")
    print(f"{'':16}{'ours, ms':>10}{'theirs, ms':>12}{'ratio':>8}{'quartiles':>16}{'bound':>8}")
    for name, (ours, theirs, (low, ratio, high)) in found.items():
        bound = PAIRS[name][0]
        print(
            f"{name:16}{ours:>10.2f}{theirs:>12.2f}{ratio:>8.2f}{f'{low:.2f} to {high:.2f}':>16}"
            f"{'' if bound is None else f'{bound:.2f}':>8}"
        )
    held = {name: found[name][2][1] <= bound for name, (bound, *_) in PAIRS.items() if bound and name in found}
    print()
    print(
        json.dumps(
            {
                "benchmark": "optimizer_step",
                "rounds": options.rounds,
                "places": options.places,
                "threads": options.threads,
                "clock": options.clock,
                "device": options.device,
                "milliseconds": {name: [round(ours, 3), round(theirs, 3)] for name, (ours, theirs, _) in found.items()},
                "ratio": {name: round(quartiles[1], 3) for name, (*_, quartiles) in found.items()},
                "held": held,
            }
        )
    )


if __name__ == "__main__":
    main()
