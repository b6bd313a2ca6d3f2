"""Data sets read from their official files into tensors, in fixed splits."""

from batchscope.data.cifar import load_cifar10, load_cifar100
from batchscope.data.digits import load_digits
from batchscope.data.files import data_folder
from batchscope.data.idx import read_idx
from batchscope.data.mnist import load_fashion_mnist, load_mnist
from batchscope.data.splits import Splits
from batchscope.data.text import load_tinyshakespeare

__all__ = [
    "Splits",
    "data_folder",
    "load_cifar10",
    "load_cifar100",
    "load_digits",
    "load_fashion_mnist",
    "load_mnist",
    "load_tinyshakespeare",
    "read_idx",
]
