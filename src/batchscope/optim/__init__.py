"""Optimizers: one pure rule each, and each as a ``torch.optim.Optimizer``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchscope.lazy import exports
from batchscope.optim.table import TABLE

if TYPE_CHECKING:
    from batchscope.optim.adafactor import Adafactor as Adafactor
    from batchscope.optim.adam import Adam as Adam
    from batchscope.optim.adam import AdamW as AdamW
    from batchscope.optim.cblr import CBLR as CBLR
    from batchscope.optim.lamb import LAMB as LAMB
    from batchscope.optim.lars import LARS as LARS
    from batchscope.optim.lion import Lion as Lion
    from batchscope.optim.mclr import MCLR as MCLR
    from batchscope.optim.momentum import SGD as SGD
    from batchscope.optim.momentum import Momentum as Momentum
    from batchscope.optim.momentum import Nesterov as Nesterov
    from batchscope.optim.muon import Muon as Muon
    from batchscope.optim.percent_delta import PercentDelta as PercentDelta
    from batchscope.optim.rmsprop import RMSProp as RMSProp
    from batchscope.optim.rule import Rule as Rule
    from batchscope.optim.rules import OPTIMIZERS as OPTIMIZERS
    from batchscope.optim.rules import RULES as RULES
    from batchscope.optim.schedule_free import ScheduleFreeAdamW as ScheduleFreeAdamW

_CLASSES = {row.module: {other.cls for other in TABLE.values() if other.module == row.module} for row in TABLE.values()}

__all__, __getattr__ = exports(__name__, {**_CLASSES, "rule": ("Rule",), "rules": ("OPTIMIZERS", "RULES")})
