"""What is measured while a classifier learns: how well it does on the held-out labels."""

from __future__ import annotations

from contextlib import nullcontext

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
from tacit.tasks.classes.floors import balanced_accuracy
from tacit.tasks.online import LABELLED, OnlineProbe, at_most

_LEARNED = 512  # labelled training samples by which evaluation and training mode are compared


class HeldOutProbe(OnlineProbe):
    """`OnlineProbe` for a method that predicts: instead of a kNN vote, its own predictions.

    It reads the labels that were held out and, to compare both modes of BatchNorm, those that are learned
    from; no gradient comes from them.
    """

    score = "balanced_accuracy"

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
        self.pictures = len(self.learned)
        self.method, self._rng = method, rng

    @property
    def passes(self) -> int:
        """How many samples `measure` takes through the network."""
        return super().passes + 2 * len(self.learned)

    def measure(self, encoder: nn.Module, device: torch.device) -> dict[str, float]:
        """What `look` gives, `balanced_accuracy` with held-out labels, and both modes of BatchNorm."""
        values = self.look(encoder, device)
        if len(self.queries):
            logits = network_logits(self.method.network, self.source, self.queries, device)
            found = logits.argmax(1).numpy()
            values[self.score] = balanced_accuracy(self.source.labels[self.queries], found)
        if (modes := self.modes(device)) is not None:
            values |= {"evaluation_mode": modes.evaluation, "training_mode": modes.training}
        return values

    def modes(self, device: torch.device) -> Modes | None:
        """Accuracy of the network that is evaluated on labels that it learned, None without BatchNorm."""
        if not tracking_layers(self.method.network.encoder) or len(self.learned) < 2:
            return None
        parts = even_parts(self.learned, self._rng("modes").numpy())
        order, largest = np.concatenate(parts), max(map(len, parts))
        labels = self.source.labels[order]

        def accuracy(training: bool) -> float:
            logits = network_logits(
                self.method.network, self.source, order, device, batch_size=largest, training=training
            )
            return float((logits.argmax(1).numpy() == labels).mean())

        return Modes(accuracy(False), accuracy(True), len(order))

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


def network_logits(
    network: Network,
    source: Source,
    positions: np.ndarray,
    device: torch.device | str,
    *,
    batch_size: int = 256,
    training: bool = False,
) -> Tensor:
    """(n, classes) logits from still views, on the CPU; the network's modes are kept.

    training: normalise by the batch, as BatchNorm does while learning.
    """
    encoder, head = network
    form = card_of(encoder).form

    def embed(samples: Samples) -> Tensor:
        return head(encoder(form.still(samples.to(device)))).float()

    with keeping_modes(encoder, head):
        encoder.eval()
        head.eval()
        with by_batch(encoder) if training else nullcontext():
            return torch.from_numpy(extract(embed, source, positions, batch_size=batch_size))
