"""Optimizers: one pure rule each, and each as a ``torch.optim.Optimizer``."""

from __future__ import annotations

from batchscope.optim.adam import Adam, AdamW, adam, adamw
from batchscope.optim.cblr import CBLR, cblr, cblr_estimate
from batchscope.optim.lamb import LAMB, lamb
from batchscope.optim.lars import LARS, lars
from batchscope.optim.mclr import MCLR, mclr, mclr_median
from batchscope.optim.momentum import SGD, Momentum, Nesterov, momentum, nesterov, sgd
from batchscope.optim.percent_delta import PercentDelta, percent_delta
from batchscope.optim.rmsprop import RMSProp, rmsprop
from batchscope.optim.rule import Rule

_PLAIN = (sgd, momentum, nesterov, adam, adamw, rmsprop)
_BY_LAYER_OR_CURVATURE = (lars, lamb, percent_delta, cblr, cblr_estimate, mclr, mclr_median)

RULES: dict[str, Rule] = {rule.name: rule for rule in (*_PLAIN, *_BY_LAYER_OR_CURVATURE)}

__all__ = [
    "CBLR",
    "LAMB",
    "LARS",
    "MCLR",
    "RULES",
    "SGD",
    "Adam",
    "AdamW",
    "Momentum",
    "Nesterov",
    "PercentDelta",
    "RMSProp",
    "Rule",
]
