"""Two networks of one architecture, begun differently, of which the first is kept."""

from __future__ import annotations

import copy

import torch
from torch import nn

from tacit.data.source import Source
from tacit.encoders.card import card_of
from tacit.encoders.twin import fresh_copy
from tacit.methods.segmentation.base import Segmentation
from tacit.rng import Rng
from tacit.tasks.base import Network


class CoTraining(Segmentation):
    """Segmentation by two networks without shared parameters; the sum of their losses has one optimiser.

    A pretrained encoder begins both: then only the heads differ at first.
    """

    second: nn.ModuleList

    def prepare(self, source: Source) -> None:
        """Make the second network."""
        super().prepare(source)
        if card_of(self.encoder).learned:
            encoder = copy.deepcopy(self.encoder)
        else:
            encoder = fresh_copy(self.encoder, Rng.of(torch.initial_seed())("second network"))
        self.second = nn.ModuleList([encoder, self.make_head()])

    @property
    def networks(self) -> tuple[Network, Network]:
        """(encoder, head) of both."""
        encoder, head = self.second
        return Network(self.encoder, self.head), Network(encoder, head)
