"""What is measured while learning: a kNN probe if there are labels, health always."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from tacit.data.budget import group_split
from tacit.data.source import UNLABELLED, Source
from tacit.encoders.modes import keeping_modes
from tacit.evaluation.batch_statistics import Modes
from tacit.evaluation.collapse import effective_rank, feature_std
from tacit.evaluation.features import Embed, encoder_features, extract, raw_features
from tacit.evaluation.knn import knn_predict
from tacit.rng import Rng
from tacit.tasks.names import PIXELS, START

_HEALTH = 512  # unlabelled samples
LABELLED = 4000  # labelled samples, bank and queries together


class OnlineProbe:
    """Measures an encoder on the same few samples each time, so that its curve is comparable.

    Labels, if there are any, serve for watching only: no gradient comes from them. A source that
    brings a validation split is probed on it, any other on a fifth of the labelled training samples, of
    other groups than the rest.
    A test split is never looked at.

    score: the measure by which the best checkpoint is chosen.
    """

    score = "knn"
    settled_after = 0  # steps in which both modes may differ, because an average still lags
    pictures = 0  # that a score by either mode of BatchNorm is of

    def __init__(self, source: Source, train: np.ndarray, rng: Rng) -> None:
        """source: all splits; train: the positions that are learned from."""
        self.source = source
        spaced = np.linspace(0, len(train) - 1, min(_HEALTH, len(train)))
        self.health = train[spaced.astype(np.int64)]
        self.bank, self.queries = _split(source, train, rng)

    @property
    def has_labels(self) -> bool:
        """Whether there is something to probe."""
        return len(self.bank) > 0 and len(self.queries) > 0

    @property
    def passes(self) -> int:
        """How many samples `measure` takes through the network, or how many patches."""
        return len(self.health) + len(self.bank) + len(self.queries)

    def settle(self, device: torch.device) -> tuple[Modes, Modes] | None:
        """Estimate running statistics again where they do not fit; both modes before and after, if done."""
        return None

    def measure(self, encoder: nn.Module, device: torch.device) -> dict[str, float]:
        """What `look` gives and, with labels, `knn` (accuracy). The encoder's mode is kept."""
        values = self.look(encoder, device)
        if self.has_labels:
            with keeping_modes(encoder):
                values["knn"] = self._knn(encoder_features(encoder, device))
        return values

    def floors(self, encoder: nn.Module, device: torch.device) -> dict[str, float]:
        """The kNN accuracy of raw pixels and of an encoder as it begins, by name; its mode is kept."""
        if not self.has_labels:
            return {}
        with keeping_modes(encoder):
            start = self._knn(encoder_features(encoder, device))
        return {PIXELS: self._knn(raw_features(self.source)), START: start}

    def look(self, encoder: nn.Module, device: torch.device) -> dict[str, float]:
        """`effective_rank` and `feature_std` of the same few images each time, without labels."""
        with keeping_modes(encoder):
            embed = encoder_features(encoder, device)
            features = torch.from_numpy(extract(embed, self.source, self.health))
        return {"effective_rank": effective_rank(features), "feature_std": feature_std(features)}

    def _knn(self, embed: Embed) -> float:
        labels = torch.from_numpy(self.source.labels)
        bank, queries = (
            torch.from_numpy(extract(embed, self.source, part)) for part in (self.bank, self.queries)
        )
        classes = int(labels.max()) + 1
        votes = knn_predict(bank, labels[self.bank], queries, classes=classes)
        return (votes.argmax(1) == labels[self.queries]).float().mean().item()


def _split(source: Source, train: np.ndarray, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    labelled = train[source.labels[train] != UNLABELLED]
    nothing = np.empty(0, np.int64)
    if len(np.unique(source.labels[labelled])) < 2:
        return nothing, nothing
    if "train" in source.splits and "val" in source.splits:
        validation = source.splits["val"]
        bank, queries = labelled, validation[source.labels[validation] != UNLABELLED]
    else:
        groups = None if source.groups is None else source.groups[labelled]
        first, second = group_split(source.labels[labelled], groups, (0.8, 0.2), rng("online split"))
        bank, queries = labelled[first], labelled[second]
    return (
        at_most(bank, LABELLED * 4 // 5, rng("online bank")),
        at_most(queries, LABELLED // 5, rng("online queries")),
    )


def at_most(index: np.ndarray, count: int, rng: Rng) -> np.ndarray:
    """So many of these positions, drawn at random, in ascending order."""
    if len(index) <= count:
        return index
    return np.sort(index[rng.permutation(len(index))[:count].numpy()])
