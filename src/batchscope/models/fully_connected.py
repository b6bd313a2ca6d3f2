"""Fully connected networks FC-N1-...-Nk, and softmax regression as the one with k = 0."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import Tensor, nn

from batchscope.models.initialization import initialize_he


class FullyConnected(nn.Module):
    """FC-N1-...-Nk of Sh19 appendix B: ReLU after every hidden layer, logits out.

    ``input_shape`` is the shape of one example, ``hidden`` the units N1, ..., Nk: none at all is softmax
    regression. ``dropout`` follows every hidden layer; Sh19 uses 0.4. He initialisation
    (``batchscope.models.initialization``).

    Shapes: (B, *input_shape) -> (B, classes).
    """

    def __init__(
        self, input_shape: Sequence[int], hidden: Sequence[int] = (), classes: int = 10, dropout: float = 0.0
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        units = prod(input_shape)
        for wanted in hidden:
            layers += [nn.Linear(units, wanted), nn.ReLU()]
            if dropout:
                layers.append(nn.Dropout(dropout))
            units = wanted
        output = nn.Linear(units, classes)
        self.layers = nn.Sequential(*layers, output)
        initialize_he(self, output)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits of a batch."""
        logits: Tensor = self.layers(inputs)
        return logits
