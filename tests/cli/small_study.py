"""A study that trains in a moment, for tests of what commands do with it."""

from __future__ import annotations


def text(*, dimensions: int = 8, trials: int = 3, goal: float = 0.3, steps: int = 60) -> str:
    """Of the noisy quadratic at two batch sizes, by the plain loop, and nothing trained again."""
    return f"""
workload: noisy_quadratic/{dimensions}
batch_sizes: [4, 16]
search:
  trials: {trials}
  confirm: {{seeds: 0}}
  space: {{learning_rate: {{min: 0.01, max: 1, scale: log}}, momentum: 0.9}}
goals: ["validation/loss < {goal}"]
budget: {{steps: {steps}}}
engine: {{program: loop, pack_size: 2, threads: 1}}
"""
