"""A workload for Batchscope: what to train, on what, and how to judge it. It runs as it is; make it yours.

In a study file:       workload: my_workload.py:make
On the command line:   batchscope run study.yaml
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

import batchscope as bs


class Model(nn.Module):
    """Any nn.Module. Every trial gets a fresh one, built after seeding torch: draw from nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, 8, 8) images to (B, 10) logits."""
        outputs: Tensor = self.layers(inputs)
        return outputs


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """What is minimised: one value PER EXAMPLE, shape (B,), so reduction="none"."""
    return F.cross_entropy(outputs, targets, reduction="none")


def error(outputs: Tensor, targets: Tensor) -> Tensor:
    """What a goal can ask for, as "validation/error < 0.05": again one value per example."""
    return (outputs.argmax(-1) != targets).float()


def make() -> bs.Workload:
    """The function that a study names. With a parameter ``data_dir`` it is given the folder of --data-dir."""
    images, labels = (torch.as_tensor(values) for values in load_digits(return_X_y=True))
    images = images.float().reshape(-1, 8, 8) / 16
    # The split must be the same every time: trials are compared with each other.
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    train, validation, test = order[:1297], order[1297:1547], order[1547:]
    return bs.Workload(
        model=Model,
        loss=loss,
        # Two tensors (inputs, targets) with the examples along the first dimension are fastest; a map-style
        # torch Dataset, an endless bs.Stream, or a function seed -> iterable of (input, target) work too.
        train=(images[train], labels[train]),
        validation=(images[validation], labels[validation]),
        test=(images[test], labels[test]),
        metrics={"error": error},
        # A change of this file's code begins a new run, and comments are free. With a version="1" of your own
        # it is up to you to raise it when you change what is trained.
    )
