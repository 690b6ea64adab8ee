"""Cross pseudo supervision: two networks, each learns what the other says."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from tacit.batch import Step
from tacit.losses.ramps import gaussian_ramp
from tacit.losses.segmentation import cross_pseudo_supervision
from tacit.methods.segmentation.base import Views
from tacit.methods.segmentation.co_training import CoTraining
from tacit.tasks.masks.segmenter import dense_logits


class CPS(CoTraining):
    """CPS (Chen et al., 2021; arXiv 2106.01226).

    Two networks of one architecture that began differently; the hard prediction of each teaches the other:

        L = sum over k of  S(f_k(x_l), y)  +  weight * ramp(t) * sum over k of CE(f_k(u), argmax f_j(u)),   j
        != k

    S is 0.5 (cross-entropy + soft Dice), u are the unlabelled patches. Weight and ramp are those of the
    released benchmark SSL4MIS; the original has a constant weight of 1.5 on labelled and unlabelled images
    (VOC).

    Args:
        encoder: what learns; gives full-resolution maps.
        weight: of the pseudo supervision after the ramp.
        ramp: share of the steps in which the weight rises as exp(-5 (1 - t)^2); 0 does without.
        pseudo: which patches are pseudo-labelled; "all" as in the original, "unlabelled" as in SSL4MIS.
        turn: whether volumes are turned and flipped in the x-y plane.
    """

    slug = "cps"
    title = "Cross pseudo supervision of two networks"
    paper = "arXiv 2106.01226"

    def __init__(
        self,
        encoder: nn.Module,
        *,
        weight: float = 0.1,
        ramp: float = 1.0,
        pseudo: Literal["unlabelled", "all"] = "unlabelled",
        turn: bool = True,
    ) -> None:
        super().__init__(encoder, turn=turn)
        self.weight, self.ramp, self.pseudo = weight, ramp, pseudo

    def losses(self, views: Views, step: Step) -> dict[str, Tensor]:
        """Both networks' terms."""
        first, second = (dense_logits(network, views.both) for network in self.networks)
        begin = 0 if self.pseudo == "all" else len(views.labelled)
        z1, z2 = first[begin:], second[begin:]
        weight = self.weight * gaussian_ramp(step.index, self.ramp * step.total)
        return {
            "supervised": self.supervised(first, views) + self.supervised(second, views),
            "pseudo": weight * (cross_pseudo_supervision(z1, z2) + cross_pseudo_supervision(z2, z1)),
        }
