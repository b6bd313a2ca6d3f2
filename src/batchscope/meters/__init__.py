"""Meters for any training loop: what the gradients and the curvature of a model say about batch sizes."""

from batchscope.interval import Interval
from batchscope.meters.curvature import (
    CurvatureRadius,
    Hessian,
    HessianDiagonal,
    curvature_radius,
    hessian_diagonal,
    top_eigenvalues,
)
from batchscope.meters.gradients import GradientStatistics, gradient_statistics
from batchscope.meters.linearization import LinearizationError, linearization_error
from batchscope.meters.noise_scale import NoiseScale, Observation
from batchscope.meters.objective import per_example_gradients
from batchscope.meters.strides import Stride, Strides

__all__ = [
    "CurvatureRadius",
    "GradientStatistics",
    "Hessian",
    "HessianDiagonal",
    "Interval",
    "LinearizationError",
    "NoiseScale",
    "Observation",
    "Stride",
    "Strides",
    "curvature_radius",
    "gradient_statistics",
    "hessian_diagonal",
    "linearization_error",
    "per_example_gradients",
    "top_eigenvalues",
]
