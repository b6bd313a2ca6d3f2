"""Decoder-only Transformers: a small one over characters, and the sizes of Vaswani et al. and Sh19."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TransformerSize = Literal["base", "shallow", "narrow", "wide"]

TRANSFORMER_SIZES: Mapping[TransformerSize, tuple[int, int, int, int]] = MappingProxyType(
    {
        "base": (6, 512, 8, 2048),
        "shallow": (2, 512, 8, 2048),
        "narrow": (2, 256, 4, 1024),
        "wide": (6, 1024, 16, 4096),
    }
)
"""Layers, width, heads and units of the feed-forward layers (Sh19 appendix B; its narrow one is shallow as well)."""


class _Attention(nn.Module):
    """Causal multi-head self-attention, written out.

    Fused kernels are chosen by device, type and shape, and not every one has a batching rule and a second
    derivative; products and a softmax have both everywhere.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        query, key, value = (
            part.reshape(batch, length, self.heads, width // self.heads).transpose(1, 2)
            for part in self.query_key_value(x).chunk(3, dim=-1)
        )  # each (B, heads, T, width / heads)
        scores = query @ key.transpose(-2, -1) / math.sqrt(width // self.heads)
        later = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
        mixed = scores.masked_fill(later, -math.inf).softmax(-1) @ value
        out: Tensor = self.output(mixed.transpose(1, 2).reshape(batch, length, width))
        return out


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = _Attention(width, heads)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        out: Tensor = x + self.down(F.gelu(self.up(self.feed_forward_norm(x))))
        return out


class CharacterTransformer(nn.Module):
    """Autoregressive Transformer language model: learned positions, norms before each sublayer (GPT-2).

    Sh19's Transformer (Vaswani et al. 2017) has the same parts with the norms after the sublayers; before,
    training needs no warm-up. Weights are normal(0, 0.02), those that write to the residual stream divided by
    sqrt(2 * layers), biases zero (Radford et al. 2019). Embedding and output do not share weights.

    Shapes: token numbers (B, T) with T <= context -> logits (B, T, vocabulary); position t sees tokens 0..t.

    Raises:
        ValueError: If the heads do not divide the width.
    """

    def __init__(self, vocabulary: int, layers: int = 4, width: int = 128, heads: int = 4, context: int = 64) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"heads must divide width, got {heads} heads and width {width}")
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width)
        self.layers = nn.Sequential(*(_Layer(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, vocabulary)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                residual = name.endswith(("attention.output.weight", "down.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * layers) if residual else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the next token at every position."""
        positions = torch.arange(tokens.shape[-1], device=tokens.device)
        x = self.tokens(tokens) + self.positions(positions)
        logits: Tensor = self.output(self.norm(self.layers(x)))
        return logits


class _NormLastLayer(nn.Module):
    """A layer of Vaswani et al. (2017): dropout, residual and norm after each sublayer."""

    def __init__(self, width: int, heads: int, units: int, dropout: float) -> None:
        super().__init__()
        self.attention = _Attention(width, heads)
        self.attention_norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, units)
        self.down = nn.Linear(units, width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attention_norm(x + self.dropout(self.attention(x)))
        out: Tensor = self.feed_forward_norm(x + self.dropout(self.down(F.relu(self.up(x)))))
        return out


class Transformer(nn.Module):
    """The decoder of Vaswani et al. (2017) as an autoregressive language model, in Sh19's four sizes.

    Sinusoidal positions, norms after the sublayers, ReLU, one matrix for embeddings and output (section 3.4), dropout
    0.1 of embeddings and sublayers. Weights are Glorot uniform, embeddings normal with variance 1 / width.

    Shapes: token numbers (B, T) -> logits (B, T, vocabulary); position t sees tokens 0..t.
    """

    def __init__(self, vocabulary: int, size: TransformerSize = "base", *, dropout: float = 0.1) -> None:
        super().__init__()
        layers, width, heads, units = TRANSFORMER_SIZES[size]
        self.tokens = nn.Embedding(vocabulary, width)
        self.layers = nn.Sequential(*(_NormLastLayer(width, heads, units, dropout) for _ in range(layers)))
        self.dropout = nn.Dropout(dropout)
        for name, parameter in self.layers.named_parameters():
            if parameter.ndim == 2:
                nn.init.xavier_uniform_(parameter)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        nn.init.normal_(self.tokens.weight, std=width**-0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the next token at every position."""
        width = self.tokens.embedding_dim
        x = self.tokens(tokens) * math.sqrt(width) + sinusoids(tokens.shape[-1], width, self.tokens.weight)
        return F.linear(self.layers(self.dropout(x)), self.tokens.weight)


def sinusoids(length: int, width: int, like: Tensor) -> Tensor:
    """Positions (length, width) of Vaswani et al. (2017) section 3.5: sines in even, cosines in odd places."""
    position = torch.arange(length, device=like.device, dtype=like.dtype).unsqueeze(1)
    even = torch.arange(0, width, 2, device=like.device, dtype=like.dtype)
    angles = position * torch.exp(even * (-math.log(10_000.0) / width))
    return torch.stack([angles.sin(), angles.cos()], dim=-1).reshape(length, width)
