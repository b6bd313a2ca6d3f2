"""The Simple CNN of Sh19: two convolutions and one hidden layer, in three widths."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from torch import Tensor, nn

from batchscope.models.initialization import initialize_he

Size = Literal["narrow", "base", "wide"]

SIZES: Mapping[Size, tuple[int, int, int]] = MappingProxyType(
    {"narrow": (16, 32, 512), "base": (32, 64, 1024), "wide": (64, 128, 2048)}
)
"""Filters of the first and of the second convolution, units of the hidden layer (Sh19 appendix B)."""


class SimpleCNN(nn.Module):
    """Simple CNN of Sh19 appendix B: (5x5 convolution, ReLU, 2x2 max-pooling) twice, one hidden layer.

    ``input_shape`` is (channels, height, width) with height and width at least 4. ``dropout`` follows the
    hidden layer; Sh19 uses 0.4. He initialisation (``batchscope.models.initialization``).

    Shapes: (B, *input_shape) -> (B, classes).
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int] = (1, 28, 28),
        size: Size = "base",
        classes: int = 10,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        channels, height, width = input_shape
        first, second, units = SIZES[size]
        output = nn.Linear(units, classes)
        self.layers = nn.Sequential(
            nn.Conv2d(channels, first, 5, padding="same"),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(first, second, 5, padding="same"),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(second * (height // 4) * (width // 4), units),
            nn.ReLU(),
            *([nn.Dropout(dropout)] if dropout else []),
            output,
        )
        initialize_he(self, output)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits of a batch."""
        logits: Tensor = self.layers(inputs)
        return logits
