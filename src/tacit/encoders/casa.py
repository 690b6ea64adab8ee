"""CASA: tokens of one network are told again in terms of what another network can see."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tacit.errors import UsageError


class CASA(nn.Module):
    """Conditional anatomical semantic alignment (Jiang et al., 2023, arXiv 2302.05615; as in its code).

    The paper's abstract calls it conditional anatomical feature alignment (CAFA). One cross-attention layer
    X, used twice, always with the same query, the student's tokens e of the *masked* crop:

        S = X(e, student's decoder tokens)      T = X(e, teacher's decoder tokens of the clean crop)

    so that T is what the teacher knows of the places that the student can see, and comparing S and T asks
    nothing of tokens that lost their content to the mask.

        A = softmax((Wq q)(Wk v)^T / sqrt(d))        one per head, no biases, dropout on A
        y = LN(q + dropout(Wo concat(A Wv v)))
        X = LN(y + dropout(W2 relu(W1 y)))

    The released module has four more linear layers that are never used; they are left out.

    width: of the tokens; a multiple of `heads`. heads: 8 in the paper. hidden: of the two-layer perceptron,
        2048 in the paper, where width is 512.
    dropout: on attention and on both residual branches.

    Raises:
        UsageError: width is no multiple of heads, or dropout is not in [0, 1).
    """

    def __init__(self, width: int = 512, heads: int = 8, hidden: int = 2048, dropout: float = 0.1) -> None:
        super().__init__()
        if heads < 1 or width < 1 or width % heads:
            raise UsageError(f"CASA: a width of {width} cannot be split into {heads} heads")
        if not 0 <= dropout < 1:
            raise UsageError(f"dropout must lie in [0, 1), not {dropout}")
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.attended = nn.LayerNorm(width, eps=1e-6)
        self.perceptron = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))
        self.told = nn.LayerNorm(width, eps=1e-6)

    def forward(self, query: Tensor, tokens: Tensor, *, projected: Tensor | None = None) -> Tensor:
        """(B, N, width) queries and (B, M, width) tokens, which are keys and values -> (B, N, width).

        projected: Wq q if it was computed elsewhere, as when a moving average of this layer has no query
            projection of its own.
        """
        q = self.query(query) if projected is None else projected
        q, k, v = (self._split(x) for x in (q, self.key(tokens), self.value(tokens)))
        heads = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        y = self.attended(query + self._drop(self.out(heads.transpose(1, 2).flatten(2))))
        return self.told(y + self._drop(self.perceptron(y)))

    def attention(self, query: Tensor, tokens: Tensor) -> Tensor:
        """The weights A without dropout, (B, heads, N, M); each row sums to 1. For looking at."""
        q, k = self._split(self.query(query)), self._split(self.key(tokens))
        return torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, -1)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


CAFA = CASA
"""The name in the paper's abstract."""
