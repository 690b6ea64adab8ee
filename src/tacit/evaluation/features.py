"""Features of a source's samples, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tacit.batch import Samples
from tacit.data.form import form_class
from tacit.data.source import Source
from tacit.encoders.card import card_of

Embed = Callable[[Samples], Tensor]


def encoder_features(encoder: nn.Module, device: torch.device | str) -> Embed:
    """Samples -> (N, D) features of an encoder, which is put in eval mode on `device`."""
    encoder = encoder.to(device).eval()
    form = card_of(encoder).form
    return lambda samples: encoder(form.still(samples.to(device))).float()


def raw_features(source: Source, size: int = 32) -> Embed:
    """Samples of this source -> (N, D) raw numbers, of images at most `size` x `size` pixels."""
    kind = form_class(source.spec.modality)
    return lambda samples: kind.raw(samples, size)


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
