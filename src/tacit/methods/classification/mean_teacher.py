"""Mean Teacher: the student should say what its own moving average says."""

from __future__ import annotations

from torch import Tensor, nn

from tacit.batch import Step
from tacit.losses.consistency import squared_difference
from tacit.losses.ramps import linear_ramp
from tacit.methods.classification.base import SemiSupervised, Views
from tacit.views.warp import WEAK, Warp


class MeanTeacher(SemiSupervised):
    """Mean Teacher (Tarvainen and Valpola, 2017; arXiv 1703.01780).

    The target comes from a teacher whose weights are a moving average of the student's:

        L = CE(x, y) + weight * ramp * mean |softmax f(u') - softmax f_teacher(u)|^2

    The mean is over samples and classes; no gradient reaches the teacher, which is what is evaluated.
    Teacher and student both have dropout. The teacher's BatchNorm normalises by the batch while learning.

    Args:
        encoder: what learns; images of (C, size, size) to feature vectors.
        weight: of the consistency, for the mean over classes.
        ramp: share of the steps in which the weight rises linearly from 0.
        ema: of the teacher, after its warm-up.
        dropout: before the classifier.
        weak: how a view is made.
    """

    slug = "mean-teacher"
    title = "The student follows its own average"
    paper = "arXiv 1703.01780"

    unlabelled_views = ("weak", "weak")

    def __init__(
        self,
        encoder: nn.Module,
        *,
        weight: float = 50.0,
        ramp: float = 0.4,
        ema: float = 0.999,
        dropout: float = 0.0,
        weak: Warp = WEAK,
    ) -> None:
        super().__init__(encoder, weak=weak, ema=ema, dropout=dropout)
        self.weight, self.ramp = weight, ramp

    def unsupervised(self, views: Views, step: Step) -> dict[str, Tensor]:
        """Squared difference from the teacher."""
        first, second = views.unlabelled
        loss = squared_difference(self.still_logits(second), self.average_logits(first))
        return {"consistency": self.weight * linear_ramp(step.index / step.total, self.ramp) * loss}
