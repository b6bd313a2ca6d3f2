"""Residual networks: of CIFAR (He et al. 2016a section 4.2), wide ones, and of ImageNet (section 4.1)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from batchscope.models.convolution import GlobalAveragePool, convolution, norm
from batchscope.models.initialization import initialize_he

Shortcut = Literal["pad", "project"]

DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
"""Blocks of each stage of the networks for ImageNet, by depth (He et al. 2016a, table 1)."""


class ResidualBlock(nn.Module):
    """A residual block: two 3x3 convolutions, or a bottleneck of 1x1, 3x3 and 1x1 with four times as many filters.

    Before the convolutions come norm and ReLU (pre-activation, He et al. 2016b), or after them. Where the
    shape changes, the shortcut is subsampled and padded with zero channels (A of He et al. 2016a), or projected.

    Shapes: (B, channels, H, W) -> (B, filters, H / stride, W / stride), of a bottleneck 4 filters.
    """

    def __init__(
        self,
        channels: int,
        filters: int,
        stride: int,
        *,
        pre_activation: bool,
        batch_norm: bool,
        bottleneck: bool = False,
        dilation: int = 1,
        shortcut: Shortcut = "project",
    ) -> None:
        super().__init__()
        self.pre_activation, self.stride = pre_activation, stride
        # (channels in, channels out, size, stride); the stride of a bottleneck is that of its 3x3 convolution.
        layers = [(channels, filters, 3, stride), (filters, filters, 3, 1)]
        if bottleneck:
            layers = [(channels, filters, 1, 1), (filters, filters, 3, stride), (filters, 4 * filters, 1, 1)]
        out = layers[-1][1]
        self.convolutions = nn.ModuleList(
            convolution(*layer, dilation=dilation, bias=not batch_norm) for layer in layers
        )
        self.norms = nn.ModuleList(norm(layer[0] if pre_activation else layer[1], batch_norm) for layer in layers)
        self.new_channels = out - channels
        self.projection: nn.Module | None = None
        if shortcut == "project" and (stride > 1 or self.new_channels):
            projected = convolution(channels, out, 1, stride, bias=not batch_norm)
            self.projection = projected if pre_activation else nn.Sequential(projected, norm(out, batch_norm))

    def forward(self, x: Tensor) -> Tensor:
        """Features of a batch."""
        return self._norms_first(x) if self.pre_activation else self._norms_last(x)

    def _norms_first(self, x: Tensor) -> Tensor:
        active = F.relu(self.norms[0](x))
        residual = self.convolutions[0](active)
        for layer, normalise in zip(self.convolutions[1:], self.norms[1:], strict=True):
            residual = layer(F.relu(normalise(residual)))
        # A projection sees what the convolutions see; the identity stays untouched.
        total: Tensor = residual + (self._padded(x) if self.projection is None else self.projection(active))
        return total

    def _norms_last(self, x: Tensor) -> Tensor:
        residual = x
        for at, (layer, normalise) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            residual = normalise(layer(residual if at == 0 else F.relu(residual)))
        return F.relu(residual + (self._padded(x) if self.projection is None else self.projection(x)))

    def _padded(self, x: Tensor) -> Tensor:
        shortcut = x[..., :: self.stride, :: self.stride] if self.stride > 1 else x
        return F.pad(shortcut, (0, 0, 0, 0, 0, self.new_channels)) if self.new_channels else shortcut


class CifarResNet(nn.Module):
    """ResNet-``depth`` for small images: 16, 32 and 64 filters, shortcuts without parameters.

    The defaults are ResNet-8 of Sh19 appendix B: seven 3x3 convolutions, pre-activation, no batch norm, so that
    convolutions have biases. ML18's ResNet-8, 20 and 32 (section 3.1) have the norms, if any, after the
    convolutions: ``pre_activation=False``. He initialisation (``batchscope.models.initialization``).

    Shapes: (B, channels, H, W) -> (B, classes).

    Raises:
        ValueError: If ``depth`` is not 6n + 2.
    """

    def __init__(
        self,
        depth: int = 8,
        classes: int = 10,
        *,
        channels: int = 3,
        batch_norm: bool = False,
        pre_activation: bool = True,
    ) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 2, 6)
        if blocks < 1 or rest:
            raise ValueError(f"depth must be 6n + 2 (8, 14, 20, ...), got {depth}")
        filters = [16] * blocks + [32] * blocks + [64] * blocks
        self.stem = convolution(channels, 16, 3, bias=not batch_norm)
        self.stem_norm = nn.Identity() if pre_activation else norm(16, batch_norm)
        self.blocks = nn.Sequential(
            *(
                ResidualBlock(
                    before,
                    after,
                    after // before,
                    pre_activation=pre_activation,
                    batch_norm=batch_norm,
                    shortcut="pad",
                )
                for before, after in zip([16, *filters], filters, strict=False)
            )
        )
        self.last_norm = norm(64, batch_norm) if pre_activation else nn.Identity()
        self.pool = GlobalAveragePool()
        self.output = nn.Linear(64, classes)
        self.pre_activation = pre_activation
        initialize_he(self, self.output)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of a batch."""
        features = self.stem_norm(self.stem(images))
        features = self.blocks(features if self.pre_activation else F.relu(features))
        logits: Tensor = self.output(self.pool(F.relu(self.last_norm(features))))
        return logits


