"""What does the noise-scale meter cost, do its intervals hold the truth, and are its peers biased?

    cost      a training step with and without an observation, in turns, medians of processor time; and the calls of a
              batch that is not observed. From them, what share of training the default schedule takes: at most 0.03.
    bias      linear regression with known noise scale, weights fixed: ours beside an estimator in AdaptDL's form, the
              ratio of exponential moving averages of two halves' estimates (petuum/adaptdl, gradient_noise_scale.py,
              smoothing 0.9 to 0.999 here; written anew), and beside the mean of the ratios of single batches.
    coverage  how often intervals of level 0.9 hold the truth: Fieller's, from the scatter and from successive
              differences, and a circular block bootstrap; independent batches, and SGD on a noisy quadratic.

    products  a product of the Hessian with a vector, 1,024 examples: ours beside curvlinops, where that is installed.

    python benchmarks/meters.py [--parts cost,bias,coverage,products] [--turns 15] [--repeats 400]

One thread. The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import t as student
from torch import Tensor, nn
from torch.nn import functional as F

import batchscope as bs
from batchscope.meters.ratio import ratio_of_means
from batchscope.models import FullyConnected
from batchscope.models.transformer import CharacterTransformer

Array = NDArray[np.float64]
Losses = Callable[[nn.Module], Tensor]
WANTED = 0.03
STEPS = 6  # of a turn


# cost


def conv_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 49, 10),
    )


def classified(shape: tuple[int, ...], batch_size: int) -> Losses:
    inputs, targets = torch.randn(batch_size, *shape), torch.randint(0, 10, (batch_size,))
    return lambda model: F.cross_entropy(model(inputs), targets, reduction="none")


def spelled(batch_size: int) -> Losses:
    tokens = torch.randint(0, 65, (batch_size, 65))

    def losses(model: nn.Module) -> Tensor:
        logits = model(tokens[:, :-1])
        return F.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none").mean(dim=1)

    return losses


MODELS: dict[str, tuple[Callable[[], nn.Module], Losses, tuple[str, ...]]] = {
    "digits mlp-32, B 32": (lambda: FullyConnected((64,), (32,)), classified((64,), 32), ("signs", "parts")),
    "fc-256, B 128": (lambda: FullyConnected((784,), (256,)), classified((784,), 128), ("signs", "parts")),
    "conv net with batch norm, B 32": (conv_net, classified((1, 28, 28), 32), ("signs", "parts")),
    "char transformer, 4 x 128, B 8": (
        lambda: CharacterTransformer(65),
        spelled(8),
        ("signs", "parts", "norm_layers", "hessian"),
    ),
}


def train(model: nn.Module, losses: Losses, steps: int, meter: bs.meters.NoiseScale | None, parts: bool) -> float:
    """Processor seconds; with ``parts`` every batch comes twice."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    start = time.process_time()
    for _ in range(steps):
        optimizer.zero_grad()
        for _ in range(2 if parts else 1):
            each = losses(model)
            if meter is not None:
                meter.observe(each)
            (each.mean() / (2 if parts else 1)).backward()
        if parts and meter is not None:
            meter.end_batch()
        optimizer.step()
    return time.process_time() - start


def idle(meter: bs.meters.NoiseScale, losses: Tensor, calls: int = 2000) -> float:
    """Processor seconds of a batch that is not observed."""
    start = time.process_time()
    for _ in range(calls):
        meter.observe(losses)
    return (time.process_time() - start) / calls


def cost(turns: int) -> Iterator[dict[str, Any]]:
    for name, (make, losses, sources) in MODELS.items():
        for source in sources:
            parts = source == "parts"
            plain, observed = make(), make()
            meter = bs.meters.NoiseScale(observed, source=source, every=1)
            default = bs.meters.NoiseScale(plain, source=source).every
            between = bs.meters.NoiseScale(plain, source=source, every=10**9)
            train(plain, losses, 1, between, parts)  # the first batch is observed in any case
            each = losses(plain)
            passed = idle(between, each) * (2 if parts else 1)
            seconds: list[tuple[float, float]] = []
            spent = 0.0
            while len(seconds) < turns + 2 or spent < 4:
                pair = (
                    train(plain, losses, STEPS, None, parts) / STEPS,
                    train(observed, losses, STEPS, meter, parts) / STEPS,
                )
                seconds.append(pair)
                spent += STEPS * sum(pair)
            step, more = (statistics.median(column) for column in zip(*seconds[2:], strict=True))  # two warm up
            share = ((more - step) / default + passed) / step
            row: dict[str, Any] = {"model": name, "source": source, "every": default, "step_ms": round(1e3 * step, 3)}
            row |= {"observation_in_steps": round(more / step - 1, 3), "between_ms": round(1e3 * passed, 4)}
            row |= {"cost": round(share, 4), "met": share <= WANTED}
            print(row, flush=True)
            yield row


# bias


