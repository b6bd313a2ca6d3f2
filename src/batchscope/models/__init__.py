"""Models of the papers: plain modules, one file per family, logits out."""

from batchscope.models.fully_connected import FullyConnected
from batchscope.models.resnet import ResNetWithoutNorm
from batchscope.models.simple_cnn import SIZES, SimpleCNN
from batchscope.models.transformer import CharacterTransformer

__all__ = ["SIZES", "CharacterTransformer", "FullyConnected", "ResNetWithoutNorm", "SimpleCNN"]
