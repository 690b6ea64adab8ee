"""Supervised: the labels alone, in the same number of steps. Gains are measured from here."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from tacit.batch import Batch, Step
from tacit.losses.consistency import mixup_cross_entropy
from tacit.methods.classification.base import CLASSIC, SemiSupervised, Views
from tacit.rng import Rng
from tacit.views.mix import draw_lambda, mix, partners
from tacit.views.warp import WEAK, Warp


class Supervised(SemiSupervised):
    """Cross-entropy on weak views of the labelled samples; the same-budget baseline.

        L = CE(f(x), y),   with mixup   L = l CE(f(m), y) + (1 - l) CE(f(m), y'),   m = l x + (1 - l) x'

    Mixup (Zhang et al., 2018; arXiv 1710.09412) is in the form of Semixup's labelled term: l is
    max(l, 1 - l) of one draw from Beta(0.75, 0.75) a batch, at least 0.7; x' is the batch in random order.
    Unlabelled samples are not looked at.

    Args:
        encoder: what learns; images of (C, size, size) to feature vectors.
        mixup: whether labelled samples are mixed.
        alpha: of the Beta distribution.
        floor: smallest weight of the first sample.
        ema: of the averaged network that is evaluated; 0 evaluates the trained one.
        dropout: before the classifier.
        weak: how a view is made.
    """

    slug = "supervised"
    title = "The labels alone, the same steps: the baseline"

    baseline = True
    recipe = replace(CLASSIC, source=f"the baseline of: {CLASSIC.source}")

    def __init__(
        self,
        encoder: nn.Module,
        *,
        mixup: bool = False,
        alpha: float = 0.75,
        floor: float = 0.7,
        ema: float = 0.999,
        dropout: float = 0.0,
        weak: Warp = WEAK,
    ) -> None:
        super().__init__(encoder, weak=weak, ema=ema, dropout=dropout)
        self.mixup, self.alpha, self.floor = mixup, alpha, floor
        self.accumulates = not mixup  # type: ignore[misc]  # parts of a batch are mixed within themselves

    def draw_mixing(self, batch: Batch, rng: Rng) -> dict[str, Tensor]:
        """The weight and each sample's partner."""
        return labelled_mixing(batch, rng, alpha=self.alpha, floor=self.floor) if self.mixup else {}

    def supervised(self, views: Views) -> Tensor:
        """Cross-entropy, of mixed samples if asked for."""
        return mixed_cross_entropy(self, views) if self.mixup else super().supervised(views)

    def unsupervised(self, views: Views, step: Step) -> dict[str, Tensor]:
        """Nothing."""
        return {}


def labelled_mixing(
    batch: Batch, rng: Rng, *, alpha: float, floor: float = 0.0, fold: bool = True
) -> dict[str, Tensor]:
    """Weight and partners for mixing the labelled samples of a batch."""
    assert batch.labelled is not None
    device = batch.labelled.data.device
    return {
        "labelled_lambda": draw_lambda(
            rng("labelled weight"), alpha=alpha, fold=fold, floor=floor, device=device
        ),
        "labelled_partner": partners(len(batch.labelled), rng("labelled partner")).to(device),
    }


def mixed_cross_entropy(method: SemiSupervised, views: Views) -> Tensor:
    """Mixup's loss with what `labelled_mixing` drew."""
    lam, partner = views.mixing["labelled_lambda"], views.mixing["labelled_partner"]
    mixed = mix(views.labelled, views.labelled[partner], lam)
    return mixup_cross_entropy(method.logits(mixed), views.target, views.target[partner], lam)
