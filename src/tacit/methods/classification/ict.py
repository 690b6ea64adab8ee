"""ICT: at a mix of two samples the student says the mix of what the teacher says at each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from tacit.batch import Batch, Step
from tacit.losses.consistency import probability_mse
from tacit.losses.ramps import gaussian_ramp
from tacit.methods.classification.base import SemiSupervised, Views
from tacit.methods.classification.supervised import labelled_mixing, mixed_cross_entropy
from tacit.rng import Rng
from tacit.views.mix import draw_lambda, mix, partners
from tacit.views.warp import WEAK, Warp


class ICT(SemiSupervised):
    """Interpolation consistency training (Verma et al., 2019; arXiv 1903.03825).

        m = l u1 + (1 - l) u2
        L = mixup CE(x, y) + weight * ramp * mean |softmax f(m) - (l q1 + (1 - l) q2)|^2
        q = softmax f_teacher(u)

    l is one draw from Beta(alpha, alpha) a batch, u2 the batch in random order, the teacher the moving
    average of the student. The mean is over samples and classes.

    Args:
        encoder: what learns; images of (C, size, size) to feature vectors.
        weight: of the consistency, for the mean over classes.
        ramp: share of the steps in which the weight rises as exp(-5 (1 - t)^2).
        ramp_steps: steps in which it rises, at least; in shorter runs it does not reach `weight` then (our
            choice: with 100 within 150 steps, digits were 4 points below the labels alone).
        alpha: of the Beta distribution.
        mixup: whether the labelled samples are mixed, too.
        mix_space: whether the teacher's probabilities are mixed, or its logits (the authors' code).
        ema: of the teacher, after its warm-up.
        dropout: before the classifier.
        weak: how a view is made.
    """

    slug = "ict"
    title = "Predictions between samples are interpolated"
    paper = "arXiv 1903.03825"

    published: ClassVar[Mapping[str, Any]] = {**SemiSupervised.published, "ramp_steps": 0}
    unlabelled_views = ("weak",)
    accumulates = False  # parts of a batch are mixed within themselves

    def __init__(
        self,
        encoder: nn.Module,
        *,
        weight: float = 100.0,
        ramp: float = 0.25,
        ramp_steps: int = 8192,
        alpha: float = 1.0,
        mixup: bool = True,
        mix_space: Literal["prob", "logits"] = "prob",
        ema: float = 0.999,
        dropout: float = 0.0,
        weak: Warp = WEAK,
    ) -> None:
        super().__init__(encoder, weak=weak, ema=ema, dropout=dropout)
        self.weight, self.ramp, self.ramp_steps, self.alpha = weight, ramp, ramp_steps, alpha
        self.mixup, self.mix_space = mixup, mix_space

    def draw_mixing(self, batch: Batch, rng: Rng) -> dict[str, Tensor]:
        """Weights and partners of both parts of the batch."""
        device = batch.unlabelled.data.device
        drawn = {
            "lambda": draw_lambda(rng("weight"), alpha=self.alpha, fold=False, device=device),
            "partner": partners(len(batch), rng("partner")).to(device),
        }
        return drawn | (labelled_mixing(batch, rng, alpha=self.alpha, fold=False) if self.mixup else {})

    def supervised(self, views: Views) -> Tensor:
        """Cross-entropy, of mixed samples if asked for."""
        return mixed_cross_entropy(self, views) if self.mixup else super().supervised(views)

    def unsupervised(self, views: Views, step: Step) -> dict[str, Tensor]:
        """Squared difference from the mixed teacher at mixed samples."""
        (u,), lam, partner = views.unlabelled, views.mixing["lambda"], views.mixing["partner"]
        teacher = self.average_logits(u)
        if self.mix_space == "prob":
            q = teacher.softmax(1)
            target = mix(q, q[partner], lam)
        else:
            target = mix(teacher, teacher[partner], lam).softmax(1)
        student = self.still_logits(mix(u, u[partner], lam)).softmax(1)
        ramp = gaussian_ramp(step.index, max(self.ramp * step.total, self.ramp_steps))
        return {"interpolation": self.weight * ramp * probability_mse(student, target)}
