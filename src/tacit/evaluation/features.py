"""Features of a source's samples, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tacit.batch import Samples
from tacit.data.source import Source
from tacit.encoders.card import EncoderCard, card_of
from tacit.views.image import centre_view

Embed = Callable[[Samples], Tensor]


def still_view(samples: Samples, card: EncoderCard) -> Tensor:
    """The one view of each sample that evaluation uses: for images the centre square, normalised.

    For volumes it is the patch at the centre, as the source gives it.
    """
    if card.modality == "volume":
        return samples.data
    return centre_view(samples.data, samples.extra["true_size"], size=card.size, mean=card.mean, std=card.std)


def encoder_features(encoder: nn.Module, device: torch.device | str) -> Embed:
    """Samples -> (N, D) features of an encoder, which is put in eval mode on `device`."""
    encoder = encoder.to(device).eval()
    card = card_of(encoder)
    return lambda samples: encoder(still_view(samples.to(device), card)).float()


def pixel_features(size: int = 32) -> Embed:
    """Samples -> (N, C * side * side) raw pixels of the centre square, of at most `size` a side.

    Of a volume's patch means over equal boxes, of which there are as many in all as pixels of an image.
    """

    def embed(samples: Samples) -> Tensor:
        if samples.data.ndim == 5:
            side = round(size ** (2 / 3))
            return F.adaptive_avg_pool3d(samples.data, side).flatten(1)
        channels, side = samples.data.shape[1], min(size, samples.data.shape[-1])
        card = EncoderCard("", channels, side, (0.0,) * channels, (1.0,) * channels)
        return still_view(samples, card).flatten(1)

    return embed


@torch.inference_mode()
def feature_batches(
    embed: Embed, source: Source, index: np.ndarray | None = None, *, batch_size: int = 256
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield (rows, features): the features, (b, D) float32, of the samples at `index[rows]`."""
    index = np.arange(len(source)) if index is None else index
    for start in range(0, len(index), batch_size):
        rows = slice(start, min(start + batch_size, len(index)))
        yield rows, embed(source.batch(index[rows])).cpu().numpy()


def extract(
    embed: Embed,
    source: Source,
    index: np.ndarray | None = None,
    *,
    batch_size: int = 256,
    out: Path | None = None,
) -> np.ndarray:
    """Features of the samples at `index` (default: all), (N, D) float32; a memory map at `out`, a .npy."""
    count = len(source) if index is None else len(index)
    features: np.ndarray | None = None
    for rows, values in feature_batches(embed, source, index, batch_size=batch_size):
        if features is None:
            shape = (count, values.shape[1])
            features = (
                np.empty(shape, np.float32)
                if out is None
                else np.lib.format.open_memmap(out, "w+", np.float32, shape)
            )
        features[rows] = values
    if features is None:
        return np.empty((0, 0), np.float32)
    return features
