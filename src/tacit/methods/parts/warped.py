"""Random views of images that keep what they show, as an encoder takes them."""

from __future__ import annotations

from torch import Tensor, nn

from tacit.batch import Samples
from tacit.data.image.form import ImageForm
from tacit.encoders.card import card_of
from tacit.rng import Rng
from tacit.views.warp import Warp, warp_images


def warped(samples: Samples, rng: Rng, warp: Warp, encoder: nn.Module) -> Tensor:
    """(N, C, S, S) views, normalised for the encoder, with the side S that it sees."""
    form = ImageForm.of(card_of(encoder).form)
    return warp_images(
        samples.data,
        samples.extra["true_size"],
        samples.index,
        rng,
        size=form.size,
        warp=warp,
        mean=form.mean,
        std=form.std,
    )
