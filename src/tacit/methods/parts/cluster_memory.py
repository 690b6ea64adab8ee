"""Cluster memory: embeddings of all samples, their clusters, and the loss of predicting them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tacit.errors import UsageError
from tacit.losses.clustering import IGNORE, cluster_cross_entropy, spherical_kmeans
from tacit.losses.gather import gather
from tacit.rng import Rng

BANKS = 2
"""Views whose embeddings are kept: the first ones, the large crops."""


class ClusterMemory(nn.Module):
    """The objective of DeepCluster-v2 on embeddings of any kind (Caron et al., 2020; arXiv 2006.09882).

    Two banks hold the last embeddings of two views of all N samples. `cluster` finds, for each of H heads,
    K clusters in bank h mod 2: their centroids are the head's prototypes, and get no gradient. All state
    is in buffers: 4 N (2 D) + 8 N H bytes for embeddings and labels.

    embeddings: (2, N, D) unit vectors, zeros before `write`. prototypes: (H, K, D).
    labels: (H, N) int64, -100 before the first `cluster`. filled: 1 once the banks have been written.
    """

    embeddings: Tensor
    prototypes: Tensor
    labels: Tensor
    filled: Tensor

    def __init__(
        self,
        samples: int,
        width: int,
        *,
        clusters: int,
        heads: int = 3,
        temperature: float = 0.1,
        iterations: int = 10,
    ) -> None:
        super().__init__()
        if not 1 <= clusters <= samples:
            raise UsageError(
                f"{clusters} prototypes need as many samples, and there are {samples}: pass "
                f"--method.prototypes {samples} or less"
            )
        if heads < 1 or iterations < 0:
            raise UsageError(f"clustering needs heads >= 1 and iterations >= 0, not {heads} and {iterations}")
        self.temperature, self.iterations = temperature, iterations
        self.register_buffer("embeddings", torch.zeros(BANKS, samples, width))
        self.register_buffer("prototypes", torch.zeros(heads, clusters, width))
        self.register_buffer("labels", torch.full((heads, samples), IGNORE))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    def check_state(self) -> None:
        """Refuse labels, of a checkpoint, that are no clusters.

        Raises:
            ValueError: says so.
        """
        known = (self.labels >= 0) & (self.labels < self.prototypes.shape[1])
        if not (known | (self.labels == IGNORE)).all():
            raise ValueError("its labels of samples name clusters that there are not")

    @torch.no_grad()
    def write(self, rows: Tensor, embeddings: Sequence[Tensor]) -> None:
        """Keep embeddings of samples, of all processes. rows: (B,) int64; embeddings: (B, D) of two views.

        Where processes hold the same row, that of the last one stays.
        """
        (count, together) = len(rows), gather(torch.stack([e.detach() for e in embeddings[:BANKS]], dim=1))
        for place, new in zip(gather(rows).split(count), together.split(count), strict=True):
            self.embeddings[:, place] = new.transpose(0, 1).to(self.embeddings.dtype)

    def cluster(self, rng: Rng) -> None:
        """New prototypes and labels for all heads; `rng` says with which samples the centroids start."""
        heads, clusters = self.prototypes.shape[:2]
        for h in range(heads):
            centroids, labels = spherical_kmeans(
                self.embeddings[h % BANKS], clusters, iterations=self.iterations, rng=rng("head", h)
            )
            self.prototypes[h] = centroids
            self.labels[h] = labels

    def loss(self, embeddings: Sequence[Tensor], rows: Tensor) -> Tensor:
        """Mean over heads of the cross-entropy of all views with the samples' clusters, in nats.

        embeddings: (B, D) unit vectors of each view. rows: (B,) int64; samples without a label count nothing.
        """
        with torch.autocast(rows.device.type, enabled=False):
            terms = [
                cluster_cross_entropy([e @ prototypes.T for e in embeddings], labels[rows], self.temperature)
                for prototypes, labels in zip(self.prototypes, self.labels, strict=True)
            ]
        return torch.stack(terms).mean()
