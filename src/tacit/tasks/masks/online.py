"""What is measured while a segmenter learns: how well it does on held-out samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from tacit.data.canvas import Predict
from tacit.data.source import Source
from tacit.encoders.card import card_of
from tacit.encoders.modes import keeping_modes
from tacit.evaluation.batch_statistics import Modes, by_batch, settled, tracking_layers
from tacit.rng import Rng
from tacit.tasks.base import Taught
from tacit.tasks.masks.grading import dice_score, mean_of_known
from tacit.tasks.masks.segmenter import canvas_of, dense_logits, predicted_pairs, predictor_of
from tacit.tasks.online import OnlineProbe, at_most

_SAMPLES = 4
_VOXELS = 1000  # that a Dice counts for, as voxels of one sample are not independent
_TOGETHER = 16  # learned samples that pass as one batch, where each is seen whole
_PATCHES = 64  # of labelled samples, from which statistics are estimated again


class MaskProbe(OnlineProbe):
    """`OnlineProbe` for a method that learns masks: mean Dice of the foreground classes.

    At most four held-out samples are looked at, always the same; no gradient comes from them. Features are
    not watched for collapse: a network that gives all voxels one class has a Dice of 0.
    """

    score = "dice"
    pictures = _VOXELS

    def __init__(
        self,
        source: Source,
        train: np.ndarray,
        rng: Rng,
        held_out: np.ndarray,
        method: Taught,
        learned: np.ndarray | None = None,
    ) -> None:
        """held_out, learned: positions of the source with masks; the latter to compare BatchNorm's modes."""
        super().__init__(source, train[:0], rng)
        self.queries = at_most(held_out, _SAMPLES, rng("held out"))
        self.learned = np.empty(0, np.int64) if learned is None else learned
        self.method, self._rng = method, rng

    @property
    def passes(self) -> int:
        """Windows of all samples that are looked at; of learned ones in both modes."""
        encoder = self.method.network.encoder
        twice = np.repeat(self._compared(), 2 if tracking_layers(encoder) else 0)
        looked = np.concatenate([self.queries, twice]).tolist()
        return sum(canvas_of(encoder, self.source, int(i)).windows() for i in looked)

    def look(self, encoder: nn.Module, device: torch.device) -> dict[str, float]:
        """Nothing."""
        return {}

    def measure(self, encoder: nn.Module, device: torch.device) -> dict[str, float]:
        """With held-out samples, `dice`: the mean over samples and foreground classes of either mask.

        With BatchNorm also the Dice of one learned sample in both modes.
        """
        dice = self._dice(predictor_of(self.method.network), self.queries, device)
        values = {} if np.isnan(dice) else {self.score: dice}
        if (modes := self.modes(device)) is not None:
            values |= {"evaluation_mode": modes.evaluation, "training_mode": modes.training}
        return values

    def _dice(self, predict: Predict, positions: np.ndarray, device: torch.device) -> float:
        scores = []
        classes = range(1, len(self.source.spec.classes))
        encoder = self.method.network.encoder
        for found, true, _ in predicted_pairs(predict, encoder, self.source, positions, device):
            scores += [dice_score(found == c, true == c) for c in classes]
        return mean_of_known(scores)

    def modes(self, device: torch.device) -> Modes | None:
        """Dice of samples whose masks are learned from, None without BatchNorm.

        Of one sample that is seen in windows, or of some that are seen whole, as one batch.
        """
        compared = self._compared()
        if not tracking_layers(self.method.network.encoder) or not len(compared):
            return None
        predict = predictor_of(self.method.network)
        if self._whole:
            evaluation, training = self._together(predict, device), self._together(self._by_batch, device)
        else:
            evaluation = self._dice(predict, compared, device)
            training = self._dice(self._by_batch, compared, device)
        if np.isnan(evaluation) or np.isnan(training):
            return None
        return Modes(evaluation, training, _VOXELS)

    @property
    def _whole(self) -> bool:
        return (
            len(self.learned) > 0
            and canvas_of(self.method.network.encoder, self.source, int(self.learned[0])).whole
        )

    def _compared(self) -> np.ndarray:
        """Learned samples by which both modes of BatchNorm are compared; a batch of one has no statistics."""
        if not self._whole:
            return self.learned[:1]
        return self.learned[:_TOGETHER] if len(self.learned) > 1 else self.learned[:0]

    def _together(self, predict: Predict, device: torch.device) -> float:
        """Mean Dice of samples that pass as one batch."""
        form, rng = card_of(self.method.network.encoder).form, self._rng("modes").numpy()
        cut = [form.cut(self.source[int(i)], rng, turn=False) for i in self._compared()]
        found = predict(torch.stack([sample.data for sample in cut]).to(device)).argmax(1).cpu().numpy()
        true = torch.stack([s.target for s in cut if s.target is not None]).numpy()
        classes = range(1, len(self.source.spec.classes))
        return mean_of_known(
            dice_score(a == c, b == c) for a, b in zip(found, true, strict=True) for c in classes
        )

    def _by_batch(self, x: Tensor) -> Tensor:
        network = self.method.network
        with keeping_modes(*network):
            for part in network:
                part.eval()
            with by_batch(network.encoder):
                return dense_logits(network, x).softmax(1)

    def settle(self, device: torch.device) -> tuple[Modes, Modes] | None:
        """Estimate the running statistics again, on patches whose masks are learned from, if they do not fit.

        They are taken back where that does not help. Returns both modes before and after, None where nothing
        was to be done.
        """
        before, encoder = self.modes(device), self.method.network.encoder
        trained = any(p.requires_grad for p in self.method.encoder.parameters())
        if before is None or not before.apart or not trained:
            return None
        return before, settled(_Dense(encoder), self._patches(device), before, lambda: self.modes(device))

    def _patches(self, device: torch.device) -> Iterator[Tensor]:
        """Random patches of the labelled samples, four at a time."""
        rng = self._rng("statistics").numpy()
        for _ in range(_PATCHES // 4):
            samples = [self.source[int(i)] for i in rng.choice(self.learned, 4)]
            yield torch.stack([self.method.cut(s, rng).data for s in samples]).to(device)


class _Dense(nn.Module):
    """An encoder whose forward pass is that of its maps."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *patch) -> the finest map."""
        return cast(Any, self.encoder).forward_pyramid(x)[-1]
