"""Dilated residual networks: the last stages keep the resolution and widen what a filter sees instead."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from batchscope.models.convolution import unit
from batchscope.models.initialization import initialize_he
from batchscope.models.resnet import ResidualBlock

# Filters, stride and dilation of the residual stages, each of two blocks (Yu et al. 2017, figure 3 and table 1).
_STAGES = ((64, 2, 1), (128, 2, 1), (256, 1, 2), (512, 1, 4))

# How much smaller the features are than the image.
_REDUCTION = 8


class DilatedResNet(nn.Module):
    """DRN-D-22 of Yu et al. (2017) for segmentation, as G18 trains it on Cityscapes.

    Features an eighth of the image's size are classified pixel by pixel, and the logits enlarged bilinearly.

    Shapes: (B, 3, H, W) with H and W multiples of 8 -> (B, classes, H, W).
    """

    def __init__(self, classes: int = 19) -> None:
        super().__init__()
        layers: list[nn.Module] = [unit(3, 16, 7), unit(16, 16, 3), unit(16, 32, 3, 2)]
        before = 32
        for filters, stride, dilation in _STAGES:
            for step in (stride, 1):
                layers.append(
                    ResidualBlock(before, filters, step, pre_activation=False, batch_norm=True, dilation=dilation)
                )
                before = filters
        layers += [unit(512, 512, 3, dilation=2), unit(512, 512, 3)]
        self.features = nn.Sequential(*layers)
        self.output = nn.Conv2d(512, classes, 1)
        initialize_he(self, self.output)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of every pixel of a batch."""
        logits = self.output(self.features(images))
        return F.interpolate(logits, scale_factor=_REDUCTION, mode="bilinear", align_corners=False)
