"""Pi-model: two passes over one sample should say the same."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tacit.batch import Step
from tacit.losses.consistency import squared_difference
from tacit.losses.ramps import linear_ramp
from tacit.methods.classification.base import SemiSupervised, Views
from tacit.views.warp import WEAK, Warp


class PiModel(SemiSupervised):
    """Pi-model (Laine and Aila, 2017; arXiv 1610.02242).

    Two random views (and dropout masks) of an unlabelled sample get the same prediction:

        L = CE(x, y) + weight * ramp * mean |softmax f(u') - sg softmax f(u)|^2

    The mean is over samples and classes. The stop-gradient on one branch is that of later
    implementations; the original has none (`symmetric`).

    Args:
        encoder: what learns; images of (C, size, size) to feature vectors.
        weight: of the consistency, for the mean over classes.
        ramp: share of the steps in which the weight rises linearly from 0.
        symmetric: whether both branches get gradient.
        ema: of the averaged network that is evaluated; 0 evaluates the trained one.
        dropout: before the classifier.
        weak: how a view is made.
    """

    slug = "pi-model"
    title = "Two views, one prediction"
    paper = "arXiv 1610.02242"

    unlabelled_views = ("weak", "weak")

    def __init__(
        self,
        encoder: nn.Module,
        *,
        weight: float = 10.0,
        ramp: float = 0.4,
        symmetric: bool = False,
        ema: float = 0.999,
        dropout: float = 0.0,
        weak: Warp = WEAK,
    ) -> None:
        super().__init__(encoder, weak=weak, ema=ema, dropout=dropout)
        self.weight, self.ramp, self.symmetric = weight, ramp, symmetric

    def unsupervised(self, views: Views, step: Step) -> dict[str, Tensor]:
        """Squared difference of two passes."""
        first, second = views.unlabelled
        with torch.set_grad_enabled(self.symmetric and torch.is_grad_enabled()):
            target = self.still_logits(first)
        loss = squared_difference(self.still_logits(second), target)
        return {"consistency": self.weight * linear_ramp(step.index / step.total, self.ramp) * loss}
