"""Parts that the convolutional families share: a convolution with a norm or a bias, and pooling over the image."""

from __future__ import annotations

from torch import Tensor, nn

Size = int | tuple[int, int]


def convolution(
    channels: int,
    filters: int,
    size: Size,
    stride: int = 1,
    *,
    padding: Size | None = None,
    dilation: int = 1,
    groups: int = 1,
    bias: bool = False,
) -> nn.Conv2d:
    """A convolution that keeps height and width at stride 1, unless ``padding`` says otherwise.

    Args:
        channels: Of the input.
        filters: Channels of the output.
        size: Height and width of a filter, odd.
        stride: Of rows and columns.
        padding: None for "same".
        dilation: Distance of a filter's elements.
        groups: Into which the channels are divided.
        bias: Whether there is one; a norm that follows gives its own.
    """
    if padding is None:
        height, width = (size, size) if isinstance(size, int) else size
        padding = (dilation * (height - 1) // 2, dilation * (width - 1) // 2)
    return nn.Conv2d(channels, filters, size, stride, padding, dilation, groups, bias)


def norm(channels: int, batch_norm: bool) -> nn.Module:
    """Batch norm, or nothing. Ghost batch norm is made of it by ``batchscope.nn.convert_ghost_batch_norm``."""
    return nn.BatchNorm2d(channels) if batch_norm else nn.Identity()


def unit(
    channels: int,
    filters: int,
    size: Size,
    stride: int = 1,
    *,
    padding: Size | None = None,
    dilation: int = 1,
    groups: int = 1,
    batch_norm: bool = True,
    activation: type[nn.Module] = nn.ReLU,
) -> nn.Sequential:
    """Convolution, norm, ReLU; without a norm the convolution has a bias."""
    layer = convolution(
        channels, filters, size, stride, padding=padding, dilation=dilation, groups=groups, bias=not batch_norm
    )
    return nn.Sequential(layer, norm(filters, batch_norm), activation())


class GlobalAveragePool(nn.Module):
    """The mean of every channel over the image. Shapes: (B, C, H, W) -> (B, C)."""

    def forward(self, features: Tensor) -> Tensor:
        """Means of a batch."""
        return features.mean((-2, -1))
