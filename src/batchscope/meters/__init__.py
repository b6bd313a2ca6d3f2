"""Meters for any training loop: what the gradients and the curvature of a model say about batch sizes."""

from batchscope.interval import Interval
from batchscope.meters.noise_scale import NoiseScale, Observation
from batchscope.meters.objective import per_example_gradients

__all__ = ["Interval", "NoiseScale", "Observation", "per_example_gradients"]
