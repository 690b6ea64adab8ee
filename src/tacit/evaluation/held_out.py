"""What is measured while a classifier learns: how well it does on the held-out labels."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.metrics import balanced_accuracy_score
from torch import Tensor, nn

from tacit.batch import Batch
from tacit.data.source import Source
from tacit.encoders.card import card_of
from tacit.evaluation.features import extract, still_view
from tacit.evaluation.online import LABELLED, OnlineProbe, at_most
from tacit.methods.semi_supervised import SemiSupervised
from tacit.rng import Rng


class HeldOutProbe(OnlineProbe):
    """`OnlineProbe` for a method that predicts: instead of a kNN vote, its own predictions.

    Only labels that were held out are looked at; no gradient comes from them.
    """

    score = "balanced_accuracy"

    def __init__(
        self, source: Source, train: np.ndarray, rng: Rng, held_out: np.ndarray, method: SemiSupervised
    ) -> None:
        """held_out: positions of the source with labels that are not learned from."""
        super().__init__(source, train, rng)
        self.bank = np.empty(0, np.int64)
        self.queries = at_most(held_out, LABELLED, rng("held out"))
        self.method = method

    def measure(self, encoder: nn.Module, device: torch.device) -> dict[str, float]:
        """What `look` gives and, with held-out labels, `balanced_accuracy`."""
        values = self.look(encoder, device)
        if len(self.queries):
            found = held_out_logits(self.method, self.source, self.queries, device).argmax(1).numpy()
            values[self.score] = float(balanced_accuracy_score(self.source.labels[self.queries], found))
        return values


def held_out_logits(
    method: SemiSupervised, source: Source, positions: np.ndarray, device: torch.device | str
) -> Tensor:
    """(n, classes) logits of the network that is evaluated, from still views, on the CPU."""
    card = card_of(method.encoder)

    def embed(batch: Batch) -> Tensor:
        return method.predict_logits(still_view(batch.to(device), card)).float()

    return torch.from_numpy(extract(embed, source, positions))
