"""Small residual networks for 3x32x32 images, without batch normalisation: ResNet-8 of Sh19 and ML18."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from batchscope.models.initialization import initialize_he


class _Block(nn.Module):
    """x + conv(relu(conv(relu(x)))), the pre-activation block of He et al. (2016b) without its norms."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.new_channels = filters - channels
        self.first = nn.Conv2d(channels, filters, 3, stride=stride, padding=1)
        self.second = nn.Conv2d(filters, filters, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        # Shortcut A of He et al. (2016a): subsampled, new channels zero, no parameters.
        shortcut = x[..., :: self.stride, :: self.stride] if self.stride > 1 else x
        if self.new_channels:
            shortcut = F.pad(shortcut, (0, 0, 0, 0, 0, self.new_channels))
        residual: Tensor = self.second(F.relu(self.first(F.relu(x))))
        return shortcut + residual


class ResNetWithoutNorm(nn.Module):
    """ResNet-``depth`` for CIFAR (He et al. 2016a section 4.2), pre-activation, no batch normalisation.

    Depth 8 is ResNet-8 of Sh19 appendix B: seven 3x3 convolutions, of 16, then 2 each of 16, 32 and 64
    filters, global average pooling, one linear layer. Convolutions keep their biases, for no norm gives them
    one. He initialisation (``batchscope.models.initialization``), as ML18 section 3.1 has it.

    Shapes: (B, 3, H, W) -> (B, classes).

    Raises:
        ValueError: If ``depth`` is not 6n + 2.
    """

    def __init__(self, depth: int = 8, classes: int = 10) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 2, 6)
        if blocks < 1 or rest:
            raise ValueError(f"depth must be 6n + 2 (8, 14, 20, ...), got {depth}")
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        filters = [16] * blocks + [32] * blocks + [64] * blocks
        self.blocks = nn.Sequential(
            *(_Block(before, after, after // before) for before, after in zip([16, *filters], filters, strict=False))
        )
        self.output = nn.Linear(64, classes)
        initialize_he(self, self.output)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of a batch."""
        features = F.relu(self.blocks(self.stem(images)))
        logits: Tensor = self.output(features.mean((-2, -1)))
        return logits
