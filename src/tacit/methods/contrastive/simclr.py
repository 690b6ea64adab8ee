"""SimCLR: two views of an image attract, all other images of the batch repel."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tacit.batch import Step
from tacit.encoders.heads import mlp
from tacit.losses.contrastive import contrastive_terms
from tacit.methods.parts.two_views import TwoViews
from tacit.methods.recipe import Recipe
from tacit.views.image import Augment

IMAGENET = Recipe(
    optimizer="lars",
    lr=0.075,
    lr_scaling="sqrt",
    weight_decay=1e-6,
    batch_size=256,
    epochs=200,
    warmup=0.05,
    source="lr 0.075 sqrt(B), LARS, 10 warm-up epochs of 200, cosine: the ImageNet recipe that "
    "lightly's benchmark uses for SimCLR and DCL; 200 epochs at batch 256 is the DCL abstract's setting",
)


class SimCLR(TwoViews):
    """SimCLR (Chen et al., 2020; arXiv 2002.05709).

    Both views z1, z2 of all N images of a batch are projected onto the unit sphere. For each of the
    2N anchors the other view of the same image is the positive, the 2(N-1) views of other images are
    the negatives, and the loss is the cross-entropy of picking the positive:

        L_i = -p_i + log(exp(p_i) + S_i),   p_i = <z_i1, z_i2> / t,
        S_i = sum over negatives v of exp(<z_i, v> / t)

    The diagnostic `npc` is the batch mean of q = S / (exp(p) + S), the factor by which the positive
    in the denominator damps every gradient; decoupled contrastive learning (`dcl`) removes it.

    Args:
        encoder: what learns; images of (C, size, size) to feature vectors.
        projection: length of the projected vector.
        hidden: width of the projector's hidden layer; the encoder's feature length if not given.
        temperature: t above; the smaller, the more the hardest negatives count.
        augment: how a view is made.
    """

    slug = "simclr"
    title = "Contrastive learning of two views (InfoNCE)"
    paper = "arXiv 2002.05709"

    recipe = IMAGENET
    accumulates = False  # the loss compares the images of one batch with each other

    def __init__(
        self,
        encoder: nn.Module,
        *,
        projection: int = 128,
        hidden: int | None = None,
        temperature: float = 0.1,
        augment: Augment = Augment(),
    ) -> None:
        super().__init__(encoder, augment)
        self.temperature = temperature
        self.project = mlp([self.num_features, self.num_features if hidden is None else hidden, projection])

    def losses(self, views: tuple[Tensor, Tensor], step: Step) -> dict[str, Tensor]:
        """The contrastive loss of this batch, in nats."""
        a, b = (self.project(self.encoder(view)) for view in views)
        positive, negatives = contrastive_terms(a, b, self.temperature)  # p and log S of each anchor
        self.note("npc", torch.sigmoid(negatives - positive).mean())
        return {"info_nce": F.softplus(negatives - positive).mean()}
