"""How the weights of the classifiers start.

Sh19 appendix B does not say; ML18 section 3.1 uses He et al. (2015b), and so do all classifiers here: weights
normal with variance 2/fan_in before a ReLU and 1/fan_in before the softmax, biases zero.
"""

from __future__ import annotations

import math

from torch import nn


def initialize_he(module: nn.Module, output: nn.Module) -> None:
    """Draw every linear and convolutional weight of ``module``; after its layer ``output`` comes no ReLU.

    Draws come from torch's global generator, in the order of ``module.modules()``.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            fan_in = layer.weight[0].numel()
            nn.init.normal_(layer.weight, std=math.sqrt((1 if layer is output else 2) / fan_in))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
