"""Decoupled contrastive learning, plain and weighted."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tacit.batch import Step
from tacit.encoders.heads import mlp
from tacit.losses.contrastive import contrastive_terms, dclw_weights
from tacit.methods.contrastive.simclr import IMAGENET
from tacit.methods.parts.two_views import TwoViews
from tacit.views.image import Augment


class DCL(TwoViews):
    """Decoupled contrastive learning (Yeh et al., 2022; arXiv 2110.06848).

    In InfoNCE every gradient carries the factor q = S / (exp(p) + S), which vanishes when the
    positive is easy or negatives are few, that is with small batches. DCL leaves the positive out
    of the denominator; each anchor's gradient keeps its direction and loses the factor:

        L_i = -p_i + log S_i

    The loss has no lower bound at 0: negative values are normal. Expect a gain over `simclr` at
    small batches and small temperatures; at 128 images and more it can be nil.

    Args:
        encoder: what learns; images of (C, size, size) to feature vectors.
        projection: length of the projected vector.
        hidden: width of the projector's hidden layer; the encoder's feature length if not given.
        temperature: divides the similarities.
        augment: how a view is made.
    """

    slug = "dcl"
    title = "Decoupled contrastive learning"
    paper = "arXiv 2110.06848"

    recipe = IMAGENET
    accumulates = False

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
        """The decoupled loss of this batch, in nats."""
        a, b = (self.project(self.encoder(view)) for view in views)
        positive, negatives = contrastive_terms(a, b, self.temperature)  # p and log S of each anchor
        self.note("npc", torch.sigmoid(negatives - positive).mean())
        return {"dcl": (negatives - positive).mean()}


class DCLW(DCL):
    """Weighted decoupled contrastive learning (Yeh et al., 2022; arXiv 2110.06848).

    As `dcl`, with the positive term weighted: pairs that are far apart count more.

        L_i = -w_i p_i + log S_i,   w_i = 2 - exp(c_i / sigma) / mean_j exp(c_j / sigma),   c_i = <z_i1, z_i2>

    The weights average 1 and may be negative; `negative_weights` is their share. No gradient flows
    through them unless asked for (the paper does not say; published implementations differ).

    Args:
        encoder: what learns; images of (C, size, size) to feature vectors.
        projection: length of the projected vector.
        hidden: width of the projector's hidden layer; the encoder's feature length if not given.
        temperature: divides the similarities.
        sigma: of the weights; the larger, the closer to plain `dcl`.
        detach_weight: whether the weights are constants for the gradient.
        augment: how a view is made.
    """

    slug = "dclw"
    title = "Decoupled contrastive learning, weighted"
    paper = "arXiv 2110.06848"

    def __init__(
        self,
        encoder: nn.Module,
        *,
        projection: int = 128,
        hidden: int | None = None,
        temperature: float = 0.1,
        sigma: float = 0.5,
        detach_weight: bool = True,
        augment: Augment = Augment(),
    ) -> None:
        super().__init__(
            encoder, projection=projection, hidden=hidden, temperature=temperature, augment=augment
        )
        self.sigma = sigma
        self.detach_weight = detach_weight

    def losses(self, views: tuple[Tensor, Tensor], step: Step) -> dict[str, Tensor]:
        """The weighted decoupled loss of this batch, in nats."""
        a, b = (self.project(self.encoder(view)) for view in views)
        positive, negatives = contrastive_terms(a, b, self.temperature)  # p and log S of each anchor
        weight = dclw_weights(a, b, self.sigma)
        self.note("npc", torch.sigmoid(negatives - positive).mean())
        self.note("negative_weights", (weight < 0).float().mean())
        weight = weight.detach() if self.detach_weight else weight
        return {"dclw": (negatives - weight.repeat(2) * positive).mean()}
