"""An exponential moving average of the weights, kept beside any rule, at which a model is evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from batchscope.optim.rule import Hyper, Numbers, Rule, Scalar, Slots

_AVERAGE = "weight_average"


def averaged(rule: Rule) -> Rule:
    """A rule that also keeps e <- a e + (1 - a) w, with a the hyperparameter ``average_weights``.

    After the first update e is w, as ``torch.optim.swa_utils.AveragedModel`` has it; buffers are those of training.
    """

    def change(
        parameter: Tensor, gradient: Tensor, slots: Slots, step: Scalar, hyper: Hyper, *curvature: Any
    ) -> tuple[Tensor, Slots]:
        average = slots[_AVERAGE]
        own = {name: slot for name, slot in slots.items() if name != _AVERAGE}
        moved, changed = rule.change(parameter, gradient, own, step, hyper, *curvature)
        share = 1 - hyper["average_weights"] * (step > 1)
        return moved, {**changed, _AVERAGE: average + share * (moved - average)}

    def in_place(
        parameters: list[Tensor],
        gradients: list[Tensor],
        slots: Mapping[str, list[Tensor]],
        step: int,
        hyper: Numbers,
        *curvature: Any,
    ) -> None:
        own = {name: tensors for name, tensors in slots.items() if name != _AVERAGE}
        rule.update_in_place(parameters, gradients, own, step, hyper, *curvature)
        share = 1 - hyper["average_weights"] * (step > 1)
        for parameter, average in zip(parameters, slots[_AVERAGE], strict=True):
            average.lerp_(parameter, share)

    def begin(parameter: Tensor) -> Slots:
        return {**rule.init(parameter), _AVERAGE: parameter.clone()}

    def evaluation(parameter: Tensor, slots: Slots, hyper: Hyper) -> Tensor:
        return slots[_AVERAGE]

    return replace(
        rule,
        slots=(*rule.slots, _AVERAGE),
        change=change,
        in_place=in_place,
        begin=begin,
        otherwise=rule.otherwise and averaged(rule.otherwise),
        evaluation=evaluation,
    )
