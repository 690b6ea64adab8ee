"""FreeMatch and SoftMatch: FixMatch with thresholds, or weights, that follow the network's confidence."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tacit.data.source import Source
from tacit.losses.gather import gather
from tacit.losses.pseudo_labels import (
    freematch_fairness,
    freematch_thresholds,
    pseudo_label_cross_entropy,
    softmatch_weights,
    uniform_alignment,
)
from tacit.methods.classification.fixmatch import RAMP_STEPS, FixMatch
from tacit.views.warp import STRONG, WEAK, Warp


class FreeMatch(FixMatch):
    """FreeMatch (Wang et al., 2023; arXiv 2205.07246), from memory of the paper and as in its authors' code.

    The threshold needs no tuning: a global one follows the mean confidence, a local one each class's mean
    probability, both as moving averages that begin at 1 / classes,

        threshold_c = p_c / max p * t,   t <- m t + (1 - m) mean max q,   p <- m p + (1 - m) mean q

    and a fairness term keeps the predictions for strong views spread over the classes.

    Args:
        encoder: what learns; images of (C, size, size) to feature vectors.
        weight: of the unlabelled term.
        ramp_steps: steps in which it rises linearly from 0; none in the paper.
        fairness: weight of the fairness term.
        momentum: m above.
        ema: of the averaged network that is evaluated; 0 evaluates the trained one.
        dropout: before the classifier.
        weak: how a weak view is made.
        strong: how a strong view is made.
    """

    slug = "freematch"
    title = "FixMatch with thresholds that adapt"
    paper = "arXiv 2205.07246"

    level: Tensor
    local: Tensor
    histogram: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        *,
        weight: float = 1.0,
        ramp_steps: int = RAMP_STEPS,
        fairness: float = 0.01,
        momentum: float = 0.999,
        ema: float = 0.999,
        dropout: float = 0.0,
        weak: Warp = WEAK,
        strong: Warp = STRONG,
    ) -> None:
        super().__init__(
            encoder, weight=weight, ramp_steps=ramp_steps, ema=ema, dropout=dropout, weak=weak, strong=strong
        )
        self.fairness, self.momentum = fairness, momentum

    def prepare(self, source: Source) -> None:
        """All averages begin at 1 / classes."""
        super().prepare(source)
        even = torch.full((self.classes,), 1 / self.classes)
        self.register_buffer("level", even[0].clone())
        self.register_buffer("local", even)
        self.register_buffer("histogram", even.clone())

    def match(self, logits: Tensor, target: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """The averages take in the batch first; fairness is part of the loss."""
        q = gather(target.softmax(1))
        confidence, found = q.max(1)
        self.level.lerp_(confidence.mean(), 1 - self.momentum)
        self.local.lerp_(q.mean(0), 1 - self.momentum)
        counts = torch.bincount(found, minlength=self.classes).to(q) / len(found)
        self.histogram.lerp_(counts, 1 - self.momentum)
        levels = freematch_thresholds(self.level, self.local)
        loss, mask = pseudo_label_cross_entropy(logits, target, levels[target.argmax(1)])
        return loss + self.fairness * freematch_fairness(logits, mask, self.local, self.histogram), mask


class SoftMatch(FixMatch):
    """SoftMatch (Chen et al., 2023; arXiv 2301.10921), from memory of the paper and its authors' codes.

    Every pseudo-label counts, the less the further its confidence lies below the mean:

        w = exp(-(max a - mean)^2 / (2 variance / 4))  below the mean, 1 above
        a = q / p, scaled to sum 1,   p <- m p + (1 - m) mean q
        mean <- m mean + (1 - m) mean max q,   variance <- m variance + (1 - m) var max q

    q are the network's probabilities for weak views. The alignment a, to a uniform distribution of classes,
    decides whose weight is large; mean and variance are those of the confidence before it, and the
    pseudo-label is argmax q. So they are in the authors' first code (TorchSSL), with which the paper's image
    results were made. Their second code (USB) takes mean and variance after the alignment; its authors say
    that no change was meant (microsoft/Semi-supervised-learning, issue 89). USB aligns to a uniform
    distribution, as here; TorchSSL to the mean prediction for labelled samples.

    Args:
        encoder: what learns; images of (C, size, size) to feature vectors.
        weight: of the unlabelled term.
        ramp_steps: steps in which it rises linearly from 0; none in the paper.
        momentum: of mean, variance and class distribution.
        align: whether weights are taken from aligned probabilities.
        ema: of the averaged network that is evaluated; 0 evaluates the trained one.
        dropout: before the classifier.
        weak: how a weak view is made.
        strong: how a strong view is made.
    """

    slug = "softmatch"
    title = "FixMatch with weights, no threshold"
    paper = "arXiv 2301.10921"

    mean: Tensor
    variance: Tensor
    running: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        *,
        weight: float = 1.0,
        ramp_steps: int = RAMP_STEPS,
        momentum: float = 0.999,
        align: bool = True,
        ema: float = 0.999,
        dropout: float = 0.0,
        weak: Warp = WEAK,
        strong: Warp = STRONG,
    ) -> None:
        super().__init__(
            encoder, weight=weight, ramp_steps=ramp_steps, ema=ema, dropout=dropout, weak=weak, strong=strong
        )
        self.momentum, self.align = momentum, align

    def prepare(self, source: Source) -> None:
        """The mean begins at 1 / classes, the variance at 1."""
        super().prepare(source)
        even = torch.full((self.classes,), 1 / self.classes)
        self.register_buffer("mean", even[0].clone())
        self.register_buffer("variance", torch.ones(()))
        self.register_buffer("running", even)

    def match(self, logits: Tensor, target: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Weights instead of a mask; the averages take in the batch first."""
        q = target.softmax(1)
        everyone = gather(q)
        confidence = everyone.max(1).values
        self.mean.lerp_(confidence.mean(), 1 - self.momentum)
        if len(confidence) > 1:  # one sample has no variance
            self.variance.lerp_(confidence.var(correction=1), 1 - self.momentum)
        if self.align:
            self.running.lerp_(everyone.mean(0), 1 - self.momentum)
            q = uniform_alignment(q, self.running)
        weight = softmatch_weights(q.max(1).values, self.mean, self.variance)
        loss, _ = pseudo_label_cross_entropy(logits, target, 0.0, weight=weight)
        return loss, weight