class WideResNet(nn.Module):
    """WRN-``depth``-``width`` of Zagoruyko and Komodakis (2016), S18's with 16 and 4: pre-activation, batch norm.

    Shapes: (B, 3, H, W) -> (B, classes).

    Raises:
        ValueError: If ``depth`` is not 6n + 4.
    """

    def __init__(self, depth: int = 16, width: int = 4, classes: int = 10) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 4, 6)
        if blocks < 1 or rest:
            raise ValueError(f"depth must be 6n + 4 (10, 16, 22, ...), got {depth}")
        self.stem = convolution(3, 16, 3)
        layers, before = [], 16
        for filters, stride in ((16 * width, 1), (32 * width, 2), (64 * width, 2)):
            for at in range(blocks):
                step = stride if at == 0 else 1
                layers.append(ResidualBlock(before, filters, step, pre_activation=True, batch_norm=True))
                before = filters
        self.blocks = nn.Sequential(*layers)
        self.last_norm = nn.BatchNorm2d(before)
        self.pool = GlobalAveragePool()
        self.output = nn.Linear(before, classes)
        initialize_he(self, self.output)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of a batch."""
        logits: Tensor = self.output(self.pool(F.relu(self.last_norm(self.blocks(self.stem(images))))))
        return logits


class ResNet(nn.Module):
    """ResNet-18, 34 or 50 of He et al. (2016a) table 1, with batch norm.

    With ``pre_activation`` it has the blocks of He et al. (2016b), as Sh19's ResNet-50 on ImageNet. For
    ``small_images`` (CIFAR, SVHN, MNIST) the stem is one 3x3 convolution without pooling.

    Shapes: (B, channels, H, W) -> (B, classes).

    Raises:
        ValueError: If there is no network of such a depth.
    """

    def __init__(
        self,
        depth: int = 50,
        classes: int = 1000,
        *,
        channels: int = 3,
        small_images: bool = False,
        pre_activation: bool = False,
    ) -> None:
        super().__init__()
        if depth not in DEPTHS:
            raise ValueError(f"depth must be 18, 34 or 50, got {depth}")
        bottleneck, self.pre_activation = depth >= 50, pre_activation
        self.stem = convolution(channels, 64, 3) if small_images else convolution(channels, 64, 7, 2)
        self.stem_norm = nn.Identity() if pre_activation else nn.BatchNorm2d(64)
        self.stem_pool = nn.Identity() if small_images else nn.MaxPool2d(3, 2, 1)
        layers, before = [], 64
        for stage, count in enumerate(DEPTHS[depth]):
            filters = 64 * 2**stage
            for at in range(count):
                stride = 2 if stage and at == 0 else 1
                layers.append(
                    ResidualBlock(
                        before, filters, stride, pre_activation=pre_activation, batch_norm=True, bottleneck=bottleneck
                    )
                )
                before = 4 * filters if bottleneck else filters
        self.blocks = nn.Sequential(*layers)
        self.last_norm = nn.BatchNorm2d(before) if pre_activation else nn.Identity()
        self.pool = GlobalAveragePool()
        self.output = nn.Linear(before, classes)
        initialize_he(self, self.output)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of a batch."""
        features = self.stem_norm(self.stem(images))
        features = self.blocks(self.stem_pool(features if self.pre_activation else F.relu(features)))
        logits: Tensor = self.output(self.pool(torch.relu(self.last_norm(features))))
        return logits
