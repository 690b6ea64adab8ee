"""MixMatch: sharpened guesses for unlabelled samples, and everything mixed with everything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tacit.batch import Batch, Step
from tacit.losses.consistency import probability_mse
from tacit.losses.pseudo_labels import sharpen
from tacit.losses.ramps import linear_ramp
from tacit.methods.classification.base import CLASSIC, SemiSupervised, Views
from tacit.rng import Rng
from tacit.views.mix import draw_lambdas, mix, partners
from tacit.views.warp import WEAK, Warp


class MixMatch(SemiSupervised):
    """MixMatch (Berthelot et al., 2019; arXiv 1905.02249), with K = 2 views.

        q = sharpen((softmax f(u1) + softmax f(u2)) / 2, T)      the guess, without gradient
        W = (x, one-hot y), (u1, q), (u2, q)                     mixed with W in random order:
        w~ = l w + (1 - l) w',  l = max(b, 1 - b),  b ~ Beta(alpha, alpha) for each sample
        L = CE(first L rows) + weight * ramp * mean |softmax f(rest) - target|^2

    The mean is over samples and classes.

    Args:
        encoder: what learns; images of (C, size, size) to feature vectors.
        weight: of the unlabelled term, for the mean over classes.
        ramp: share of the steps in which the weight rises linearly from 0. 0.4 is the USB benchmark's; the
            authors' 1/64 is 16,384 of their 2^20 steps.
        ramp_steps: steps in which it rises, at least. In shorter runs it does not reach `weight` then, but is
            at every step what it is in the authors' (our choice, because a weight of 100 in a run of some
            hundred steps makes small networks call everything one class).
        temperature: T above; the smaller, the sharper the guess.
        alpha: of the Beta distribution (0.75 in the paper).
        ema: of the averaged network that is evaluated; 0 evaluates the trained one.
        dropout: before the classifier.
        weak: how a view is made.
    """

    slug = "mixmatch"
    title = "Sharpened guesses, everything mixed"
    paper = "arXiv 1905.02249"

    recipe = replace(
        CLASSIC,
        optimizer="adamw",
        lr=0.002,
        weight_decay=0.02,
        schedule="constant",
        source="Adam 0.002 with decoupled weight decay 0.02 lr, batch 64: the authors' code; 200 passes over "
        "the unlabelled images are our choice",
    )
    published: ClassVar[Mapping[str, Any]] = {**SemiSupervised.published, "ramp": 1 / 64, "ramp_steps": 0}
    unlabelled_views = ("weak", "weak")
    accumulates = False  # parts of a batch are mixed within themselves

    def __init__(
        self,
        encoder: nn.Module,
        *,
        weight: float = 100.0,
        ramp: float = 0.4,
        ramp_steps: int = 16384,
        temperature: float = 0.5,
        alpha: float = 0.75,
        ema: float = 0.999,
        dropout: float = 0.0,
        weak: Warp = WEAK,
    ) -> None:
        super().__init__(encoder, weak=weak, ema=ema, dropout=dropout)
        self.weight, self.ramp, self.ramp_steps = weight, ramp, ramp_steps
        self.sharpness, self.alpha = temperature, alpha

    def draw_mixing(self, batch: Batch, rng: Rng) -> dict[str, Tensor]:
        """A weight and a partner for each of L + 2 U rows."""
        assert batch.labelled is not None
        rows = len(batch.labelled) + 2 * len(batch)
        index = torch.arange(rows, device=batch.unlabelled.data.device)
        return {
            "lambda": draw_lambdas(index, rng("weight"), alpha=self.alpha),
            "partner": partners(rows, rng("partner")).to(index.device),
        }

    def losses(self, views: Views, step: Step) -> dict[str, Tensor]:
        """Both terms come from the same mixed rows."""
        images, targets = self.mixed(views)
        count = len(views.labelled)
        supervised = F.cross_entropy(self.still_logits(images[:count]), targets[:count])
        guessed = self.still_logits(images[count:]).softmax(1)
        ramp = linear_ramp(step.index, max(self.ramp * step.total, self.ramp_steps))
        loss = probability_mse(guessed, targets[count:])
        return {"supervised": supervised, "mixmatch": self.weight * ramp * loss}

    def mixed(self, views: Views) -> tuple[Tensor, Tensor]:
        """(L + 2 U, C, S, S) mixed samples and their (L + 2 U, classes) targets."""
        with torch.no_grad():
            guesses = [self.logits(u).softmax(1) for u in views.unlabelled]
            q = sharpen(torch.stack(guesses).mean(0), self.sharpness)
        images = torch.cat([views.labelled, *views.unlabelled])
        targets = torch.cat([F.one_hot(views.target, self.classes).to(q), q, q])
        lam, partner = views.mixing["lambda"], views.mixing["partner"]
        return mix(images, images[partner], lam), mix(targets, targets[partner], lam)
