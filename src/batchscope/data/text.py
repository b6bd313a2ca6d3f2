"""Text by characters: the plays that small language models learn from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from batchscope.data.files import DataFile, data_folder, read_verified
from batchscope.data.splits import Splits, shuffled

CHARACTERS = 65
"""Different characters of tinyshakespeare."""

TINYSHAKESPEARE_FILE = DataFile(
    "input.txt",
    "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    ("https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/",),
)


def load_tinyshakespeare(data_dir: str | Path | None = None, context: int = 64) -> Splits:
    """1,115,394 characters of Shakespeare's plays (Karpathy 2015), to predict each from those before it.

    An example is ``context`` characters, and as targets the characters that follow each of them: both (N, context)
    int64, numbered in the order of their codes. The text is split where it stands, the first 90% to train, 5% to
    validate, 5% to test, and cut into examples that do not overlap; what is left at the end of a part is dropped.

    The file is looked for in ``tinyshakespeare/`` of the data folder, else downloaded.
    """
    root = data_folder(data_dir)
    content, _ = read_verified(TINYSHAKESPEARE_FILE, (root / "tinyshakespeare",))
    codes, tokens = np.unique(np.frombuffer(content, np.uint8), return_inverse=True)
    assert len(codes) == CHARACTERS
    ends = [len(tokens) * 90 // 100, len(tokens) * 95 // 100]
    train, validation, test = (_examples(part, context) for part in np.split(tokens.astype(np.int64), ends))
    order = torch.from_numpy(shuffled(len(train[0]), "split", "tinyshakespeare"))
    return Splits((train[0][order], train[1][order]), validation, test)


def _examples(tokens: np.ndarray[tuple[int], np.dtype[np.int64]], context: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Windows one after the other; the last target of each is the first input of the next."""
    count = (len(tokens) - 1) // context
    text = torch.from_numpy(tokens)
    inputs, targets = text[: count * context], text[1 : count * context + 1]
    return inputs.view(count, context).clone(), targets.view(count, context).clone()
