"""Inception-ResNet-V2: parallel branches of convolutions whose sum is added to the input."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from batchscope.models.convolution import GlobalAveragePool, Size, unit
from batchscope.models.initialization import initialize_he

# A convolution of a branch: filters, size, stride. Those of stride 2 are not padded.
Layer = tuple[int, Size, int]

_TALL, _WIDE = (7, 1), (1, 7)


def _branch(channels: int, *layers: Layer) -> nn.Sequential:
    units = []
    for filters, size, stride in layers:
        units.append(unit(channels, filters, size, stride, padding=0 if stride > 1 else None))
        channels = filters
    return nn.Sequential(*units)


class _Branches(nn.Module):
    """Branches side by side, their channels one after the other."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class _Residual(nn.Module):
    """x + scale * (1x1 convolution of the branches), and ReLU unless it is the last (their section 3.3)."""

    def __init__(self, channels: int, scale: float, branches: Sequence[Sequence[Layer]], *, last: bool = False) -> None:
        super().__init__()
        self.branches = _Branches(*(_branch(channels, *layers) for layers in branches))
        self.up = nn.Conv2d(sum(layers[-1][0] for layers in branches), channels, 1)
        self.scale, self.last = scale, last

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.scale * self.up(self.branches(x))
        return out if self.last else F.relu(out)


_A: tuple[tuple[Layer, ...], ...] = (((32, 1, 1),), ((32, 1, 1), (32, 3, 1)), ((32, 1, 1), (48, 3, 1), (64, 3, 1)))
_B: tuple[tuple[Layer, ...], ...] = (((192, 1, 1),), ((128, 1, 1), (160, _WIDE, 1), (192, _TALL, 1)))
_C: tuple[tuple[Layer, ...], ...] = (((192, 1, 1),), ((192, 1, 1), (224, (1, 3), 1), (256, (3, 1), 1)))


class InceptionResNetV2(nn.Module):
    """Inception-ResNet-V2 of Szegedy et al. (2017), as S18 trains it on ImageNet; dropout 0.2 before the output.

    Their figures leave open how the residual blocks are scaled; here by 0.17, 0.1 and 0.2, as in their released
    network, whose last block has neither scale nor ReLU.

    Shapes: (B, 3, 299, 299), at least 75x75 -> (B, classes).
    """

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        stem = [
            unit(3, 32, 3, 2, padding=0),
            unit(32, 32, 3, padding=0),
            unit(32, 64, 3),
            nn.MaxPool2d(3, 2),
            unit(64, 80, 1),
            unit(80, 192, 3, padding=0),
            nn.MaxPool2d(3, 2),
        ]
        inception = _Branches(
            _branch(192, (96, 1, 1)),
            _branch(192, (48, 1, 1), (64, 5, 1)),
            _branch(192, (64, 1, 1), (96, 3, 1), (96, 3, 1)),
            nn.Sequential(nn.AvgPool2d(3, 1, 1, count_include_pad=False), unit(192, 64, 1)),
        )
        first_reduction = _Branches(
            _branch(320, (384, 3, 2)), _branch(320, (256, 1, 1), (256, 3, 1), (384, 3, 2)), nn.MaxPool2d(3, 2)
        )
        second_reduction = _Branches(
            _branch(1088, (256, 1, 1), (384, 3, 2)),
            _branch(1088, (256, 1, 1), (288, 3, 2)),
            _branch(1088, (256, 1, 1), (288, 3, 1), (320, 3, 2)),
            nn.MaxPool2d(3, 2),
        )
        output = nn.Linear(1536, classes)
        self.layers = nn.Sequential(
            *stem,
            inception,
            *(_Residual(320, 0.17, _A) for _ in range(10)),
            first_reduction,
            *(_Residual(1088, 0.1, _B) for _ in range(20)),
            second_reduction,
            *(_Residual(2080, 0.2, _C) for _ in range(9)),
            _Residual(2080, 1.0, _C, last=True),
            unit(2080, 1536, 1),
            GlobalAveragePool(),
            nn.Dropout(0.2),
            output,
        )
        initialize_he(self, output)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of a batch."""
        logits: Tensor = self.layers(images)
        return logits
