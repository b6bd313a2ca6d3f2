"""Learning-rate schedules, scaling rules and batch-size schedules: usable in any training loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchscope.lazy import exports

if TYPE_CHECKING:
    from batchscope.schedules.batch_schedule import BatchSchedule as BatchSchedule
    from batchscope.schedules.batch_schedule import Phase as Phase
    from batchscope.schedules.batch_schedule import lost_epochs as lost_epochs
    from batchscope.schedules.batch_schedule import noise_scale as noise_scale
    from batchscope.schedules.compiler import compile_batch_schedule as compile_batch_schedule
    from batchscope.schedules.compose import WARM_UPS as WARM_UPS
    from batchscope.schedules.compose import Ramp as Ramp
    from batchscope.schedules.compose import Stretched as Stretched
    from batchscope.schedules.compose import Then as Then
    from batchscope.schedules.compose import golmant_warm_up as golmant_warm_up
    from batchscope.schedules.compose import goyal_warm_up as goyal_warm_up
    from batchscope.schedules.compose import linear_warm_up as linear_warm_up
    from batchscope.schedules.first_epochs import with_first_epochs as with_first_epochs
    from batchscope.schedules.function import Function as Function
    from batchscope.schedules.learning_rate import LEARNING_RATE_SCHEDULES as LEARNING_RATE_SCHEDULES
    from batchscope.schedules.learning_rate import Constant as Constant
    from batchscope.schedules.learning_rate import Cosine as Cosine
    from batchscope.schedules.learning_rate import Exponential as Exponential
    from batchscope.schedules.learning_rate import ExponentialPolynomial as ExponentialPolynomial
    from batchscope.schedules.learning_rate import InverseExponentialPolynomial as InverseExponentialPolynomial
    from batchscope.schedules.learning_rate import Linear as Linear
    from batchscope.schedules.learning_rate import PiecewiseConstant as PiecewiseConstant
    from batchscope.schedules.learning_rate import PiecewiseLinear as PiecewiseLinear
    from batchscope.schedules.learning_rate import Product as Product
    from batchscope.schedules.learning_rate import Schedule as Schedule
    from batchscope.schedules.micro_batches import Accumulation as Accumulation
    from batchscope.schedules.micro_batches import accumulate_gradients as accumulate_gradients
    from batchscope.schedules.micro_batches import accumulation as accumulation
    from batchscope.schedules.micro_batches import in_parts as in_parts
    from batchscope.schedules.rate_text import format_learning_rate as format_learning_rate
    from batchscope.schedules.rate_text import parse_learning_rate as parse_learning_rate
    from batchscope.schedules.sampler import ScheduledBatchSampler as ScheduledBatchSampler
    from batchscope.schedules.scaling import Scaled as Scaled
    from batchscope.schedules.scaling import scale_hyperparameters as scale_hyperparameters
    from batchscope.schedules.small_loss import SmallLossDiscard as SmallLossDiscard
    from batchscope.schedules.stages import staged_batch_schedule as staged_batch_schedule
    from batchscope.schedules.table import SCALING_RULES as SCALING_RULES
    from batchscope.schedules.torch_scheduler import ScheduledLR as ScheduledLR
else:  # a type checker is not told of __getattr__: it would believe every name
    __all__, __getattr__ = exports(
        __name__,
        {
            "batch_schedule": (
                "BatchSchedule",
                "Phase",
                "lost_epochs",
                "noise_scale",
            ),
            "compiler": ("compile_batch_schedule",),
            "compose": (
                "Ramp",
                "Stretched",
                "Then",
                "WARM_UPS",
                "golmant_warm_up",
                "goyal_warm_up",
                "linear_warm_up",
            ),
            "first_epochs": ("with_first_epochs",),
            "function": ("Function",),
            "learning_rate": (
                "Constant",
                "Cosine",
                "Exponential",
                "ExponentialPolynomial",
                "InverseExponentialPolynomial",
                "LEARNING_RATE_SCHEDULES",
                "Linear",
                "PiecewiseConstant",
                "PiecewiseLinear",
                "Product",
                "Schedule",
            ),
            "micro_batches": ("Accumulation", "accumulate_gradients", "accumulation", "in_parts"),
            "sampler": ("ScheduledBatchSampler",),
            "scaling": (
                "Scaled",
                "scale_hyperparameters",
            ),
            "small_loss": ("SmallLossDiscard",),
            "stages": ("staged_batch_schedule",),
            "table": ("SCALING_RULES",),
            "rate_text": (
                "format_learning_rate",
                "parse_learning_rate",
            ),
            "torch_scheduler": ("ScheduledLR",),
        },
    )
