"""Semixup: an answer moves neither along the data's manifold nor when pulled slightly off it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from tacit.batch import Batch, Step
from tacit.encoders.modes import still_statistics
from tacit.errors import UsageError
from tacit.losses.consistency import semixup_consistency
from tacit.losses.ramps import linear_ramp
from tacit.methods.classification.base import SemiSupervised, View, Views
from tacit.methods.classification.supervised import labelled_mixing, mixed_cross_entropy
from tacit.methods.recipe import Recipe
from tacit.rng import Rng
from tacit.views.mix import draw_lambda, mix, partners
from tacit.views.warp import KNEE, WEAK, Warp

Term = Literal["in", "in_out", "interpolation"]


class Semixup(SemiSupervised):
    """Semixup (Nguyen et al., 2020; arXiv 2003.01944), for grading with few labels.

    z1, z2 are logits of two views of an unlabelled sample, zm those of m = l x1 + (1 - l) x1', x' being
    the batch in random order; D(a, b) = mean over samples and classes of (softmax a - softmax b)^2.

        in manifold          2 D(z2, z1)
        in and out           2 (D(z1, zm) + D(zm, z2))
        interpolation        4 D(zm, l z1 + (1 - l) z1')
        labelled             mixup of labelled samples (see `supervised`)

    One network, no teacher, no ramp, and gradient into both sides of D. l is max(b, 1 - b) of one draw
    b ~ Beta(alpha, alpha) a batch, at least 0.55 (0.7 for labelled samples: both floors are in the authors'
    code only). z1' is taken from z1, where the authors' code has a pass of its own (another dropout mask).
    Which argument of D comes first is as in the authors' code. With more copies all pairs count alike, and
    each mixed copy has an interpolation term. The weights were tuned for 5 classes, lr 1e-4 and 500 epochs.

    Args:
        encoder: what learns; images of (C, size, size) to feature vectors.
        in_weight: of pairs of views.
        in_out_weight: of pairs with a mixed copy.
        interpolation_weight: of mixed copies and mixed outputs.
        n_transforms: views of each unlabelled sample.
        n_mixes: mixed copies, each with partners of its own.
        drop: terms to leave out.
        mix_space: whether logits or probabilities are mixed for the interpolation term.
        distance: l2 is D above; kl is KL(softmax b || softmax a) / C for D(a, b), the other distance of the
            authors' code.
        detach_target: whether the second side of each D gets no gradient (z1, zm, z2 and the mixed outputs in
            the four terms above); both get it in the paper.
        alpha: of the Beta distribution.
        floor: smallest l for unlabelled samples.
        labelled_floor: smallest l for labelled samples.
        ramp: share of the steps in which the unlabelled weight rises linearly; 0 is none, as in the paper.
        ema: of an averaged network to evaluate; 0 evaluates the trained one, as in the paper.
        dropout: before the classifier (0.35 in the paper, there also within its encoder).
        weak: how a view is made.
    """

    slug = "semixup"
    title = "Consistency in and out of the manifold, for grading"
    paper = "arXiv 2003.01944"

    recipe = Recipe(
        optimizer="adam",
        lr=1e-4,
        batch_size=20,
        epochs=500,
        schedule="constant",
        source="the authors' code: Adam, lr 1e-4, no decay, 20 labelled and 20 unlabelled images, 500 passes "
        "over the labelled images (here over the unlabelled ones)",
    )
    published: ClassVar[Mapping[str, Any]] = {"weak": KNEE}
    accumulates = False  # parts of a batch are mixed within themselves

    def __init__(
        self,
        encoder: nn.Module,
        *,
        in_weight: float = 2.0,
        in_out_weight: float = 2.0,
        interpolation_weight: float = 4.0,
        n_transforms: int = 2,
        n_mixes: int = 1,
        drop: tuple[Term, ...] = (),
        mix_space: Literal["logits", "prob"] = "logits",
        distance: Literal["l2", "kl"] = "l2",
        detach_target: bool = False,
        alpha: float = 0.75,
        floor: float = 0.55,
        labelled_floor: float = 0.7,
        ramp: float = 0.0,
        ema: float = 0.0,
        dropout: float = 0.35,
        weak: Warp = WEAK,
    ) -> None:
        super().__init__(encoder, weak=weak, ema=ema, dropout=dropout)
        if n_transforms < 1 or n_mixes < 0:
            raise UsageError(
                f"semixup needs n_transforms >= 1 and n_mixes >= 0, not {n_transforms} and {n_mixes}"
            )
        self.weights = {
            "in_weight": 0.0 if "in" in drop else in_weight,
            "in_out_weight": 0.0 if "in_out" in drop else in_out_weight,
            "interpolation_weight": 0.0 if "interpolation" in drop else interpolation_weight,
        }
        self.n_mixes, self.mix_space, self.distance = n_mixes, mix_space, distance
        self.detach_target, self.ramp = detach_target, ramp
        self.alpha, self.floor, self.labelled_floor = alpha, floor, labelled_floor
        view: View = "weak"
        self.unlabelled_views = (view,) * n_transforms  # type: ignore[misc]  # as many as this one was asked for

    def draw_mixing(self, batch: Batch, rng: Rng) -> dict[str, Tensor]:
        """Weights and partners: for labelled samples once, for unlabelled ones per mixed copy."""
        device = batch.unlabelled.data.device
        drawn = labelled_mixing(batch, rng, alpha=self.alpha, floor=self.labelled_floor)
        for k in range(self.n_mixes):
            drawn[f"lambda {k}"] = draw_lambda(
                rng("weight", k), alpha=self.alpha, floor=self.floor, device=device
            )
            drawn[f"partner {k}"] = partners(len(batch), rng("partner", k)).to(device)
        return drawn

    def supervised(self, views: Views) -> Tensor:
        """Mixup of the labelled samples."""
        with still_statistics(self, True):
            return mixed_cross_entropy(self, views)

    def unsupervised(self, views: Views, step: Step) -> dict[str, Tensor]:
        """Disagreement among views and mixed copies, and with the mixed outputs."""
        x = views.unlabelled[0]
        transformed = [self.logits(view) for view in views.unlabelled]
        ends = transformed[0] if self.mix_space == "logits" else transformed[0].softmax(1)
        mixed, targets = [], []
        for k in range(self.n_mixes):
            lam, partner = views.mixing[f"lambda {k}"], views.mixing[f"partner {k}"]
            mixed.append(self.still_logits(mix(x, x[partner], lam)))
            targets.append(mix(ends, ends[partner], lam))
        terms = semixup_consistency(
            transformed,
            mixed,
            targets,
            **self.weights,
            target_space=self.mix_space,
            detach_target=self.detach_target,
            distance=self.distance,
        )
        ramp = linear_ramp(step.index / step.total, self.ramp)
        return {name: ramp * term for name, term in terms.items()}
