"""MoCo: a queue of past keys gives many negatives at a small batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tacit.batch import Step
from tacit.data.source import Source
from tacit.encoders.heads import mlp
from tacit.errors import UsageError
from tacit.losses.contrastive import decoupled_contrastive_queue, info_nce_queue
from tacit.methods.parts.queue import Queue
from tacit.methods.parts.teacher import follow, frozen_copy
from tacit.methods.parts.two_views import TwoViews
from tacit.methods.recipe import Recipe
from tacit.views.image import Augment


class MoCo(TwoViews):
    """MoCo v2 (He et al., 2020, arXiv 1911.05722; Chen et al., 2020, arXiv 2003.04297).

    The query q of one view must find the key k of the other view among K keys n of earlier batches:

        L_i = -<q_i, k_i>/t + log(exp(<q_i, k_i>/t) + sum_m exp(<q_i, n_m>/t))

    Keys come from a momentum encoder, which gets no gradient and follows the encoder as a moving
    average. With `decoupled` the positive is left out of the sum (DCL; Yeh et al., 2022).

    On one device BatchNorm could leak which key belongs to which query, and the original shuffles
    batches over devices against it; we do not (as the single-device reimplementations do).

    Args:
        encoder: what learns; images of (C, size, size) to feature vectors.
        projection: length of the projected vector.
        temperature: t above.
        queue: number of keys kept; at most a quarter of the images, so that an image seldom meets a key
            of its own as a negative (our choice; the original data are 20 times the queue).
        momentum: of the key encoder, per step.
        symmetric: whether each view is once the query and once the key (twice the work per step).
        decoupled: whether the positive is left out of the denominator.
        augment: how a view is made.
    """

    slug = "moco"
    title = "Momentum contrast with a queue of keys (v2)"
    paper = "arXiv 2003.04297"

    recipe = Recipe(
        optimizer="momentum",
        lr=0.03,
        lr_scaling="linear",
        weight_decay=1e-4,
        batch_size=256,
        epochs=200,
        source="MoCo v2: SGD with momentum, lr 0.03 at batch 256, cosine, weight decay 1e-4 (from memory "
        "of the paper, marked so in the DCL card)",
    )

    def __init__(
        self,
        encoder: nn.Module,
        *,
        projection: int = 128,
        temperature: float = 0.2,
        queue: int = 65536,
        momentum: float = 0.999,
        symmetric: bool = False,
        decoupled: bool = False,
        augment: Augment = Augment(blur=0.5),
    ) -> None:
        super().__init__(encoder, augment)
        if not 0 <= momentum <= 1:
            raise UsageError(f"momentum must lie in [0, 1], not {momentum}")
        self.temperature = temperature
        self.momentum = momentum
        self.symmetric = symmetric
        self.contrast = decoupled_contrastive_queue if decoupled else info_nce_queue
        self.project = mlp([self.num_features, self.num_features, projection], norm=False)
        self.key_encoder = frozen_copy(encoder)
        self.key_project = frozen_copy(self.project)
        self.queue = Queue(queue, projection)

    @property
    def candidates(self) -> tuple[str, ...]:
        """The query encoder, as published, or its average."""
        return ("trained", "averaged")

    @property
    def evaluated(self) -> nn.Module:
        """The encoder that `kept` names."""
        return self.key_encoder if self.kept == "averaged" else self.encoder

    def finish(self, source: Source) -> None:
        """The encoder that is evaluated becomes the query encoder."""
        if self.kept == "averaged":
            self.encoder.load_state_dict(self.key_encoder.state_dict())

    def prepare(self, source: Source) -> None:
        """Shorten the queue to a quarter of the images."""
        self.queue.shorten(max(1, len(source) // 4))

    def losses(self, views: tuple[Tensor, Tensor], step: Step) -> dict[str, Tensor]:
        """The contrastive loss against the queue, in nats."""
        a, b = views
        loss = self._one_way(a, b)
        if self.symmetric:
            loss = (loss + self._one_way(b, a)) / 2
        return {"moco": loss}

    def _one_way(self, query_view: Tensor, key_view: Tensor) -> Tensor:
        query = self.project(self.encoder(query_view))
        with torch.no_grad():
            key = self.key_project(self.key_encoder(key_view))
        self.queue.put(key)
        return self.contrast(query, key, self.queue.rows, self.temperature)

    def after_step(self, step: Step) -> None:
        """Key encoder and queue follow."""
        follow(self.key_encoder, self.encoder, self.momentum)
        follow(self.key_project, self.project, self.momentum)
        self.queue.flush()
