"""Contrastive losses: InfoNCE and its decoupled form, against the batch, a queue, or nearest neighbours.

For an anchor with positive logit p and negatives v, and S = sum_v exp(<z, v> / temperature):

    InfoNCE   -p + log(exp(p) + S)        DCL   -p + log S        q = S / (exp(p) + S)

so InfoNCE = DCL - log q, and per anchor grad InfoNCE = q grad DCL: q is the negative-positive
coupling multiplier, which decoupling removes. Every loss here is one line over (p, log S), which
`contrastive_terms`, `queue_terms` and `nearest_terms` give per anchor.

DCL: Yeh et al., "Decoupled Contrastive Learning", ECCV 2022, arXiv 2110.06848. We could read its abstract
only; the equations follow its third-party reference implementation and other implementations.

Sums are exact and in memory linear in N, see `tacit.losses.blocks`; gradients exist once (no second order).

Shared by all functions: vectors are normalised here unless `assume_normalized`. Half precision is
computed in float32, also under autocast (backward belongs outside it); float64 stays float64. With
`distributed`, negatives are the batches of all processes, equal in size, and the loss is the mean over
this process's anchors: averaged over processes, losses and gradients are those of one process with the
whole batch. Then all processes must make the call; pass `distributed=False` for what only one computes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from tacit.losses.blocks import largest_product, log_negatives, pair_terms
from tacit.losses.gather import gather, rank_and_world
from tacit.losses.negatives import check_negatives, check_pair, check_queue, check_temperature, unit_rows


def info_nce(
    a: Tensor,
    b: Tensor,
    temperature: float = 0.1,
    *,
    assume_normalized: bool = False,
    distributed: bool = True,
) -> Tensor:
    """InfoNCE over both views of a batch: NT-Xent of SimCLR (Chen et al., 2020, arXiv 2002.05709).

    Each of the 2N vectors is an anchor; its positive is the other view of its image, its negatives are
    the 2(N-1) views of other images.

    a, b: (N, D) embeddings of two views of the same N samples.
    Returns the mean over the 2N anchors, a scalar above 0, in nats.

    Raises:
        UsageError: shapes differ, the temperature is not above 0, or the batch has one sample.
    """
    positive, negatives = contrastive_terms(
        a, b, temperature, assume_normalized=assume_normalized, distributed=distributed
    )
    return _cross_entropy(positive, negatives).mean()


def decoupled_contrastive(
    a: Tensor,
    b: Tensor,
    temperature: float = 0.1,
    *,
    assume_normalized: bool = False,
    distributed: bool = True,
) -> Tensor:
    """Decoupled contrastive loss (Yeh et al., 2022): InfoNCE without the positive in the denominator.

    a, b: (N, D) embeddings of two views of the same N samples.
    Returns the mean over the 2N anchors, a scalar in nats; at least -2/temperature + log(2N - 2), and
    negative values are normal. The paper sums over the anchors; the mean is our choice, because it puts
    the loss on the scale of InfoNCE.

    Raises:
        UsageError: shapes differ, the temperature is not above 0, or the batch has one sample.
    """
    positive, negatives = contrastive_terms(
        a, b, temperature, assume_normalized=assume_normalized, distributed=distributed
    )
    return (negatives - positive).mean()


def decoupled_contrastive_weighted(
    a: Tensor,
    b: Tensor,
    temperature: float = 0.1,
    sigma: float = 0.5,
    *,
    detach_weight: bool = True,
    assume_normalized: bool = False,
    distributed: bool = True,
) -> Tensor:
    """Weighted decoupled contrastive loss, DCLW (Yeh et al., 2022): -w p + log S, far pairs count more.

    a, b: (N, D) embeddings of two views of the same N samples; both anchors of a sample share its
        weight, see `dclw_weights`.
    sigma: spread of the weights; the larger, the closer to `decoupled_contrastive`.
    detach_weight: no gradient through the weights. Our choice, because a weight should only scale; the
        paper's abstract does not say, and published implementations do both.
    Returns the mean over the 2N anchors, a scalar in nats.

    Raises:
        UsageError: shapes differ, temperature or sigma is not above 0, or the batch has one sample.
    """
    check_temperature(sigma, "sigma")
    positive, negatives = contrastive_terms(
        a, b, temperature, assume_normalized=assume_normalized, distributed=distributed
    )
    cosine = positive[: len(a)] * temperature
    weight = _weights(cosine.detach() if detach_weight else cosine, sigma, distributed)
    return (negatives - torch.cat([weight, weight]) * positive).mean()


def dclw_weights(
    a: Tensor,
    b: Tensor,
    sigma: float = 0.5,
    *,
    assume_normalized: bool = False,
    distributed: bool = True,
) -> Tensor:
    """The weights of DCLW: w_i = 2 - exp(c_i / sigma) / mean_j exp(c_j / sigma), with c_i = <a_i, b_i>.

    a, b: (N, D) embeddings of two views of the same N samples. The mean runs over the batches of all
        processes (without it, that is with a sum, w would depend on the batch size).
    Returns (N,), in (2 - N, 2] for the whole batch's N, with mean 1. Weights of pairs much closer than
    the rest are negative; they are not clamped (as in the reference implementation). With gradient.

    Raises:
        UsageError: shapes differ, or sigma is not above 0.
    """
    check_pair(a, b)
    check_temperature(sigma, "sigma")
    a, b = unit_rows(a, b, assume_normalized=assume_normalized)
    return _weights((a * b).sum(1), sigma, distributed)


@torch.no_grad()
def npc_multiplier(
    a: Tensor,
    b: Tensor,
    temperature: float = 0.1,
    *,
    assume_normalized: bool = False,
    distributed: bool = True,
) -> Tensor:
    """The negative-positive coupling q = S / (exp(p) + S) of each anchor (Yeh et al., 2022).

    q scales every gradient of `info_nce` and is 1 in `decoupled_contrastive`: near 0, InfoNCE has
    stopped learning from this anchor.

    a, b: (N, D) embeddings of two views of the same N samples.
    Returns (2N,) in (0, 1), the anchors of `a` first. No gradient.

    Raises:
        UsageError: as `info_nce`.
    """
    positive, negatives = contrastive_terms(
        a, b, temperature, assume_normalized=assume_normalized, distributed=distributed
    )
    return torch.sigmoid(negatives - positive)


def contrastive_terms(
    a: Tensor,
    b: Tensor,
    temperature: float = 0.1,
    *,
    assume_normalized: bool = False,
    distributed: bool = True,
) -> tuple[Tensor, Tensor]:
    """p and log S of each anchor of a batch, for losses and diagnostics of one's own.

    a, b: (N, D) embeddings of two views of the same N samples.
    Returns the positive logits and the logs of the sums over the 2(N-1) negatives of both views, each
    (2N,), the anchors of `a` first. InfoNCE is softplus(log S - p), DCL is log S - p, q is
    sigmoid(log S - p).

    Raises:
        UsageError: shapes differ, the temperature is not above 0, or the batch has one sample.
    """
    check_pair(a, b)
    check_temperature(temperature)
    (z,) = unit_rows(torch.cat([a, b]), assume_normalized=assume_normalized)
    others = _rows_elsewhere(z) if distributed else z[:0]
    check_negatives(len(a) + len(others) // 2)
    positive, negatives = pair_terms(z, temperature, _longest(z) if assume_normalized else 1.0)
    if len(others):
        negatives = torch.logaddexp(negatives, log_negatives(z, others, temperature))
    return positive.repeat(2), negatives


def info_nce_queue(
    query: Tensor, key: Tensor, queue: Tensor, temperature: float = 0.2, *, assume_normalized: bool = False
) -> Tensor:
    """InfoNCE against a queue of past keys (MoCo: He et al., 2020, arXiv 1911.05722).

    query: (N, D) from the encoder that learns. key: (N, D) of the other view, from the momentum encoder.
    queue: (K, D) past keys, the only negatives. Keys and queue get no gradient.
    temperature: 0.2 as in MoCo v2 (from memory of the paper).
    Returns the mean over the N queries, a scalar above 0, in nats. Needs nothing of other processes.

    Raises:
        UsageError: shapes do not fit, the queue is empty, or the temperature is not above 0.
    """
    positive, negatives = queue_terms(query, key, queue, temperature, assume_normalized=assume_normalized)
    return _cross_entropy(positive, negatives).mean()


def decoupled_contrastive_queue(
    query: Tensor, key: Tensor, queue: Tensor, temperature: float = 0.2, *, assume_normalized: bool = False
) -> Tensor:
    """Decoupled contrastive loss against a queue of past keys (Yeh et al., 2022, on MoCo v2).

    Arguments and errors as `info_nce_queue`; the positive is left out of the denominator.
    Returns the mean over the N queries, a scalar in nats, at least -2/temperature + log K.
    """
    positive, negatives = queue_terms(query, key, queue, temperature, assume_normalized=assume_normalized)
    return (negatives - positive).mean()


def queue_terms(
    query: Tensor, key: Tensor, queue: Tensor, temperature: float = 0.2, *, assume_normalized: bool = False
) -> tuple[Tensor, Tensor]:
    """p and log S of each query against a queue, each (N,); arguments and errors as `info_nce_queue`.

    sigmoid(log S - p) is the coupling q, see `npc_multiplier`.
    """
    check_pair(query, key, "query and key")
    check_queue(query, queue)
    check_temperature(temperature)
    query, key, queue = unit_rows(query, key.detach(), queue.detach(), assume_normalized=assume_normalized)
    return (query * key).sum(1) / temperature, log_negatives(query, queue, temperature)


def info_nce_nearest(
    neighbour: Tensor,
    prediction: Tensor,
    temperature: float = 0.2,
    *,
    same_view_negatives: bool = False,
    assume_normalized: bool = False,
    distributed: bool = True,
) -> Tensor:
    """InfoNCE from the nearest neighbour of one view to the prediction of the other (NNCLR, one direction).

    NNCLR: Dwibedi et al., 2021, arXiv 2104.14548. Average over both directions for the whole loss.

    neighbour: (N, D) nearest neighbours of one view's embeddings, see `nearest`. They get no gradient.
    prediction: (N, D) predictions from the other view. Those of other samples are the negatives.
    temperature: 0.2 as in solo-learn's CIFAR recipe.
    same_view_negatives: apply NT-Xent to (neighbour, prediction), so that predictions are anchors, too,
        and vectors of one side repel each other: the form of one library (lightly).
    Returns the mean over the anchors, a scalar above 0, in nats.

    Raises:
        UsageError: shapes differ, the temperature is not above 0, or the batch has one sample.
    """
    positive, negatives = nearest_terms(
        neighbour,
        prediction,
        temperature,
        same_view_negatives=same_view_negatives,
        assume_normalized=assume_normalized,
        distributed=distributed,
    )
    return _cross_entropy(positive, negatives).mean()


def decoupled_contrastive_nearest(
    neighbour: Tensor,
    prediction: Tensor,
    temperature: float = 0.2,
    *,
    same_view_negatives: bool = False,
    assume_normalized: bool = False,
    distributed: bool = True,
) -> Tensor:
    """Decoupled contrastive loss from nearest neighbours (Yeh et al., 2022, on NNCLR, one direction).

    A guess: how the authors decoupled NNCLR is not known to us. Here the positive is left out of the
    denominator of `info_nce_nearest`, whose arguments and errors these are.
    Returns the mean over the anchors, a scalar in nats.
    """
    positive, negatives = nearest_terms(
        neighbour,
        prediction,
        temperature,
        same_view_negatives=same_view_negatives,
        assume_normalized=assume_normalized,
        distributed=distributed,
    )
    return (negatives - positive).mean()


def nearest_terms(
    neighbour: Tensor,
    prediction: Tensor,
    temperature: float = 0.2,
    *,
    same_view_negatives: bool = False,
    assume_normalized: bool = False,
    distributed: bool = True,
) -> tuple[Tensor, Tensor]:
    """p and log S of each neighbour, each (N,); arguments and errors as `info_nce_nearest`.

    With `same_view_negatives` each is (2N,): the predictions follow as anchors of their own.
    """
    neighbour = neighbour.detach()
    if same_view_negatives:
        return contrastive_terms(
            neighbour, prediction, temperature, assume_normalized=assume_normalized, distributed=distributed
        )
    check_pair(neighbour, prediction, "neighbour and prediction")
    check_temperature(temperature)
    neighbour, prediction = unit_rows(neighbour, prediction, assume_normalized=assume_normalized)
    rank, _ = rank_and_world() if distributed else (0, 1)
    others = gather(prediction) if distributed else prediction
    check_negatives(len(others))
    positive = (neighbour * prediction).sum(1) / temperature
    return positive, log_negatives(neighbour, others, temperature, (rank * len(prediction),))


@torch.no_grad()
def nearest(z: Tensor, queue: Tensor) -> Tensor:
    """For each vector the row of the queue with the largest inner product (the support set of NNCLR).

    z: (N, D), of any length: scaling a row changes nothing. queue: (K, D), unit vectors if "nearest"
    is to mean the largest cosine.
    Returns (N, D), rows of the queue in the queue's type, without gradient.

    Raises:
        UsageError: the queue is empty or its rows have another length.
    """
    check_queue(z, queue)
    z, rows = unit_rows(z, queue, assume_normalized=True)
    return queue[largest_product(z, rows)]


def _cross_entropy(positive: Tensor, negatives: Tensor) -> Tensor:
    # softplus(log S - p), written so because F.softplus drops the exponential above 20, an error of
    # 2e-9 in float64.
    return -F.logsigmoid(positive - negatives)


def _rows_elsewhere(z: Tensor) -> Tensor:
    """The rows of the other processes, in no order that means anything: all of them are negatives."""
    rank, world = rank_and_world()
    if world == 1:
        return z[:0]
    pairs = gather(z.unflatten(0, (2, -1)).transpose(0, 1))
    first, last = rank * len(z) // 2, (rank + 1) * len(z) // 2
    return torch.cat([pairs[:first], pairs[last:]]).flatten(0, 1)


def _longest(z: Tensor) -> float:
    return torch.linalg.vector_norm(z.detach(), dim=1).amax().item()


def _weights(cosine: Tensor, sigma: float, distributed: bool) -> Tensor:
    scaled = cosine / sigma
    everyone = gather(scaled) if distributed else scaled
    log_mean = torch.logsumexp(everyone, 0) - math.log(len(everyone))
    return 2 - torch.exp(scaled - log_mean)
