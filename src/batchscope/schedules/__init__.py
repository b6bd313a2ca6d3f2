"""Learning-rate schedules, scaling rules and batch-size schedules: usable in any training loop."""

from __future__ import annotations

from batchscope.schedules.accumulation import Accumulation, accumulate_gradients, accumulation, in_parts
from batchscope.schedules.batch_size import BatchSchedule, Phase, lost_epochs, noise_scale
from batchscope.schedules.compiler import compile_batch_schedule
from batchscope.schedules.compose import (
    WARM_UPS,
    Ramp,
    Stretched,
    Then,
    golmant_warm_up,
    goyal_warm_up,
    linear_warm_up,
)
from batchscope.schedules.first_epochs import with_first_epochs
from batchscope.schedules.learning_rate import (
    LEARNING_RATE_SCHEDULES,
    Constant,
    Cosine,
    Exponential,
    ExponentialPolynomial,
    InverseExponentialPolynomial,
    Linear,
    PiecewiseConstant,
    PiecewiseLinear,
    Product,
    Schedule,
)
from batchscope.schedules.sampler import ScheduledBatchSampler
from batchscope.schedules.scaling import SCALING_RULES, Scaled, scale_hyperparameters
from batchscope.schedules.small_loss import SmallLossDiscard
from batchscope.schedules.text import format_learning_rate, parse_learning_rate
from batchscope.schedules.torch_scheduler import ScheduledLR

__all__ = [
    "LEARNING_RATE_SCHEDULES",
    "SCALING_RULES",
    "WARM_UPS",
    "Accumulation",
    "BatchSchedule",
    "Constant",
    "Cosine",
    "Exponential",
    "ExponentialPolynomial",
    "InverseExponentialPolynomial",
    "Linear",
    "Phase",
    "PiecewiseConstant",
    "PiecewiseLinear",
    "Product",
    "Ramp",
    "Scaled",
    "Schedule",
    "ScheduledBatchSampler",
    "ScheduledLR",
    "SmallLossDiscard",
    "Stretched",
    "Then",
    "accumulate_gradients",
    "accumulation",
    "compile_batch_schedule",
    "format_learning_rate",
    "golmant_warm_up",
    "goyal_warm_up",
    "in_parts",
    "linear_warm_up",
    "lost_epochs",
    "noise_scale",
    "parse_learning_rate",
    "scale_hyperparameters",
    "with_first_epochs",
]
