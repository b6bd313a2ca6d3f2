"""Models of the papers: plain modules, one file per family, logits out."""

from batchscope.models.alexnet import AlexNet, ReducedAlexNet
from batchscope.models.dilated_resnet import DilatedResNet
from batchscope.models.fully_connected import FullyConnected
from batchscope.models.inception_resnet import InceptionResNetV2
from batchscope.models.lstm import LSTMLanguageModel
from batchscope.models.mobilenet import MobileNetV2
from batchscope.models.resnet import CifarResNet, ResNet, WideResNet
from batchscope.models.simple_cnn import SIZES, SimpleCNN
from batchscope.models.transformer import TRANSFORMER_SIZES, CharacterTransformer, Transformer
from batchscope.models.vgg import VGG

__all__ = [
    "SIZES",
    "TRANSFORMER_SIZES",
    "VGG",
    "AlexNet",
    "CharacterTransformer",
    "CifarResNet",
    "DilatedResNet",
    "FullyConnected",
    "InceptionResNetV2",
    "LSTMLanguageModel",
    "MobileNetV2",
    "ReducedAlexNet",
    "ResNet",
    "SimpleCNN",
    "Transformer",
    "WideResNet",
]
