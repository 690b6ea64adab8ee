"""Supervised segmentation: the masks alone, in the same number of steps; also fine-tuning."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from tacit.batch import Step
from tacit.methods.segmentation.base import SSL4MIS, Segmentation, Views


class SupervisedSegmentation(Segmentation):
    """Cross-entropy and soft Dice on random patches of the labelled volumes; the same-budget baseline.

        L = 0.5 (CE(f(x), y) + Dice(softmax f(x), y))

    Unlabelled volumes are not looked at. With `--encoder run:X` this is fine-tuning of what run X learned.

    Args:
        encoder: what learns; gives full-resolution maps.
        turn: whether volumes are turned and flipped in the x-y plane.
    """

    slug = "supervised-segmentation"
    title = "The masks alone: the baseline, and fine-tuning"

    baseline = True
    recipe = replace(SSL4MIS, source=f"the baseline of: {SSL4MIS.source}")

    def __init__(self, encoder: nn.Module, *, turn: bool = True) -> None:
        super().__init__(encoder, turn=turn)

    def losses(self, views: Views, step: Step) -> dict[str, Tensor]:
        """The supervised term alone."""
        return {"supervised": self.supervised(self.logits(views.labelled), views)}
