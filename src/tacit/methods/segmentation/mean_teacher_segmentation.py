"""Mean Teacher and its uncertainty-aware child, for masks."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from tacit.batch import Step
from tacit.data.source import Source
from tacit.losses.ramps import gaussian_ramp
from tacit.losses.segmentation import (
    masked_squared_difference,
    predictive_entropy,
    uncertainty_threshold,
)
from tacit.methods.parts.teacher import follow, frozen_copy, momentum_at
from tacit.methods.segmentation.base import SSL4MIS, Segmentation, Views
from tacit.tasks.base import Network
from tacit.tasks.masks.segmenter import dense_logits
from tacit.views.volume import gaussian_noise

_UA_MT = replace(
    SSL4MIS,
    schedule="steps",
    epochs=190,
    source="SGD with momentum 0.9, lr 0.01, a tenth of it after 2,500 and a hundredth after 5,000 of 6,000 "
    "steps, "
    "weight decay 1e-4, 2 labelled and 2 unlabelled patches a step: the released code; 190 passes over 64 "
    "unlabelled volumes",
)


Keep = Literal["better", "student", "teacher"]


class MeanTeacherSegmentation(Segmentation):
    """Mean Teacher (Tarvainen and Valpola, 2017; arXiv 1703.01780) for masks, in the form of SSL4MIS.

    The student learns the prediction of its own moving average on a noisy copy of the unlabelled patch:

        L = S(f(x), y) + weight * ramp(t) * mean |softmax f(u) - softmax f_teacher(u + n)|^2

    S is 0.5 (cross-entropy + soft Dice), n = clip(0.1 N(0, 1), -0.2, 0.2), which in the released code is
    added to intensities of standard deviation 1 and here to those in [0, 1]; the mean is over voxels and
    classes. theta' <- a theta' + (1 - a) theta with a = min(1 - 1 / (t + 1), ema), t = 0, 1, ..., and spans
    no more than 5 % of the run (`momentum_at`): parameters only; the teacher stays in training mode, with
    dropout and batch statistics of its own, and gets no gradient.

    Args:
        encoder: what learns; gives full-resolution maps.
        weight: of the consistency after the ramp.
        ramp: share of the steps in which the weight rises as exp(-5 (1 - t)^2); 0 does without.
        ema: of the teacher, after its warm-up.
        keep: which network is kept: the better one on held-out volumes (the student where none are held
            out), the student, as in the released code, or the teacher.
        turn: whether volumes are turned and flipped in the x-y plane.
    """

    slug = "mean-teacher-segmentation"
    title = "The student follows its own average, for masks"
    paper = "arXiv 1703.01780"

    teacher: nn.ModuleList

    def __init__(
        self,
        encoder: nn.Module,
        *,
        weight: float = 0.1,
        ramp: float = 1.0,
        ema: float = 0.99,
        keep: Keep = "better",
        turn: bool = True,
    ) -> None:
        super().__init__(encoder, turn=turn)
        self.weight, self.ramp, self.ema, self.keep = weight, ramp, ema, keep

    def prepare(self, source: Source) -> None:
        """Make the teacher."""
        super().prepare(source)
        network = nn.ModuleList([self.encoder, self.head])
        self.teacher = frozen_copy(network)  # type: ignore[assignment]  # a copy has the type
        self.kept = self.candidates[0]

    @property
    def candidates(self) -> tuple[str, ...]:
        """The student first, as in the released code."""
        return ("student", "teacher") if self.keep == "better" else (self.keep,)

    @property
    def network(self) -> Network:
        """The student or the teacher."""
        return self._taught if self.kept == "teacher" else super().network

    @property
    def _taught(self) -> Network:
        encoder, head = self.teacher
        return Network(encoder, head)

    @torch.no_grad()
    def teach(self, views: Views, name: str) -> Tensor:
        """(U, classes, X, Y, Z) logits by the teacher, of patches with noise drawn under this name."""
        noisy = gaussian_noise(views.unlabelled, views.rng(name))
        return dense_logits(self._taught, noisy)

    def losses(self, views: Views, step: Step) -> dict[str, Tensor]:
        """Supervised term and consistency."""
        logits = self.logits(views.both)
        weight = self.weight * gaussian_ramp(step.index, self.ramp * step.total)
        return {
            "supervised": self.supervised(logits, views),
            "consistency": weight * self.consistency(logits[len(views.labelled) :], views, step),
        }

    def consistency(self, student: Tensor, views: Views, step: Step) -> Tensor:
        """Mean squared difference from the teacher."""
        return masked_squared_difference(student, self.teach(views, "noise"))

    def after_step(self, step: Step) -> None:
        """The teacher follows."""
        network = nn.ModuleList([self.encoder, self.head])
        follow(self.teacher, network, momentum_at(step, self.ema, first=1))

    def finish(self, source: Source) -> None:
        """The network that is evaluated becomes the student."""
        if self.kept == "teacher":
            nn.ModuleList([self.encoder, self.head]).load_state_dict(self.teacher.state_dict())


class UAMT(MeanTeacherSegmentation):
    """UA-MT (Yu et al., 2019; arXiv 1907.07034): Mean Teacher where the teacher is sure.

    The teacher looks `passes` more times at the patch, with new noise and dropout. Where the entropy of its
    mean prediction is below H(t) = (0.75 + 0.25 ramp(t)) ln K, the student follows:

        consistency = sum M |p - p'|^2 / (K sum M),   M = [ -sum_c mean p'_c log mean p'_c < H(t) ]

    The published threshold is for K = 2 classes; ln K for more is our choice (it is the same at 2).

    Args:
        encoder: what learns; gives full-resolution maps.
        weight: of the consistency after the ramp.
        ramp: share of the steps in which the weight rises as exp(-5 (1 - t)^2); the threshold takes all of
            them.
        ema: of the teacher, after its warm-up.
        passes: of the teacher for its uncertainty.
        keep: which network is kept: the better one on held-out volumes (the student where none are held
            out), the student, as in the released code, or the teacher.
        turn: whether volumes are turned and flipped in the x-y plane.
    """

    slug = "ua-mt"
    title = "Mean Teacher where the teacher is sure"
    paper = "arXiv 1907.07034"

    recipe = _UA_MT

    def __init__(
        self,
        encoder: nn.Module,
        *,
        weight: float = 0.1,
        ramp: float = 1.0,
        ema: float = 0.99,
        passes: int = 8,
        keep: Keep = "better",
        turn: bool = True,
    ) -> None:
        super().__init__(encoder, weight=weight, ramp=ramp, ema=ema, keep=keep, turn=turn)
        self.passes = passes

    def consistency(self, student: Tensor, views: Views, step: Step) -> Tensor:
        """Squared difference from the teacher where it is sure."""
        target = self.teach(views, "noise")
        mean = self.uncertain(views)
        threshold = uncertainty_threshold(step.index / step.total, self.classes)
        sure = predictive_entropy(mean) < threshold
        self.note("sure", sure.float().mean())
        return masked_squared_difference(student, target, sure)

    def uncertain(self, views: Views) -> Tensor:
        """Mean probabilities of the teacher's further passes, one at a time to save memory."""
        total = self.teach(views, "pass 0").softmax(1)
        for k in range(1, self.passes):
            total += self.teach(views, f"pass {k}").softmax(1)
        return total / self.passes
