"""What methods share that embed several crops of each image on the unit sphere."""

from __future__ import annotations

from itertools import chain

import torch
from torch import Tensor, nn

from tacit.batch import Batch, Samples, Step
from tacit.data.image.form import ImageForm
from tacit.encoders.card import card_of
from tacit.encoders.heads import mlp
from tacit.encoders.zoo import fixed_size
from tacit.errors import UsageError
from tacit.losses.negatives import unit_rows
from tacit.methods.base import Method
from tacit.rng import Rng
from tacit.views.image import Augment
from tacit.views.multicrop import Crops, multi_crop


class MultiCrop(Method):
    """Two large and some small crops of each image, each embedded by encoder and projector."""

    def __init__(
        self,
        encoder: nn.Module,
        *,
        projection: int,
        hidden: int,
        augment: Augment,
        small: int,
        small_size: float,
        small_scale: tuple[float, float],
    ) -> None:
        super().__init__(encoder)
        if small < 0 or not 0 < small_size <= 1:
            raise UsageError(f"small must be at least 0 and small_size in (0, 1], not {small}, {small_size}")
        card = card_of(encoder)
        if small and small_size != 1 and (fixed := fixed_size(card.spec)):
            raise UsageError(
                f"the encoder {card.spec} sees {fixed} pixels only: pass --method.small 0 or "
                "--method.small_size 1"
            )
        self.augment, self.small = augment, small
        self.small_size, self.small_scale = small_size, small_scale
        self.project = mlp([self.num_features, hidden, projection])

    def views(self, batch: Batch, rng: Rng, step: Step) -> Crops:
        """Two large crops and the small ones, as the encoder wants them."""
        return self.crops(batch.unlabelled, rng, self.small)

    def crops(self, samples: Samples, rng: Rng, small: int) -> Crops:
        """The same with another number of small crops."""
        form = ImageForm.of(card_of(self.encoder).form)
        return multi_crop(
            samples.data,
            samples.extra["true_size"],
            samples.index,
            rng,
            size=form.size,
            augment=self.augment,
            mean=form.mean,
            std=form.std,
            small=small,
            small_size=self.small_size,
            small_scale=self.small_scale,
        )

    def embed_crops(self, crops: Crops) -> list[Tensor]:
        """(B, D) float32 unit vectors of each crop, the large ones first.

        Crops of one size pass through the encoder together, and all through the projector, so that
        BatchNorm's statistics are theirs together.
        """
        features = [self.encoder(torch.cat(group)) for group in (crops.large, crops.small) if group]
        (unit,) = unit_rows(self.project(torch.cat(features)))
        return list(unit.split([len(crop) for crop in chain(crops.large, crops.small)]))
