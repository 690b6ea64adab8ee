"""Clustering as the task: assignments of samples to prototypes, and the losses that learn them.

Scores are inner products of embeddings and prototypes, cosines where both are unit vectors. Shared by all
functions: half precision is computed in float32, also under autocast; float64 stays float64. A batch is
that of all processes where torch.distributed is in use, unless `distributed` is false.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from tacit.errors import UsageError
from tacit.losses.blocks import largest_product
from tacit.losses.consistency import check_one_per_row, check_rows, wide
from tacit.losses.gather import gather, rank_and_world
from tacit.rng import Rng

IGNORE = -100
"""The label of a sample that has none."""

_SHORTEST = 1e-12


@torch.no_grad()
def sinkhorn(
    scores: Tensor, *, epsilon: float = 0.05, iterations: int = 3, distributed: bool = True
) -> Tensor:
    """Soft assignments that use all prototypes alike (Caron et al., 2020, arXiv 2006.09882, section 3.1).

    exp(scores / epsilon) is scaled in turns so that each prototype gets as much of the samples as any other,
    and so that each sample is assigned as much as any other (Sinkhorn and Knopp, 1967; Cuturi, 2013). The
    samples' turn is the last: rows of the result sum to 1, columns only nearly to B / K. In logarithms,
    where nothing overflows however small epsilon is; the masses 1/K and 1/B of the equations cancel.

    To spread over more samples than the batch has, pass their rows too and cut them off the result; each
    process passes rows of its own.

    scores: (B, K) of this process, floating. epsilon: above 0; the smaller, the harder the assignments.
    iterations: pairs of turns, at least 1.
    Returns (B, K) without gradient, rows summing to 1.

    Raises:
        UsageError: a wrong shape, no row, epsilon or iterations out of range.
    """
    check_rows(scores, scores)
    if not epsilon > 0 or iterations < 1:
        raise UsageError(f"sinkhorn needs epsilon > 0 and iterations >= 1, not {epsilon} and {iterations}")
    together = distributed and rank_and_world()[1] > 1
    log_q = wide(scores) / epsilon
    for _ in range(iterations):
        log_q -= _log_mass(log_q, together)
        log_q -= log_q.logsumexp(1, keepdim=True)
    return log_q.exp_()


def _log_mass(log_q: Tensor, together: bool) -> Tensor:
    """log of the sum of exp over all samples, (K,)."""
    top = log_q.amax(0)
    if together:
        dist.all_reduce(top, dist.ReduceOp.MAX)
    total = (log_q - top).exp_().sum(0)
    if together:
        dist.all_reduce(total)
    return total.log_().add_(top)


def swapped_prediction(
    scores: Sequence[Tensor], targets: Mapping[int, Tensor], temperature: float = 0.1
) -> Tensor:
    """Each view predicts the assignments of the others (Caron et al., 2020, arXiv 2006.09882, eq. 1 and 6).

        mean over assigning views a, mean over views v != a, mean over samples of
            -sum_k Q_a[k] log softmax(scores_v / temperature)[k]

    scores: (B, K) per view, at least two. targets: Q_a, (B, K) with rows summing to 1, by the view's
        position in `scores`; they get no gradient.
    temperature: above 0.
    Returns a scalar of at least 0, in nats; ln K for uniform predictions.

    Raises:
        UsageError: fewer than two views, no target or one of an unknown view, shapes that differ, or a
            temperature that is not above 0.
    """
    if len(scores) < 2 or not targets or not all(0 <= a < len(scores) for a in targets):
        raise UsageError(
            f"swapped prediction needs two views at least and targets of some of them, got {len(scores)} "
            f"views and targets of {sorted(targets)}"
        )
    _check_temperature(temperature)
    for array in (*scores, *targets.values()):
        check_rows(array, scores[0])
    total = wide(scores[0]).new_zeros(())
    for v, score in enumerate(scores):
        others = [wide(q.detach()) for a, q in targets.items() if a != v]
        if others:
            log_p = (wide(score) / temperature).log_softmax(1)
            total = total - (torch.stack(others).sum(0) * log_p).sum(1).mean()
    return total / (len(targets) * (len(scores) - 1))


def cluster_cross_entropy(
    scores: Sequence[Tensor],
    labels: Tensor,
    temperature: float = 0.1,
    *,
    ignore: int = IGNORE,
    distributed: bool = True,
) -> Tensor:
    """All views of a sample predict its one cluster (DeepCluster-v2, in Caron et al., 2020, appendix).

        mean over views and over samples with a label of -log softmax(scores / temperature)[label]

    scores: (B, K) per view, at least one. labels: (B,) int64, 0 .. K - 1, or `ignore` for samples that
        count nothing. temperature: above 0.
    Returns a scalar of at least 0, in nats: 0 where no sample has a label. Over several processes their
    mean is the mean over all labelled samples of all processes.

    Raises:
        UsageError: no view, shapes that do not fit, or a temperature that is not above 0.
    """
    if not scores:
        raise UsageError("cluster cross-entropy needs the scores of one view at least")
    _check_temperature(temperature)
    for score in scores:
        check_rows(score, scores[0])
    check_one_per_row(scores[0], labels=labels)
    log_p = torch.stack([(wide(score) / temperature).log_softmax(1) for score in scores]).mean(0)
    counts = (labels != ignore).sum().to(log_p.dtype)[None]
    per_process = (gather(counts) if distributed else counts).mean()
    nothing = per_process == 0
    return F.nll_loss(log_p, labels, ignore_index=ignore, reduction="sum") / (per_process + nothing)


def _check_temperature(value: float) -> None:
    if not value > 0:
        raise UsageError(f"clustering loss: temperature must be above 0, got {value}")


@torch.no_grad()
def normalise_rows(x: Tensor) -> Tensor:
    """Scale the rows of (K, D) to length 1 in place, without gradient, and return `x`; zeros stay zeros."""
    return x.copy_(F.normalize(x, dim=1, eps=_SHORTEST))


@torch.no_grad()
def spherical_kmeans(
    points: Tensor,
    k: int,
    *,
    iterations: int = 10,
    rng: Rng | None = None,
    start: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """k directions and the nearest one of each point, by cosine (Dhillon and Modha, 2001).

    Each iteration assigns every point to the centroid with the largest inner product, then moves each
    centroid to the mean of its points, scaled to length 1. A centroid without points, or whose points
    cancel, stays where it is. Points are assigned once more at the end.

    Written by hand because scikit-learn's k-means is Euclidean, does not scale centroids and moves empty
    clusters; only the assignment is by blocks of points, so that memory beside the points is k (D + a
    block). On the CPU the result is a function of the arguments to the last bit.

    points: (N, D) floating unit vectors (a longer one weighs more in its mean).
    k: number of centroids, 1 to N. iterations: at least 0.
    rng: where k random points to start from are drawn. start: or their positions, (k,) int64.
    Returns centroids (k, D) of length 1 and labels (N,) int64.

    Raises:
        UsageError: k out of range, no point to start from, or wrong shapes.
    """
    if points.ndim != 2 or not 1 <= k <= len(points):
        raise UsageError(
            f"spherical k-means needs points (N, D) and k from 1 to N, got {tuple(points.shape)} and k = {k}"
        )
    if (rng is None) == (start is None):
        raise UsageError("spherical k-means takes either rng or start")
    if start is None:
        assert rng is not None
        start = rng.permutation(len(points))[:k]
    if start.shape != (k,):
        raise UsageError(f"start must have one position per centroid, ({k},), got {tuple(start.shape)}")
    points = wide(points)
    centroids = F.normalize(points[start.to(points.device)], dim=1, eps=_SHORTEST)
    for _ in range(iterations):
        sums = torch.zeros_like(centroids).index_add_(0, largest_product(points, centroids), points)
        lengths = torch.linalg.vector_norm(sums, dim=1, keepdim=True)
        centroids = torch.where(lengths > _SHORTEST, sums / lengths, centroids)
    return centroids, largest_product(points, centroids)
