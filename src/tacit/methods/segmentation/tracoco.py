"""TraCoCo: what a voxel is does not depend on what else the patch shows."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from tacit.batch import Batch, Samples, Step
from tacit.data.source import Sample, Source
from tacit.data.volume.form import VolumeForm
from tacit.data.volume.volume import volume_of
from tacit.encoders.card import card_of
from tacit.losses.ramps import gaussian_ramp
from tacit.losses.segmentation import confident_cross_entropy
from tacit.losses.translation import negative_entropy, overlaps, translation_consistency
from tacit.methods.segmentation.base import SSL4MIS, Views
from tacit.methods.segmentation.co_training import CoTraining
from tacit.rng import Rng
from tacit.tasks.base import Network
from tacit.tasks.masks.segmenter import dense_logits
from tacit.views.volume import Turn, apply_cutmix, brightness, cutmix_boxes, two_starts, uniform_noise

_RECIPE = replace(
    SSL4MIS,
    lr=0.05,
    epochs=225,
    source="SGD with momentum 0.9, lr 0.05 (1 - t/T)^0.9, weight decay 1e-4, 2 labelled and 2 unlabelled "
    "patches a step: the released code; its 9,000 steps are 225 passes over 80 left-atrium volumes",
)


class TraCoCo(CoTraining):
    """Translation-consistent co-training (Liu et al., 2022; arXiv 2203.14523).

    Two shifted, overlapping patches x, x' are cut out of each volume: a network should say the same of the
    voxels that they share, although their surroundings differ. Two networks teach each other on top of that,
    where the teacher is sure. For network k, with j the other one:

        L_k = S(f_k(x_l), y) + weight * ramp(t) * [ CBC(f_k(u), f_j(u)) + translation * KL + entropy * R ]

    S is 0.5 (cross-entropy + soft Dice); CBC the cross-entropy with the teacher's class, weighted by its
    confidence (`confident_cross_entropy`); KL that of the second patch's prediction to the first's on shared
    voxels, through which gradient flows both ways; R = mean sum_c p log p keeps both from saying the same
    everywhere. Each pass but the teacher's sees new uniform noise. The second network learns from volumes
    with boxes of other volumes in them (CutMix), and the teacher's logits are mixed alike.

    compat="official" is the released code where it differs: logits clamped to [1e-6, 1] and a softmax along x
    instead of classes in the KL, its sum instead of the mean over samples (and the weight of that scale), the
    second patch always on the low side. By default a second patch lies on either side, at most half a patch
    away (our choice).

    Args:
        encoder: what learns; gives full-resolution maps.
        weight: of all unlabelled terms after the ramp (0.3 with the fewest labels in the released scripts).
        ramp: passes over the labelled volumes in which the weight rises as exp(-5 (1 - t)^2), from exactly 0;
            they are counted with the labelled volumes of one part of a step.
        threshold: least confidence of a teacher whose class is learned.
        negative: largest probability of a class that is learned as absent.
        translation: of the KL, for the mean over samples: the released 0.3 is for the sum over 4 and the mean
            over 2 classes.
        entropy: of the negative entropy.
        noise: largest amount added to an intensity of [0, 1].
        brightness: largest change of a volume's brightness, as a share.
        cutmix: which network learns from mixed volumes.
        cutmix_axes: xy for boxes of full depth, as in the released code; xyz for boxes.
        teacher_eval: whether the teacher is in evaluation mode; the released code leaves it in training mode.
        detach_target: whether the KL's second patch is a constant.
        compat: "correct", or "official" for the released code.
        turn: whether volumes are turned and flipped in the x-y plane.
    """

    slug = "tracoco"
    title = "Shifted patches agree, two networks teach each other"
    paper = "arXiv 2203.14523"
    modality = "volume"

    recipe = _RECIPE

    def __init__(
        self,
        encoder: nn.Module,
        *,
        weight: float = 1.0,
        ramp: float = 40.0,
        threshold: float = 0.65,
        negative: float = 0.1,
        translation: float = 0.6,
        entropy: float = 0.1,
        noise: float = 0.2,
        brightness: float = 0.25,
        cutmix: Literal["second", "both", "none"] = "second",
        cutmix_axes: Literal["xy", "xyz"] = "xy",
        teacher_eval: bool = False,
        detach_target: bool = False,
        compat: Literal["correct", "official"] = "correct",
        turn: bool = True,
    ) -> None:
        super().__init__(encoder, turn=turn)
        self.weight, self.ramp = weight, ramp
        self.threshold, self.negative = threshold, negative
        self.translation, self.entropy = translation, entropy
        self.noise, self.brightness = noise, brightness
        self.cutmix, self.cutmix_axes = cutmix, cutmix_axes
        self.teacher_eval, self.detach_target, self.compat = teacher_eval, detach_target, compat

    @property
    def patch(self) -> tuple[int, ...]:
        """Sides (X, Y, Z) of what the network sees."""
        return VolumeForm.of(card_of(self.encoder).form).patch

    @property
    def translates(self) -> bool:
        """Whether the second patch is looked at."""
        return bool(self.translation or self.entropy)

    def prepare(self, source: Source) -> None:
        """Count the labelled volumes, by which the ramp goes."""
        super().prepare(source)
        self.labelled_volumes = max(1, len(source.labelled))

    def cut(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Two overlapping patches of one turned volume."""
        form, volume = VolumeForm.of(card_of(self.encoder).form), volume_of(sample)
        turn = Turn.draw(rng) if self.turn else Turn()
        shape = turn.shape(volume.shape)
        main, second = two_starts(shape, self.patch, rng, one_sided=self.compat == "official")
        if not self.translates:
            return form.crop(sample, turn, main)
        other = turn.apply(volume.read(*turn.box(second, self.patch, volume.shape)))
        offset = torch.tensor([a - b for a, b in zip(main, second, strict=True)])
        return form.crop(sample, turn, main, second=other, offset=offset)

    def views(self, batch: Batch, rng: Rng, step: Step) -> Views:
        """Both patches with the brightness that their volume gets."""
        views = super().views(batch, rng, step)
        assert batch.labelled is not None
        return views._replace(
            labelled=self._lit(views.labelled, batch.labelled.index, rng("labelled brightness")),
            unlabelled=self._lit(views.unlabelled, batch.unlabelled.index, rng("brightness")),
        )

    def draw(self, labelled: Samples, unlabelled: Samples, rng: Rng) -> dict[str, Tensor]:
        """The second patches, and the boxes of CutMix."""
        drawn = {}
        if self.translates:
            first = self._lit(labelled.extra["second"], labelled.index, rng("labelled brightness"))
            second = self._lit(unlabelled.extra["second"], unlabelled.index, rng("brightness"))
            drawn["second"] = torch.cat([first, second])
            drawn["offset"] = torch.cat([labelled.extra["offset"], unlabelled.extra["offset"]])
        if self.cutmix != "none":
            index = torch.cat([-1 - labelled.index, unlabelled.index])  # no number occurs in both
            drawn["box"], drawn["partner"] = cutmix_boxes(
                len(index), self.patch, rng("cutmix"), index, axes=tuple(self.cutmix_axes)
            )
        return drawn

    def _lit(self, x: Tensor, index: Tensor, rng: Rng) -> Tensor:
        return brightness(x, index, rng, low=1 - self.brightness, high=1 + self.brightness)

    def losses(self, views: Views, step: Step) -> dict[str, Tensor]:
        """The terms of both networks, which share no gradient."""
        first, second = self.networks
        ones = self.terms(0, first, second, views)
        others = self.terms(1, second, first, views)
        weight = self.rise(len(views.labelled), step)
        return {
            name: (1.0 if name == "supervised" else weight) * (ones[name] + others[name]) for name in ones
        }

    def rise(self, labelled: int, step: Step) -> float:
        """weight * ramp(t), 0 at the first step; an epoch of the ramp is a pass over the labelled volumes."""
        steps = self.ramp * max(1, self.labelled_volumes // labelled)
        return self.weight * gaussian_ramp(step.index, steps, zero_start=True)

    def terms(self, k: int, student: Network, teacher: Network, views: Views) -> dict[str, Tensor]:
        """What network k learns, its terms weighted among each other."""
        x = views.both
        z = dense_logits(student, self._noisy(x, views, k, "main"))
        found = {"supervised": self.supervised(z, views)}
        mixed, target = self._mixed(k, x, self._teach(teacher, x), views)
        v = dense_logits(student, self._noisy(mixed, views, k, "mixed"))
        begin = len(views.labelled)
        found["confident"] = confident_cross_entropy(
            v[begin:], target[begin:], threshold=self.threshold, negative=self.negative
        )
        if self.translates:
            other = dense_logits(student, self._noisy(views.drawn["second"], views, k, "second"))
            found |= self._translated(z, other, views.drawn["offset"])
        return found

    def _translated(self, main: Tensor, second: Tensor, offset: Tensor) -> dict[str, Tensor]:
        official = self.compat == "official"
        scale = self.classes / len(main) if official else 1.0
        kl = translation_consistency(
            main, second, offset, compat="official" if official else False, detach_target=self.detach_target
        )
        shared = [each for pair in overlaps(main, second, offset) for each in pair]
        entropy = negative_entropy(shared, clamp=official).to(main.device)
        return {"translation": self.translation * scale * kl, "entropy": self.entropy * entropy}

    @torch.no_grad()
    def _teach(self, teacher: Network, x: Tensor) -> Tensor:
        """Logits of the other network for clean patches."""
        encoder, head = teacher
        mode = encoder.training
        if self.teacher_eval:
            encoder.eval(), head.eval()
        try:
            return dense_logits(teacher, x)
        finally:
            encoder.train(mode), head.train(mode)

    def _mixed(self, k: int, x: Tensor, target: Tensor, views: Views) -> tuple[Tensor, Tensor]:
        if self.cutmix == "none" or (self.cutmix == "second" and k == 0):
            return x, target
        box, partner = views.drawn["box"], views.drawn["partner"]
        return apply_cutmix(x, box, partner), apply_cutmix(target, box, partner)

    def _noisy(self, x: Tensor, views: Views, k: int, name: str) -> Tensor:
        return uniform_noise(x, views.rng("noise", k, name), amount=self.noise, clamp=False)
