"""What is measured while labels of whole samples are learned: predictions of held-out labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import nullcontext
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from tacit.batch import Samples
from tacit.data.source import Source
from tacit.encoders.card import card_of
from tacit.encoders.modes import keeping_modes
from tacit.evaluation.batch_statistics import (
    LEAST,
    Modes,
    by_batch,
    even_parts,
    settled,
    tracking_layers,
)
from tacit.evaluation.features import extract
from tacit.rng import Rng
from tacit.tasks.base import Network, Taught
from tacit.tasks.online import LABELLED, OnlineProbe, at_most

_LEARNED = 512  # labelled training samples by which evaluation and training mode are compared


class HeldOut(OnlineProbe, ABC):
    """`OnlineProbe` for a method that predicts: instead of a kNN vote, its own predictions.

    It reads the labels that were held out and, to compare both modes of BatchNorm, those that are learned
    from; no gradient comes from them. A subclass computes the scores.

    weigh: learned samples that count as one where both modes are compared, see `Modes`.
    """

    weigh: ClassVar[int] = 1

    def __init__(
        self,
        source: Source,
        train: np.ndarray,
        rng: Rng,
        held_out: np.ndarray,
        learned: np.ndarray,
        method: Taught,
    ) -> None:
        """held_out, learned: positions of the source with labels."""
        super().__init__(source, train, rng)
        self.bank = np.empty(0, np.int64)
        self.queries = at_most(held_out, LABELLED, rng("held out"))
        self.learned = at_most(learned, _LEARNED, rng("learned"))
        self.pictures = len(self.learned) // self.weigh
        self.method, self._rng = method, rng

    @abstractmethod
    def rate(self, outputs: Tensor, positions: np.ndarray) -> float | None:
        """`score` of the network's outputs, (n, K), on the samples at `positions`; None if undefined."""

    @abstractmethod
    def share(self, outputs: Tensor, positions: np.ndarray) -> float:
        """How much of the labels at `positions` the outputs get right, from 0 to 1."""

    @property
    def passes(self) -> int:
        """How many samples `measure` takes through the network."""
        return super().passes + 2 * len(self.learned)

    def measure(self, encoder: nn.Module, device: torch.device) -> dict[str, float]:
        """What `look` gives, `score` on held-out labels, and both modes of BatchNorm."""
        values = self.look(encoder, device)
        if len(self.queries):
            outputs = network_outputs(self.method.network, self.source, self.queries, device)
            if (rated := self.rate(outputs, self.queries)) is not None:
                values[self.score] = rated
        if (modes := self.modes(device)) is not None:
            values |= {"evaluation_mode": modes.evaluation, "training_mode": modes.training}
        return values

    def modes(self, device: torch.device) -> Modes | None:
        """`share` of the network that is evaluated, on labels that it learned; None without BatchNorm."""
        if not tracking_layers(self.method.network.encoder) or len(self.learned) < 2:
            return None
        parts = even_parts(self.learned, self._rng("modes").numpy())
        order, largest = np.concatenate(parts), max(map(len, parts))

        def share(training: bool) -> float:
            network = self.method.network
            outputs = network_outputs(
                network, self.source, order, device, batch_size=largest, training=training
            )
            return self.share(outputs, order)

        return Modes(share(False), share(True), len(order) // self.weigh)

    def settle(self, device: torch.device) -> tuple[Modes, Modes] | None:
        """Estimate the running statistics again on clean pictures whose labels are learned from.

        They are taken back where the network then does worse on these pictures. Nothing is done without
        BatchNorm, with a frozen encoder, whose statistics belong to its weights, or with few pictures.

        Returns both modes before and after, None where nothing was done.
        """
        encoder = self.method.network.encoder.to(device)
        before = self.modes(device)
        trained = any(p.requires_grad for p in self.method.encoder.parameters())
        if before is None or len(self.learned) < LEAST or not trained:
            return None
        form = card_of(self.method.encoder).form
        parts = even_parts(self.learned, self._rng("statistics").numpy())
        batches = (form.still(self.source.batch(p).to(device)) for p in parts)
        return before, settled(encoder, batches, before, lambda: self.modes(device))


def network_outputs(
    network: Network,
    source: Source,
    positions: np.ndarray,
    device: torch.device | str,
    *,
    batch_size: int = 256,
    training: bool = False,
) -> Tensor:
    """(n, K) outputs of the head from still views, on the CPU; the network's modes are kept.

    A head that gives one number for each sample, (n,), has K = 1.

    training: normalise by the batch, as BatchNorm does while learning.
    """
    encoder, head = network
    form = card_of(encoder).form

    def embed(samples: Samples) -> Tensor:
        found: Tensor = head(encoder(form.still(samples.to(device)))).float()
        return found if found.ndim == 2 else found[:, None]

    with keeping_modes(encoder, head):
        encoder.eval()
        head.eval()
        with by_batch(encoder) if training else nullcontext():
            return torch.from_numpy(extract(embed, source, positions, batch_size=batch_size))
