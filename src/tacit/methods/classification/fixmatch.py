"""FixMatch and its children: a confident class of a weak view is the label of the strong view."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tacit.batch import Step
from tacit.data.source import Source
from tacit.losses.gather import gather
from tacit.losses.pseudo_labels import flexmatch_thresholds, pseudo_label_cross_entropy
from tacit.losses.ramps import linear_ramp
from tacit.methods.classification.base import CLASSIC, SemiSupervised, Views
from tacit.methods.parts.rows import rows_of
from tacit.views.warp import STRONG, WEAK, Warp

MATCH = replace(
    CLASSIC,
    batch_size=448,
    mu=7.0,
    source="SGD with Nesterov momentum 0.9, lr 0.03, weight decay 5e-4, 64 labelled and 448 unlabelled "
    "images, lr cos(7 pi t / 16 T): FixMatch, which trains 2^20 steps; 200 passes over the unlabelled images "
    "are our choice",
)

RAMP_STEPS = 500
"""In which the weight of pseudo-labels rises, for FixMatch and its children (our choice): the labels of a
network of some dozen steps say little. With 4 labels per class of MNIST and 150 steps, on a validation
part, those whose thresholds begin near 0 were at 29 % without a ramp, and are at 70 % with it, as the labels
alone are."""


class FixMatch(SemiSupervised):
    """FixMatch (Sohn et al., 2020; arXiv 2001.07685).

        q = softmax f(weak(u))
        L = CE(x, y) + weight * mean_i 1[max q_i >= threshold_t] CE(f(strong(u_i)), argmax q_i)

    No gradient through q; the mean is over all unlabelled samples, so that those below the threshold count
    as 0. In the paper the weight has no ramp: the threshold is the curriculum. Labelled and unlabelled
    samples pass through the network one after another, where the authors' code sends them through together,
    which matters for BatchNorm only. Strong views move no running statistics here; in that code they do, and
    evaluation then takes statistics of pictures that it never sees.

    Args:
        encoder: what learns; images of (C, size, size) to feature vectors.
        weight: of the unlabelled term.
        ramp_steps: steps in which it rises linearly from 0; none in the paper.
        threshold: least confidence of a pseudo-label, after the first steps.
        first_threshold: the same at the first step, from where it rises linearly; never above `threshold`.
            The paper has one threshold throughout, in a million steps; a network of some hundred steps is so
            sure of next to nothing, and would learn from the labels alone (our choice).
        threshold_steps: steps in which it rises.
        hard: whether the target is the class, or the probabilities at `temperature`.
        temperature: of soft targets.
        ema: of the averaged network that is evaluated; 0 evaluates the trained one.
        dropout: before the classifier.
        weak: how a weak view is made.
        strong: how a strong view is made.
    """

    slug = "fixmatch"
    title = "A weak view labels the strong one"
    paper = "arXiv 2001.07685"

    recipe = MATCH
    published: ClassVar[Mapping[str, Any]] = {
        **SemiSupervised.published,
        "first_threshold": 0.95,
        "ramp_steps": 0,
    }
    unlabelled_views = ("weak", "strong")

    def __init__(
        self,
        encoder: nn.Module,
        *,
        weight: float = 1.0,
        ramp_steps: int = RAMP_STEPS,
        threshold: float = 0.95,
        first_threshold: float = 0.3,
        threshold_steps: int = 16384,
        hard: bool = True,
        temperature: float = 0.5,
        ema: float = 0.999,
        dropout: float = 0.0,
        weak: Warp = WEAK,
        strong: Warp = STRONG,
    ) -> None:
        super().__init__(encoder, weak=weak, strong=strong, ema=ema, dropout=dropout)
        self.weight, self.threshold, self.ramp_steps = weight, threshold, ramp_steps
        self.first_threshold, self.threshold_steps = min(first_threshold, threshold), threshold_steps
        self.least = self.first_threshold  # confidence that counts at the step under way
        self.hard, self.sharpness = hard, temperature

    def unsupervised(self, views: Views, step: Step) -> dict[str, Tensor]:
        """Cross-entropy of strong views with the confident classes of the weak ones."""
        weak, strong = views.unlabelled
        with torch.no_grad():
            target = self.logits(weak)
        risen = linear_ramp(step.index, self.threshold_steps)
        self.least = self.first_threshold + risen * (self.threshold - self.first_threshold)
        loss, mask = self.match(self.still_logits(strong), target, views.index)
        self.note("confident", mask.float().mean())
        return {"match": self.weight * linear_ramp(step.index, self.ramp_steps) * loss}

    def match(self, logits: Tensor, target: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """The masked cross-entropy and the (U,) mask. logits, target: (U, classes)."""
        return pseudo_label_cross_entropy(
            logits, target, self.least, temperature=self.sharpness, hard=self.hard
        )


class FlexMatch(FixMatch):
    """FlexMatch (Zhang et al., 2021; arXiv 2110.08263).

    FixMatch whose threshold is lower for classes that are learned less. For each unlabelled sample the
    class is kept that it last had with confidence above `threshold`. A class c that sigma_c samples have
    gets the threshold

        threshold_c = threshold * b / (2 - b)
        b = sigma_c / max(max sigma, number of samples without a class)

    so that at first all samples count. Without `warmup` the second term of the maximum is left out.

    Args:
        encoder: what learns; images of (C, size, size) to feature vectors.
        weight: of the unlabelled term.
        ramp_steps: steps in which it rises linearly from 0; none in the paper.
        threshold: least confidence of a pseudo-label of the best learned class.
        warmup: whether samples without a class count in the denominator.
        ema: of the averaged network that is evaluated; 0 evaluates the trained one.
        dropout: before the classifier.
        weak: how a weak view is made.
        strong: how a strong view is made.
    """

    slug = "flexmatch"
    title = "FixMatch with a threshold per class"
    paper = "arXiv 2110.08263"

    selected: Tensor
    row: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        *,
        weight: float = 1.0,
        ramp_steps: int = RAMP_STEPS,
        threshold: float = 0.95,
        warmup: bool = True,
        ema: float = 0.999,
        dropout: float = 0.0,
        weak: Warp = WEAK,
        strong: Warp = STRONG,
    ) -> None:
        super().__init__(
            encoder,
            weight=weight,
            ramp_steps=ramp_steps,
            threshold=threshold,
            ema=ema,
            dropout=dropout,
            weak=weak,
            strong=strong,
        )
        self.warmup = warmup

    def prepare(self, source: Source) -> None:
        """No sample has a class yet."""
        super().prepare(source)
        self.register_buffer("selected", torch.full((len(source),), -1))
        # a batch names samples by their positions in the source that this one is a part of
        self.register_buffer("row", rows_of(source), persistent=False)

    def check_state(self) -> None:
        """Refuse classes of samples, of a checkpoint, that there are not.

        Raises:
            ValueError: says so.
        """
        if not ((self.selected >= -1) & (self.selected < self.classes)).all():
            raise ValueError("its selected classes of samples are not among the classes")

    def match(self, logits: Tensor, target: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """The thresholds are those before this batch; then the batch's confident classes are kept."""
        confidence, found = target.softmax(1).max(1)
        levels = flexmatch_thresholds(self.selected, self.classes, self.threshold, warmup=self.warmup)
        loss, mask = pseudo_label_cross_entropy(logits, target, levels[found])
        everyone = gather(torch.stack([self.row[index], found, (confidence >= self.threshold).long()], 1))
        rows, classes, sure = everyone.unbind(1)
        self.selected[rows[sure.bool()]] = classes[sure.bool()]
        return loss, mask