def bias(repeats: int) -> list[dict[str, Any]]:
    """Linear regression y = w'x + z at v = 0, d = 20, batches of 32: B_noise = tr(Sigma) / |G|^2 is known."""
    dimension, batch_size, steps = 20, 32, 64
    slope = torch.linspace(-0.5, 0.5, dimension, dtype=torch.float64)
    signal = float(slope @ slope)
    truth = ((dimension + 1) * signal + dimension) / signal
    model = nn.Linear(dimension, 1, bias=False, dtype=torch.float64)
    nn.init.zeros_(model.weight)
    draw = torch.Generator().manual_seed(0)
    meter = bs.meters.NoiseScale(model, every=1, window=steps * repeats)
    halves = np.empty((repeats * steps, 2))
    for index in range(repeats * steps):
        x = torch.randn(batch_size, dimension, generator=draw, dtype=torch.float64)
        y = x @ slope + torch.randn(batch_size, generator=draw, dtype=torch.float64)
        losses = (model(x)[:, 0] - y) ** 2 / 2
        meter.observe(losses)
        model.weight.grad = None
        losses.mean().backward()
        each = -x * y[:, None]  # at v = 0; AdaptDL sees the mean gradients of two ranks or micro-batches
        one, two = each[: batch_size // 2].mean(0), each[batch_size // 2 :].mean(0)
        small, large = float(one @ one + two @ two) / 2, float((one + two) @ (one + two)) / 4
        noise = (small - large) / (2 / batch_size - 1 / batch_size)
        halves[index] = noise, large - noise / batch_size
    ours = np.array([(o.noise["all"], o.signal["all"]) for o in meter.observations]).reshape(repeats, steps, 2)
    theirs = halves.reshape(repeats, steps, 2)
    rows = []

    def row(name: str, values: Array) -> None:
        values = values[np.isfinite(values)]
        rows.append({"estimator": name, "median": round(float(np.median(values)), 2)})
        rows[-1] |= {"mean": round(float(values.mean()), 2), "truth": round(truth, 2)}
        rows[-1] |= {"root_mean_square_error": round(float(np.sqrt(np.mean((values - truth) ** 2))), 2)}
        print(f"{name:54s} median {rows[-1]['median']}, mean {rows[-1]['mean']}, truth {truth:.2f}")

    row("ours: ratio of means over 64 batches", ours[:, :, 0].mean(1) / ours[:, :, 1].mean(1))
    row("ratio of means of two halves", theirs[:, :, 0].mean(1) / theirs[:, :, 1].mean(1))
    for smoothing in (0.9, 0.99, 0.999):
        averages = np.zeros((repeats, 2))
        for step in range(steps):
            averages = smoothing * averages + (1 - smoothing) * theirs[:, step]
        averages /= 1 - smoothing**steps
        # AdaptDL keeps the noise above 1e-6 and takes the signal as at least 0
        with np.errstate(divide="ignore"):
            ratio = np.maximum(averages[:, 0], 1e-6) / np.maximum(averages[:, 1], 0)
        row(f"AdaptDL's form, smoothing {smoothing}", ratio)
    row("mean of the ratios of single batches", (theirs[:, :, 0] / theirs[:, :, 1]).mean(1))
    held = [ratio_of_means(pairs[:, 0], pairs[:, 1]) for pairs in ours]
    share = np.mean([(i.low or 0) <= truth <= (i.high or math.inf) for i in held])
    print(f"intervals of level 0.9 of ours held the truth in {share:.1%} of {repeats}")
    rows.append({"estimator": "ours", "intervals_held": round(float(share), 3), "repeats": repeats})
    return rows


# coverage


def independent(repeats: int, count: int, dimension: int, scale: float, draw: np.random.Generator) -> Any:
    """Gaussian gradients of batches of 32 at one point, with noise scale ``scale``."""
    sigma = 1 / np.sqrt(np.arange(1, dimension + 1))
    mean = math.sqrt(sigma.sum() / scale / dimension)
    shape = (repeats, count, dimension)
    differences, means = (draw.normal(size=shape) * np.sqrt(sigma / 32) for _ in range(2))
    noise = 32 * (differences**2).sum(-1)
    return noise, ((mean + means) ** 2).sum(-1) - noise / 32, np.full(repeats, scale)


def descending(repeats: int, count: int, rate: float, draw: np.random.Generator) -> Any:
    """SGD on the noisy quadratic in 50 dimensions where it has settled: successive weights are correlated."""
    h = 1 / np.arange(1, 51.0)
    spread = rate**2 * h / 32 / (1 - (1 - rate * h) ** 2)
    weights = draw.normal(size=(repeats, 50)) * np.sqrt(spread)
    noise, signal, true = np.empty((3, repeats, count))
    for step in range(count):
        gradient, difference = (draw.normal(size=(repeats, 50)) * np.sqrt(h / 32) for _ in range(2))
        gradient += h * weights
        noise[:, step] = 32 * (difference**2).sum(-1)
        signal[:, step] = (gradient**2).sum(-1) - noise[:, step] / 32
        true[:, step] = ((h * weights) ** 2).sum(-1)
        weights = weights - rate * gradient
    return noise, signal, h.sum() / true.mean(1)


def fieller_of_differences(noise: Array, signal: Array) -> tuple[float, float]:
    """Fieller's interval with variances from successive differences, which a drift does not inflate."""
    count, top, bottom = len(noise), noise.mean(), signal.mean()
    steps = np.diff(np.stack([noise, signal]))
    (vaa, vab), (_, vbb) = steps @ steps.T / (2 * count * (count - 1))
    quantile = student.ppf(0.95, 2 * (count - 1) / 3) ** 2
    a, b, c = bottom**2 - quantile * vbb, top * bottom - quantile * vab, top**2 - quantile * vaa
    root = math.sqrt(max(b * b - a * c, 0))
    if a > 0 and bottom > 0:
        return max((b - root) / a, 0), (b + root) / a
    return (max((b - root) / a, (b + root) / a) if c > 0 and a < 0 else 0), math.inf


def bootstrap(noise: Array, signal: Array, draw: np.random.Generator) -> tuple[float, float]:
    """Percentiles of 400 circular block bootstrap samples, blocks of n^(1/3)."""
    count = len(noise)
    block = max(1, round(count ** (1 / 3)))
    starts = draw.integers(0, count, (400, -(-count // block)))
    rows = ((starts[:, :, None] + np.arange(block)) % count).reshape(400, -1)[:, :count]
    top, bottom = noise[rows].mean(1), signal[rows].mean(1)
    ratios = np.sort(np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1), math.inf))
    return float(ratios[20]), float(ratios[380])


def coverage(repeats: int) -> list[dict[str, Any]]:
    draw, rows = np.random.default_rng(0), []
    for count in (8, 16, 64, 256):
        cases = {f"independent, B_noise {b}": independent(repeats, count, d, b, draw) for d, b in ((5, 32), (50, 320))}
        cases |= {f"SGD at rate {rate}": descending(repeats, count, rate, draw) for rate in (0.3, 1.0)}
        for name, (noise, signal, truth) in cases.items():
            held: dict[str, list[bool]] = {"fieller": [], "fieller_of_differences": [], "block_bootstrap": []}
            for pair in zip(noise, signal, truth, strict=True):
                interval = ratio_of_means(pair[0], pair[1])
                bounds = {"fieller": (interval.low or 0.0, math.inf if interval.high is None else interval.high)}
                bounds["fieller_of_differences"] = fieller_of_differences(pair[0], pair[1])
                bounds["block_bootstrap"] = bootstrap(pair[0], pair[1], draw)
                for method, (low, high) in bounds.items():
                    held[method].append(low <= pair[2] <= high)
            rows.append(
                {"observations": count, "case": name} | {m: round(float(np.mean(v)), 3) for m, v in held.items()}
            )
            print(rows[-1], flush=True)
    return rows


# products


def products(turns: int) -> list[dict[str, Any]]:
    try:
        from curvlinops import HessianLinearOperator
    except ImportError:
        print("curvlinops is not installed: pip install curvlinops-for-pytorch")
        return []
    rows = []
    for name, units, hidden in (("mlp-32", 64, 32), ("fc-256", 784, 256)):
        model, targets = FullyConnected((units,), (hidden,)), torch.randint(0, 10, (1024,))
        inputs, parameters = torch.randn(1024, units), dict(model.named_parameters())
        vector = {name: torch.randn_like(p) for name, p in parameters.items()}
        ours = bs.meters.Hessian(model, lambda o, t: F.cross_entropy(o, t, reduction="none"), inputs, targets)
        theirs = HessianLinearOperator(
            model, nn.CrossEntropyLoss(), list(parameters.values()), [(inputs, targets)], check_deterministic=False
        )
        flat = torch.cat([part.ravel() for part in vector.values()])
        ways: dict[str, Callable[[], Any]] = {
            "ours": partial(ours.product, vector),
            "curvlinops": partial(theirs.__matmul__, flat),
        }
        mine = torch.cat([part.ravel() for part in ways["ours"]().values()])
        torch.testing.assert_close(mine, ways["curvlinops"](), rtol=1e-3, atol=1e-5)
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(turns + 2):
            for way, call in ways.items():
                start = time.process_time()
                call()
                seconds[way].append(time.process_time() - start)
        milliseconds = {way: round(1e3 * statistics.median(found[2:]), 2) for way, found in seconds.items()}
        rows.append({"model": name, "milliseconds": milliseconds})
        print(rows[-1])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="cost,bias,coverage,products")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--repeats", type=int, default=400)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    document: dict[str, Any] = {"benchmark": "meters", "wanted_cost": WANTED, "torch": torch.__version__}
    document |= {"python": platform.python_version(), "turns": options.turns, "repeats": options.repeats}
    parts: dict[str, Callable[[], Any]] = {
        "cost": lambda: list(cost(options.turns)),
        "bias": lambda: bias(options.repeats),
        "coverage": lambda: coverage(options.repeats),
        "products": lambda: products(options.turns),
    }
    for part in options.parts.split(","):
        document[part] = parts[part]()
    print(json.dumps(document))


if __name__ == "__main__":
    main()
