"""What image methods with two random views of each image share."""

from __future__ import annotations

from torch import Tensor, nn

from tacit.batch import Batch, Samples, Step
from tacit.data.image.form import ImageForm
from tacit.encoders.card import card_of
from tacit.methods.base import Method
from tacit.rng import Rng
from tacit.views.image import Augment, augment_images


class TwoViews(Method):
    """Two views of one image, drawn independently from the same augmentation."""

    temperature: float

    def __init__(self, encoder: nn.Module, augment: Augment) -> None:
        super().__init__(encoder)
        self.augment = augment

    def views(self, batch: Batch, rng: Rng, step: Step) -> tuple[Tensor, Tensor]:
        """Two batches of views, each (U, C, size, size) float32, normalised as the encoder wants it."""
        return self._view(batch.unlabelled, rng("first")), self._view(batch.unlabelled, rng("second"))

    def _view(self, samples: Samples, rng: Rng) -> Tensor:
        form = ImageForm.of(card_of(self.encoder).form)
        return augment_images(
            samples.data,
            samples.extra["true_size"],
            samples.index,
            rng,
            size=form.size,
            augment=self.augment,
            mean=form.mean,
            std=form.std,
        )
