"""Recurrent language models."""

from __future__ import annotations

from torch import Tensor, nn


class LSTMLanguageModel(nn.Module):
    """Embedding, LSTM layers, logits of the next token (Hochreiter and Schmidhuber 1997).

    Every example begins with a state of zeros. Sh19's LSTM on LM1B (appendix B) has an embedding of 1,024, one
    layer of 2,048 cells projected to 512, and no output bias; G18's on WikiText-2 two layers of 200 with
    an embedding of 200. ``dropout`` is that of the embeddings and of every layer's output. Weights are uniform
    in +-1 / sqrt(fan-in of a cell) in the LSTM, as torch has them, and in +-0.1 in embedding and output.

    Shapes: token numbers (B, T) -> logits (B, T, vocabulary); position t sees tokens 0..t.
    """

    def __init__(
        self,
        vocabulary: int,
        layers: int = 2,
        width: int = 200,
        *,
        embedding: int = 200,
        projection: int = 0,
        dropout: float = 0.0,
        output_bias: bool = True,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, embedding)
        between = dropout if layers > 1 else 0.0
        self.lstm = nn.LSTM(embedding, width, layers, batch_first=True, dropout=between, proj_size=projection)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(projection or width, vocabulary, bias=output_bias)
        nn.init.uniform_(self.tokens.weight, -0.1, 0.1)
        nn.init.uniform_(self.output.weight, -0.1, 0.1)
        if output_bias:
            nn.init.zeros_(self.output.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the next token at every position."""
        hidden, _ = self.lstm(self.dropout(self.tokens(tokens)))
        logits: Tensor = self.output(self.dropout(hidden))
        return logits
