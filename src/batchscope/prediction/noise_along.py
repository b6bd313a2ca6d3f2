"""The noise scale along a training, and the critical batch size that it makes.

1. At checkpoints i the noise N_i (tr Sigma, or tr H Sigma) and the signal S_i (|G|^2, or G'HG) are measured on fresh
   batches; B_i = N_i / S_i.
2. A step at batch size B_0 makes 1 / (1 + B_i / B_0) of the progress of a step without noise (McCandlish et al. 2018,
   section 2.2), so a stretch of d_i steps holds m_i = d_i / (1 + B_i / B_0) of those.
3. At batch size B the stretches take m_i (1 + B_i / B) steps: the sum is S_min (1 + B_crit / B) with S_min = sum m_i
   and B_crit = sum m_i B_i / sum m_i (appendix D).
4. In x_i = S_i / N_i, which is linear in what is hard to measure, m_i = d_i x_i / (x_i + 1 / B_0) and
   m_i B_i = d_i / (x_i + 1 / B_0): a checkpoint without a signal that can be told from none, x_i = 0, adds noise and no
   progress.
5. The interval is from bootstrap samples of the batches at each checkpoint.

Legend: I checkpoints, J batches at each, D samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from batchscope.engine.calling import called
from batchscope.engine.pack import Pack, weights_of
from batchscope.engine.training import Training, losses
from batchscope.errors import PredictionError
from batchscope.interval import Interval
from batchscope.meters import NoiseScale
from batchscope.seeds import numpy_generator

Array = NDArray[np.float64]
BATCHES = 16
SAMPLES = 1000
# The stream that noise is measured on, which no training is.
FRESH = 1_000_003
# Passes of a measured batch: forward and backward, and what the meter adds.
PASSES = {"signs": 2.0, "hessian": 7.0}


def noise_along(
    training: Training, checkpoints: Sequence[Pack], source: Literal["signs", "hessian"], batch_size: int
) -> tuple[Array, Array]:
    """(I, J) noise and signal at checkpoints.

    Args:
        training: Whose workload.
        checkpoints: Of it.
        source: As ``NoiseScale`` takes it.
        batch_size: Of what is measured.

    Raises:
        PredictionError: If the loss gives one value for a batch.
    """
    loaded = training.loaded
    if loaded.workload.loss_per == "batch":
        raise PredictionError("the loss compares the examples of a batch, so that these have no noise of their own")
    module = loaded.module()
    noise, signal, seen = [], [], 0
    for pack in checkpoints:
        module.load_state_dict(weights_of(loaded, {name: value[0] for name, value in pack.state.items()}), strict=False)
        module.train()
        meter = NoiseScale(module, source=source, every=1, window=BATCHES, seed=pack.step)
        for _ in range(BATCHES):
            inputs, targets = loaded.batches(FRESH).take(seen, batch_size)
            seen += batch_size
            with loaded.precision():
                loss = losses(loaded.workload, called(module, inputs), targets)
            meter.observe(loss)
            loss.mean().backward()  # type: ignore[no-untyped-call]
            module.zero_grad(set_to_none=True)
        noise.append([one.noise["all"] for one in meter.observations])
        signal.append([one.signal["all"] for one in meter.observations])
        meter.close()
    if any(len(row) < 2 for row in noise):
        raise PredictionError("gradients of the training are no finite numbers")
    least = min(map(len, noise))
    return np.array([row[:least] for row in noise]), np.array([row[:least] for row in signal])


def critical_batch_size(noise: Array, signal: Array, steps: Array, batch_size: int, level: float = 0.9) -> Interval:
    """B_crit of a training from its noise along the way.

    Args:
        noise: (I, J).
        signal: (I, J).
        steps: (I,) that each checkpoint stands for.
        batch_size: B_0.
        level: Of the interval.
    """
    count = noise.shape[1]
    rng = numpy_generator("noise along", *noise.shape)
    drawn = rng.integers(count, size=(SAMPLES, len(noise), count))
    rows = np.arange(len(noise))[None, :, None]
    value = _critical(noise.mean(1), signal.mean(1), steps, batch_size)
    samples = _critical(noise[rows, drawn].mean(2), signal[rows, drawn].mean(2), steps, batch_size)
    return Interval.from_samples(float(value), np.atleast_1d(samples), level)


def _critical(noise: Array, signal: Array, steps: Array, batch_size: int) -> Array:
    """Over the last axis."""
    share = np.maximum(signal, 0.0) / np.where(noise > 0, noise, np.inf)
    whole = steps / (share + 1 / batch_size)
    with np.errstate(divide="ignore"):
        found: Array = whole.sum(-1) / (whole * share).sum(-1)
    return found


def stretches(checkpoints: Sequence[Pack]) -> Array:
    """(I,) steps that each checkpoint stands for: half way to those beside it."""
    at = np.array([pack.step for pack in checkpoints], float)
    edges = np.concatenate([[0.0], (at[1:] + at[:-1]) / 2, [at[-1]]])
    return np.diff(edges)


def measured_batch(training: Training, checkpoints: int, examples: int) -> int:
    """So large that what is measured along a training is about as much as the training, from 32 to 256 examples."""
    most = training.loaded.workload.train_size or 256
    return int(min(max(examples / (checkpoints * BATCHES * PASSES["signs"]), 32), 256, most))


def measured_examples(checkpoints: int, batch_size: int, source: str) -> float:
    """What measuring costs, in examples trained."""
    return checkpoints * BATCHES * batch_size * PASSES[source]
