"""Supervised regression: the values alone, in the same number of steps. Gains are measured from here."""

from __future__ import annotations

from torch import Tensor, nn

from tacit.batch import Step
from tacit.methods.regression.base import Regression, Views
from tacit.views.warp import WEAK, Warp


class SupervisedRegression(Regression):
    """Mean squared error on weak views of the labelled samples; the same-budget baseline.

        L = mean over the batch of (f(x) - (y - m) / s)^2

    m and s are mean and standard deviation of the values that are learned from. Unlabelled samples are not
    looked at. With `--encoder run:X` this is fine-tuning of what run X learned.

    Args:
        encoder: what learns; images of (C, size, size) to feature vectors.
        ema: of the averaged network that is evaluated; 0 evaluates the trained one.
        weak: how a view is made.
    """

    slug = "supervised-regression"
    title = "The labels alone: mean squared error"

    baseline = True

    def __init__(self, encoder: nn.Module, *, ema: float = 0.999, weak: Warp = WEAK) -> None:
        super().__init__(encoder, weak=weak, ema=ema)

    def losses(self, views: Views, step: Step) -> dict[str, Tensor]:
        """The supervised term alone."""
        return {"supervised": self.supervised(views)}
