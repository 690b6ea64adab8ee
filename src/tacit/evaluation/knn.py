"""The weighted k-nearest-neighbour probe: no training, no choice to tune."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_AT_ONCE = 1024  # queries; bounds memory at 1024 x bank similarities


@torch.inference_mode()
def knn_predict(
    bank: Tensor,
    labels: Tensor,
    queries: Tensor,
    *,
    classes: int,
    k: int = 20,
    temperature: float = 0.1,
) -> Tensor:
    """Class votes exp(cosine / temperature) of the k nearest (Wu et al., 2018; DINO uses the same form).

    bank: (N, D) features with labels (N,) in 0 .. classes-1. queries: (M, D).
    Returns (M, classes) shares of the votes, summing to 1. `k` is at most N.
    """
    bank = F.normalize(bank.float(), dim=1)
    k = min(k, len(bank))
    shares = []
    for chunk in F.normalize(queries.float(), dim=1).split(_AT_ONCE):
        similarity, neighbour = (chunk @ bank.T).topk(k, dim=1)
        weight = (similarity / temperature).softmax(dim=1)
        votes = weight.new_zeros(len(chunk), classes)
        shares.append(votes.scatter_add_(1, labels[neighbour], weight))
    return torch.cat(shares) if shares else bank.new_zeros(0, classes)
