"""The weighted k-nearest-neighbour probe: no training, no choice to tune."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

# Similarities at a time, in memory that is used again: 16 MiB. 256 x 65536 and 1024 x 16384 took up to a
# fifth longer for a bank of 20,000; three quarters of the time are the product's.
_QUERIES = 512
_BANK = 8192
_GROUP = 64  # similarities of which only the largest is looked at first


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
    Returns (M, classes) shares of the votes, summing to 1. `k` is at most N. Memory beyond that of float32
    features does not grow with N or M.
    """
    bank = bank.detach().float()
    scale = bank.norm(dim=1).clamp(min=1e-12).reciprocal()  # a normalised copy took ten times as long
    k = min(k, len(bank))
    room = bank.new_empty(_QUERIES * min(_BANK, len(bank)))
    shares = []
    for chunk in F.normalize(queries.float(), dim=1).split(_QUERIES):
        similarity, neighbour = _nearest(chunk, bank, scale, k, room)
        weight = (similarity / temperature).softmax(dim=1)
        votes = weight.new_zeros(len(chunk), classes)
        shares.append(votes.scatter_add_(1, labels[neighbour], weight))
    return torch.cat(shares) if shares else bank.new_zeros(0, classes)


def _nearest(queries: Tensor, bank: Tensor, scale: Tensor, k: int, room: Tensor) -> tuple[Tensor, Tensor]:
    """Similarity and place of the k most similar rows of the bank, (M, k) each, in no order.

    scale: (N,), what makes each row of the bank a unit vector.
    """
    found, places = [], []
    for start in range(0, len(bank), _BANK):
        block = bank[start : start + _BANK]
        similarity = room[: len(queries) * len(block)].view(len(queries), len(block))
        _multiply(queries, block, similarity)
        similarity *= scale[start : start + _BANK]
        largest, place = _largest(similarity, min(k, len(block)))
        found.append(largest)
        places.append(place + start)
    if len(found) == 1:
        return found[0], places[0]
    largest, which = torch.cat(found, 1).topk(k, dim=1, sorted=False)
    return largest, torch.cat(places, 1).gather(1, which)


def _multiply(a: Tensor, b: Tensor, out: Tensor) -> None:
    """a b^T, by numpy on the CPU: torch's BLAS (MKL) uses half of the vector width of AMD's processors."""
    if a.device.type == "cpu":
        np.matmul(a.numpy(), b.numpy().T, out=out.numpy())
    else:
        torch.mm(a, b.T, out=out)


def _largest(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """`x.topk(k, dim=1)`, (M, k) values and places, in no order.

    The k largest lie in the k groups with the largest maxima, so that the search, slow on the CPU, sees
    little more than k groups: for 1,024 x 20,000 it took 20 instead of 50 ms, beside 115 of the product.
    """
    count = x.shape[1] // _GROUP
    if count <= 4 * k:
        return torch.topk(x, k, dim=1, sorted=False)
    whole = count * _GROUP
    groups = x[:, :whole].unflatten(1, (count, _GROUP))
    best = groups.amax(2).topk(k, dim=1, sorted=False).indices
    place = (best[..., None] * _GROUP + torch.arange(_GROUP, device=x.device)).flatten(1)
    rest = torch.arange(whole, x.shape[1], device=x.device).expand(len(x), -1)
    place = torch.cat([place, rest], 1)
    largest, which = x.gather(1, place).topk(k, dim=1, sorted=False)
    return largest, place.gather(1, which)
