"""MobileNetV2: inverted residual blocks."""

from __future__ import annotations

from torch import Tensor, nn

from batchscope.models.convolution import GlobalAveragePool, convolution, unit
from batchscope.models.initialization import initialize_he

# Expansion, filters, blocks, stride of the first (Sandler et al. 2018, table 2).
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class _InvertedResidual(nn.Module):
    """Wide 1x1, depthwise 3x3, narrow 1x1 without ReLU; the input is added where the shape stays."""

    def __init__(self, channels: int, filters: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels * expansion
        self.layers = nn.Sequential(
            *([unit(channels, wide, 1, activation=nn.ReLU6)] if expansion > 1 else []),
            unit(wide, wide, 3, stride, groups=wide, activation=nn.ReLU6),
            convolution(wide, filters, 1),
            nn.BatchNorm2d(filters),
        )
        self.residual = stride == 1 and channels == filters

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return x + out if self.residual else out


class MobileNetV2(nn.Module):
    """MobileNetV2 of Sandler et al. (2018), width 1, dropout 0.2 before the output.

    For ``small_images``, 32x32, the stem and the second stage have stride 1.

    Shapes: (B, 3, H, W) -> (B, classes).
    """

    def __init__(self, classes: int = 1000, *, small_images: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = [unit(3, 32, 3, 1 if small_images else 2, activation=nn.ReLU6)]
        before = 32
        for stage, (expansion, filters, blocks, first) in enumerate(_STAGES):
            for at in range(blocks):
                stride = first if at == 0 and not (small_images and stage == 1) else 1
                layers.append(_InvertedResidual(before, filters, stride, expansion))
                before = filters
        output = nn.Linear(1280, classes)
        self.layers = nn.Sequential(
            *layers, unit(before, 1280, 1, activation=nn.ReLU6), GlobalAveragePool(), nn.Dropout(0.2), output
        )
        initialize_he(self, output)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of a batch."""
        logits: Tensor = self.layers(images)
        return logits
