"""A segmenter: an encoder that gives maps, and a convolution from the finest of them to the classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from tacit.data.canvas import OVERLAP, Canvas, Grid, Predict
from tacit.data.source import Source
from tacit.encoders.card import card_of
from tacit.encoders.modes import keeping_modes
from tacit.tasks.base import Network
from tacit.tasks.predictor import Predictor, PredictorCard, check_classes


@dataclass(slots=True, kw_only=True)
class MaskCard(PredictorCard):
    """What is known of a segmenter. classes: names in the order of the masks' values."""

    classes: tuple[str, ...]

    def check(self) -> None:
        """The classes, too."""
        PredictorCard.check(self)
        check_classes(self.classes)


class Segmenter(Predictor):
    """A learned segmenter. head: a convolution with a kernel of one voxel or pixel."""

    card: MaskCard

    def predict(self, x: Tensor) -> Tensor:
        """(B, C, *patch) -> (B, classes, *patch) probabilities."""
        return dense_logits(Network(self.encoder, self.head), x).softmax(1)

    def probabilities(self, canvas: Canvas, *, overlap: float = OVERLAP) -> Tensor:
        """(classes, *space) float32 on the CPU, of a whole sample."""
        return canvas.predict(self.predict, self.device, overlap)


def dense_logits(network: Network, x: Tensor) -> Tensor:
    """(B, C, *patch) -> (B, classes, *patch), from the finest map."""
    return network.head(cast(Any, network.encoder).forward_pyramid(x)[-1])


def predictor_of(network: Network) -> Predict:
    """Probabilities by a network in eval mode; its modes are kept."""

    @torch.no_grad()
    def predict(x: Tensor) -> Tensor:
        with keeping_modes(*network):
            for part in network:
                part.eval()
            return dense_logits(network, x).softmax(1)

    return predict


def canvas_of(encoder: torch.nn.Module, source: Source, position: int) -> Canvas:
    """A sample in its own geometry, as this encoder sees it."""
    return card_of(encoder).form.canvas(source, position)


def predicted_pairs(
    predict: Predict,
    encoder: torch.nn.Module,
    source: Source,
    positions: np.ndarray,
    device: torch.device | str,
) -> Iterator[tuple[np.ndarray, np.ndarray, Grid]]:
    """(predicted, true) masks (*space), and the grid in mm, of the samples at these positions."""
    for i in positions.tolist():
        canvas = canvas_of(encoder, source, i)
        found = canvas.predict(predict, device).argmax(0).numpy()
        yield found, canvas.mask(), canvas.grid
