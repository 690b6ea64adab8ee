"""Pseudo-Label: confident predictions become labels."""

from __future__ import annotations

from torch import Tensor, nn

from tacit.batch import Step
from tacit.losses.pseudo_labels import pseudo_label_cross_entropy
from tacit.losses.ramps import linear_ramp
from tacit.methods.classification.base import SemiSupervised, Views
from tacit.views.warp import WEAK, Warp


class PseudoLabel(SemiSupervised):
    """Pseudo-Label (Lee, 2013).

    The network's own class, where it is confident, is the label of an unlabelled sample:

        q = softmax f(u)
        L = CE(x, y) + weight * ramp * mean_i 1[max q_i >= threshold] CE(f(u_i), argmax q_i)

    The same forward pass gives target and prediction; the mean is over all unlabelled samples. The
    threshold and the ramp are those of later implementations (the original weights all samples).

    Args:
        encoder: what learns; images of (C, size, size) to feature vectors.
        weight: of the unlabelled term.
        threshold: least confidence of a pseudo-label.
        ramp: share of the steps in which the weight rises linearly from 0.
        ema: of the averaged network that is evaluated; 0 evaluates the trained one.
        dropout: before the classifier.
        weak: how a view is made.
    """

    slug = "pseudo-label"
    title = "Confident predictions become labels"
    paper = "Lee, 2013"

    unlabelled_views = ("weak",)

    def __init__(
        self,
        encoder: nn.Module,
        *,
        weight: float = 1.0,
        threshold: float = 0.95,
        ramp: float = 0.4,
        ema: float = 0.999,
        dropout: float = 0.0,
        weak: Warp = WEAK,
    ) -> None:
        super().__init__(encoder, weak=weak, ema=ema, dropout=dropout)
        self.weight, self.threshold, self.ramp = weight, threshold, ramp

    def unsupervised(self, views: Views, step: Step) -> dict[str, Tensor]:
        """Cross-entropy with the network's own confident classes."""
        logits = self.still_logits(views.unlabelled[0])
        loss, mask = pseudo_label_cross_entropy(logits, logits, self.threshold)
        self.note("confident", mask.float().mean())
        return {"pseudo_label": self.weight * linear_ramp(step.index / step.total, self.ramp) * loss}
