"""The optimizers by their names in study files: as pure rules, and as drop-ins for a training loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from batchscope.optim.adam import Adam, AdamW, adam, adamw
from batchscope.optim.adapter import RuleOptimizer
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

# The drop-in of each rule, made from parameters and lr; everything else at its default.
OPTIMIZERS: Mapping[str, Callable[..., RuleOptimizer]] = MappingProxyType(
    {
        "sgd": SGD,
        "momentum": Momentum,
        "nesterov": Nesterov,
        "adam": Adam,
        "adamw": AdamW,
        "rmsprop": RMSProp,
        "lars": LARS,
        "lamb": LAMB,
        "percent_delta": PercentDelta,
        "cblr": CBLR,
        "cblr_estimate": partial(CBLR, curvature="estimate"),
        "mclr": MCLR,
        "mclr_median": partial(MCLR, median="literal"),
    }
)
