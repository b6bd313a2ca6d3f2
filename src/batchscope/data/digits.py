"""The 8x8 handwritten digits that come with scikit-learn: real data without a download."""

from __future__ import annotations

import numpy as np
import torch

from batchscope.data.splits import Splits, shuffled

HELD_OUT_EXAMPLES = 250


def load_digits() -> Splits:
    """The 1,797 digits of scikit-learn: 1,297 training, 250 validation, 250 test images.

    Images (N, 8, 8) float32 in [0, 1] (grey values 0..16 over 16), not standardised; digits (N,) int64. The
    split is fixed and stratified: of every digit, each held-out part has 250/1797 of the examples, give or
    take two.

    Source: Alpaydin and Kaynak (1998), Optical Recognition of Handwritten Digits, UCI; its writers are not
    told apart, so that one can be in more than one part.
    """
    from sklearn.datasets import load_digits as load  # here, because only these data are its

    digits = load()
    order = shuffled(len(digits.target), "split", "digits")
    by_label = order[np.argsort(digits.target[order], kind="stable")]
    # Systematic sampling: every 7.188th example in the order of labels, and its third successor.
    step = len(order) / HELD_OUT_EXAMPLES
    chosen = (np.arange(HELD_OUT_EXAMPLES) * step).astype(np.intp)
    validation, test = by_label[chosen], by_label[chosen + 3]
    train = order[~np.isin(order, np.concatenate([validation, test]))]
    images = torch.from_numpy(digits.images).to(torch.float32) / 16
    labels = torch.from_numpy(digits.target).to(torch.int64)
    parts = [(images[part], labels[part]) for part in (train, validation, test)]
    return Splits(parts[0], parts[1], parts[2])
