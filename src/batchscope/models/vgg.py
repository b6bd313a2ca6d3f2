"""VGG: stacks of 3x3 convolutions, in the size of ImageNet and for small images."""

from __future__ import annotations

from torch import Tensor, nn

from batchscope.models.convolution import unit
from batchscope.models.initialization import initialize_he

STAGES = {11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3)}
"""Convolutions of each stage by depth: models A and D of Simonyan and Zisserman (2014), table 1."""


class VGG(nn.Module):
    """VGG-11 or VGG-16: stages of 64, 128, 256, 512 and 512 filters with max-pooling, two hidden layers of 4,096.

    For ``small_images``, 32x32, which the stages bring to one pixel, one linear layer follows them. Without
    ``batch_norm`` it is the paper's network.

    Shapes: (B, 3, 224, 224), or (B, 3, 32, 32) -> (B, classes).

    Raises:
        ValueError: If there is no network of such a depth.
    """

    def __init__(
        self, depth: int = 16, classes: int = 1000, *, small_images: bool = False, batch_norm: bool = False
    ) -> None:
        super().__init__()
        if depth not in STAGES:
            raise ValueError(f"depth must be 11 or 16, got {depth}")
        layers: list[nn.Module] = []
        before = 3
        for count, filters in zip(STAGES[depth], (64, 128, 256, 512, 512), strict=True):
            for _ in range(count):
                layers.append(unit(before, filters, 3, batch_norm=batch_norm))
                before = filters
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers, nn.Flatten())
        output = nn.Linear(512 if small_images else 4096, classes)
        hidden = [
            nn.Linear(512 * 49, 4096),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Dropout(0.5),
        ]
        self.classifier = nn.Sequential(*([] if small_images else hidden), output)
        initialize_he(self, output)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of a batch."""
        logits: Tensor = self.classifier(self.features(images))
        return logits
