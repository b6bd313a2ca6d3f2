"""AlexNet, in the size of ImageNet, for small images, and reduced as in ML18."""

from __future__ import annotations

from torch import Tensor, nn

from batchscope.models.convolution import convolution, norm
from batchscope.models.initialization import initialize_he

_CHANNELS = (64, 192, 384, 256, 256)


class AlexNet(nn.Module):
    """AlexNet with one column of filters (Krizhevsky 2014), dropout 0.5 before the hidden layers.

    For ``small_images``, 32x32 as in CIFAR, the first convolution is padded by 5 and one linear layer follows the
    convolutions, for these leave one pixel.

    Shapes: (B, 3, 224, 224), or (B, 3, 32, 32) -> (B, classes).
    """

    def __init__(self, classes: int = 1000, *, small_images: bool = False) -> None:
        super().__init__()
        first, second, third, fourth, fifth = _CHANNELS
        size = 2 if small_images else 3
        self.features = nn.Sequential(
            nn.Conv2d(3, first, 11, 4, 5 if small_images else 2),
            nn.ReLU(),
            nn.MaxPool2d(size, 2),
            nn.Conv2d(first, second, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(size, 2),
            nn.Conv2d(second, third, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(third, fourth, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(fourth, fifth, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(size, 2),
            nn.Flatten(),
        )
        output = nn.Linear(fifth if small_images else 4096, classes)
        hidden = [nn.Dropout(0.5), nn.Linear(fifth * 36, 4096), nn.ReLU()]
        hidden += [nn.Dropout(0.5), nn.Linear(4096, 4096), nn.ReLU()]
        self.classifier = nn.Sequential(*([] if small_images else hidden), output)
        initialize_he(self, output)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of a batch."""
        logits: Tensor = self.classifier(self.features(images))
        return logits


class ReducedAlexNet(nn.Module):
    """The reduced AlexNet of ML18 section 3.1 for 32x32 images.

    Five convolutions of stride 1, sizes 5, 3, 3, 3, 3 and 16, 48, 96, 64, 64 filters, 3x3 max-pooling of stride 2
    where AlexNet has it (after the first, second and last), two hidden layers of 256. ``batch_norm`` puts batch norm
    after convolutions, ``hidden_norm`` after hidden layers as well (figures 5 and 6). The paper does not say how
    edges are padded; here convolutions keep the size, and pooling is padded by 1.

    Shapes: (B, 3, 32, 32) -> (B, classes).
    """

    def __init__(self, classes: int = 10, *, batch_norm: bool = False, hidden_norm: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for filters, size, pooled in ((16, 5, True), (48, 3, True), (96, 3, False), (64, 3, False), (64, 3, True)):
            layers += [convolution(before, filters, size, bias=not batch_norm), norm(filters, batch_norm), nn.ReLU()]
            if pooled:
                layers.append(nn.MaxPool2d(3, 2, 1))
            before = filters
        layers.append(nn.Flatten())
        units = before * 4 * 4
        for _ in range(2):
            layers.append(nn.Linear(units, 256, bias=not hidden_norm))
            layers += [nn.BatchNorm1d(256), nn.ReLU()] if hidden_norm else [nn.ReLU()]
            units = 256
        output = nn.Linear(units, classes)
        self.layers = nn.Sequential(*layers, output)
        initialize_he(self, output)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of a batch."""
        logits: Tensor = self.layers(images)
        return logits
