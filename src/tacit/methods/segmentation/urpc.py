"""URPC: the scales of one network should agree, and are heeded less where they do not."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tacit.batch import Step
from tacit.encoders.pyramid import pyramid_of
from tacit.errors import UsageError
from tacit.losses.ramps import gaussian_ramp
from tacit.losses.segmentation import pyramid_consistency
from tacit.methods.segmentation.base import Segmentation, Views

_SCALES = 4


class URPC(Segmentation):
    """Uncertainty-rectified pyramid consistency (Luo et al., 2021; arXiv 2012.07042), in its 3-D form.

    Four scales s of the decoder have a head each, whose logits are brought to full size. With
    m = mean_s p_s and V_s = KL(m || p_s) at each voxel:

        L = mean_s S(f_s(x), y)  +  weight * ramp(t) * mean_s [ mean (m - p_s)^2 e^-V_s / mean e^-V_s + mean
        V_s ]

    S is 0.5 (cross-entropy + soft Dice). Nothing is detached. The finest head is kept. The released 3-D code
    trains 60,000 steps with a rate of 0.1; the recipe here is that of the other methods.

    Args:
        encoder: what learns; gives maps at four scales or more (tacit/vnet, tacit/unet3d).
        weight: of the consistency after the ramp.
        ramp: share of the steps in which the weight rises as exp(-5 (1 - t)^2); 0 does without.
        turn: whether volumes are turned and flipped in the x-y plane.
    """

    slug = "urpc"
    title = "The scales of one network agree"
    paper = "arXiv 2012.07042"
    modality = "volume"

    dropout: ClassVar[tuple[float, ...]] = (0.5, 0.3, 0.2, 0.1)  # before the heads, coarse to fine

    def __init__(
        self, encoder: nn.Module, *, weight: float = 0.1, ramp: float = 1.0, turn: bool = True
    ) -> None:
        super().__init__(encoder, turn=turn)
        self.weight, self.ramp = weight, ramp
        if len(pyramid_of(encoder).pyramid_features) < _SCALES:
            raise UsageError(
                f"urpc compares {_SCALES} scales of the decoder, and the encoder gives "
                f"{len(pyramid_of(encoder).pyramid_features)}: use tacit/vnet or tacit/unet3d"
            )

    def make_head(self) -> nn.Module:
        """The finest head; the coarser ones are made beside it."""
        *coarse, finest = pyramid_of(self.encoder).pyramid_features[-_SCALES:]
        self.coarse = nn.ModuleList([nn.Conv3d(width, self.classes, 1) for width in coarse])
        return nn.Conv3d(finest, self.classes, 1)

    def scales(self, x: Tensor) -> list[Tensor]:
        """Logits (B, classes, X, Y, Z) of every scale, coarse to fine."""
        maps = pyramid_of(self.encoder).forward_pyramid(x)[-_SCALES:]
        heads = [*self.coarse, self.head]
        rates = self.dropout if self.training else (0.0,) * _SCALES
        small = [
            head(F.dropout3d(part, rate) if rate else part)
            for head, part, rate in zip(heads, maps, rates, strict=True)
        ]
        return [F.interpolate(each, x.shape[2:], mode="trilinear", align_corners=False) for each in small]

    def losses(self, views: Views, step: Step) -> dict[str, Tensor]:
        """Supervision of all scales, and their agreement."""
        scales = self.scales(views.both)
        supervised = torch.stack([self.supervised(logits, views) for logits in scales]).mean()
        agreement = pyramid_consistency([logits[len(views.labelled) :] for logits in scales])
        weight = self.weight * gaussian_ramp(step.index, self.ramp * step.total)
        return {"supervised": supervised, "consistency": weight * agreement}
