"""Adafactor: second moments kept as one number for every row and column."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from batchscope.optim.adapter import Parameters, RuleOptimizer
from batchscope.optim.rule import Hyper, Rule, Scalar, Slots


def _adafactor(parameter: Tensor, gradient: Tensor, slots: Slots, step: Scalar, hyper: Hyper) -> tuple[Tensor, Slots]:
    tiny = torch.finfo(parameter.dtype).eps
    count = torch.as_tensor(step, dtype=parameter.dtype, device=parameter.device)
    share = count ** -hyper["decay_exponent"]
    square = gradient * gradient
    if parameter.ndim > 1:
        rows = slots["row_average"] + share * (square.mean(-1, keepdim=True) - slots["row_average"])
        columns = slots["column_average"] + share * (square.mean(-2, keepdim=True) - slots["column_average"])
        slots = {"row_average": rows, "column_average": columns}
        estimate = rows @ columns / rows.mean(-2, keepdim=True).clamp(min=tiny)
    else:
        estimate = slots["square_average"] + share * (square - slots["square_average"])
        slots = {"square_average": estimate}
    update = gradient / estimate.clamp(min=tiny * tiny).sqrt()
    clipping = (_root_mean_square(update) / hyper["clip_threshold"]).clamp(min=1.0)
    relative = torch.minimum(hyper["learning_rate"] * torch.ones_like(count), count**-0.5)
    rate = torch.maximum(hyper["minimum_scale"] * torch.ones_like(count), _root_mean_square(parameter)) * relative
    kept = (1 - hyper["learning_rate"] * hyper["weight_decay"]) * parameter
    moved: Tensor = kept - (rate / clipping) * update
    return moved, slots


def _root_mean_square(values: Tensor) -> Tensor:
    return cast(Tensor, torch.linalg.vector_norm(values) / values.numel() ** 0.5)


def _begin(parameter: Tensor) -> Slots:
    if parameter.ndim < 2:
        return {"square_average": torch.zeros_like(parameter)}
    rows, columns = parameter.shape[:-1], (*parameter.shape[:-2], parameter.shape[-1])
    return {
        "row_average": parameter.new_zeros((*rows, 1)),
        "column_average": parameter.new_zeros((*columns[:-1], 1, columns[-1])),
    }


def _has_rows(parameter: Tensor) -> bool:
    return parameter.ndim > 1


_vectors = Rule("adafactor", ("square_average",), _adafactor, by_layer=True, begin=_begin)
adafactor = Rule(
    "adafactor",
    ("row_average", "column_average"),
    _adafactor,
    by_layer=True,
    begin=_begin,
    takes=_has_rows,
    otherwise=_vectors,
)


class Adafactor(RuleOptimizer):
    """Adafactor (Shazeer and Stern 2018, algorithms 4 and 5), as ``torch.optim.Adafactor`` has it.

    R, C are the moving averages of the means of g^2 over columns and over rows, with weight
    1 - t^(-decay_exponent) for the past (equation of section 7.2), and V = R C / mean(R); a vector has V itself.
    u = g / sqrt(V), divided by max(1, rms(u) / clip_threshold);
    w <- (1 - lr weight_decay) w - max(minimum_scale, rms(w)) min(lr, 1 / sqrt(t)) u.

    Its state is a few numbers for every row and column. The step is relative to the size of the weights: lr is the
    largest share of it. Tensors of more than two dimensions have rows and columns in the last two.

    Args:
        params: As for any torch optimizer.
        lr: The most that a step is of a tensor's root mean square.
        decay_exponent: Of the weight of the past, above 0 (0.8 in the paper; torch's ``beta2_decay`` is its negative).
        minimum_scale: The least size that a tensor is taken to have (epsilon 2 in the paper).
        clip_threshold: The root mean square of u above which it is scaled down (d in the paper).
        weight_decay: Decoupled, at least 0.
    """

    own = adafactor

    def __init__(
        self,
        params: Parameters,
        lr: float | Tensor = 1e-2,
        *,
        decay_exponent: float = 0.8,
        minimum_scale: float = 1e-3,
        clip_threshold: float = 1.0,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "decay_exponent": decay_exponent, "minimum_scale": minimum_scale}
        super().__init__(params, {**defaults, "clip_threshold": clip_threshold, "weight_decay": weight_decay})
