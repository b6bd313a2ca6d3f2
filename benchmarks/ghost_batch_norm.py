"""What does ghost batch norm cost beside torch's batch norm, forward and backward?

Four ways in one run, one repetition of each in turn, in an order that is drawn anew each time: whatever else the
machine does, and whatever one way leaves behind in the caches and the memory allocator, falls on all of them alike.

    torch       torch.nn.BatchNorm, over the whole batch
    loop        torch.nn.BatchNorm by chunks, a Python loop and a concatenation
    transposed  the other vectorised way: ghost batches moved into the channels, one batch norm, and moved back
    ours        batchscope.nn.GhostBatchNorm

Medians of the time of one forward and backward pass, and their ratios to torch's. Run it with

    python benchmarks/ghost_batch_norm.py [--threads 1] [--repetitions 51] [--clock wall|cpu]

On a machine that does other work too, one thread and the processor's clock are fair: they do not count the waiting. The
last line is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from batchscope.nn import GhostBatchNorm1d, GhostBatchNorm2d

Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}

# (shape, ghost batch size, layout, dtype)
CASES = [
    ((256, 64, 32, 32), 32, "contiguous", torch.float32),
    ((256, 64, 16, 16), 32, "contiguous", torch.float32),
    ((256, 256, 8, 8), 32, "contiguous", torch.float32),
    ((256, 512, 4, 4), 32, "contiguous", torch.float32),
    ((250, 64, 16, 16), 32, "contiguous", torch.float32),  # with a remainder
    ((256, 64, 16, 16), 32, "channels last", torch.float32),
    ((256, 256, 8, 8), 32, "channels last", torch.float32),
    ((4096, 256), 128, "contiguous", torch.float32),
    ((1024, 256), 32, "contiguous", torch.float32),
    ((256, 64, 16, 16), 32, "contiguous", torch.bfloat16),
]


def loop(norm: nn.Module, x: Tensor, ghost_batch_size: int) -> Tensor:
    return torch.cat([norm(chunk) for chunk in torch.split(x, ghost_batch_size)])


def transposed(norm: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor, ghost_batch_size: int) -> Tensor:
    ghosts, rest = divmod(x.shape[0], ghost_batch_size)
    whole, remainder = torch.split(x, [ghosts * ghost_batch_size, rest])
    shape = whole.shape[1:]
    moved = whole.reshape(ghosts, ghost_batch_size, *shape).transpose(0, 1).reshape(ghost_batch_size, -1, *shape[1:])
    y = F.batch_norm(moved, None, None, norm.weight.repeat(ghosts), norm.bias.repeat(ghosts), training=True)
    back = y.reshape(ghost_batch_size, ghosts, *shape).transpose(0, 1).reshape(whole.shape)
    return torch.cat([back, norm(remainder)]) if rest else back


def measure(
    shape: tuple[int, ...], ghost_batch_size: int, layout: str, dtype: torch.dtype, repetitions: int, clock: Clock
) -> dict[str, float]:
    """Median milliseconds of every way."""
    torch.manual_seed(0)
    x, gradient = (torch.randn(shape).to(dtype) for _ in range(2))
    if layout == "channels last":
        x, gradient = (value.contiguous(memory_format=torch.channels_last) for value in (x, gradient))
    x.requires_grad_()
    channels = shape[1]
    norm = nn.BatchNorm1d(channels) if len(shape) == 2 else nn.BatchNorm2d(channels)
    ghost = (GhostBatchNorm1d if len(shape) == 2 else GhostBatchNorm2d)(channels, ghost_batch_size)
    ways: dict[str, Callable[[], Tensor]] = {
        "torch": lambda: norm(x),
        "loop": lambda: loop(norm, x, ghost_batch_size),
        "transposed": lambda: transposed(norm, x, ghost_batch_size),
        "ours": lambda: ghost(x),
    }
    tolerance = 1e-4 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(ghost(x), loop(norm, x, ghost_batch_size), rtol=tolerance, atol=tolerance)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    order = random.Random(0)
    for repetition in range(repetitions + 3):
        for name in order.sample(list(ways), len(ways)):
            x.grad = None
            start = clock()
            ways[name]().backward(gradient)  # type: ignore[no-untyped-call]
            if repetition >= 3:
                seconds[name].append(clock() - start)
    return {name: 1e3 * statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=51)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    print(f"median ms of forward + backward ({options.clock} clock), ratio to torch")
    for shape, ghost_batch_size, layout, dtype in CASES:
        medians = measure(shape, ghost_batch_size, layout, dtype, options.repetitions, CLOCKS[options.clock])
        row = {"shape": shape, "ghost_batch_size": ghost_batch_size, "layout": layout, "dtype": str(dtype)[6:]}
        cells = "  ".join(f"{name} {value:.2f} ({value / medians['torch']:.2f})" for name, value in medians.items())
        print(f"{shape} ghost {ghost_batch_size}, {layout}, {row['dtype']}:  {cells}", flush=True)
        ratios = {name: round(value / medians["torch"], 3) for name, value in medians.items()}
        rows.append({**row, "milliseconds": {k: round(v, 3) for k, v in medians.items()}, "ratio_to_torch": ratios})
    summary = {
        "benchmark": "ghost_batch_norm",
        "repetitions": options.repetitions,
        "threads": options.threads,
        "clock": options.clock,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "rows": rows,
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
