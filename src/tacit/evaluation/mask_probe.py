"""What is measured while a segmenter learns: how well it does on held-out volumes."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from tacit.data.source import Source
from tacit.data.volumes import volumes_of
from tacit.evaluation.online import OnlineProbe, at_most
from tacit.evaluation.segmentation import dice_score, mean_of_known
from tacit.evaluation.segmenter import count_windows, predicted_pairs
from tacit.methods.segmentation import Segmentation
from tacit.rng import Rng

_VOLUMES = 4


class MaskProbe(OnlineProbe):
    """`OnlineProbe` for a method that learns masks: mean Dice of the foreground classes.

    At most four held-out volumes are looked at, always the same; no gradient comes from them. Features are
    not watched for collapse: a network that gives all voxels one class has a Dice of 0.
    """

    score = "dice"

    def __init__(
        self, source: Source, train: np.ndarray, rng: Rng, held_out: np.ndarray, method: Segmentation
    ) -> None:
        """held_out: positions of the source with masks that are not learned from."""
        super().__init__(source, train[:0], rng)
        self.queries = at_most(held_out, _VOLUMES, rng("held out"))
        self.method = method

    @property
    def passes(self) -> int:
        """Windows of all volumes that are looked at."""
        shapes = volumes_of(self.source).shapes[self.queries].tolist()
        return sum(count_windows(shape, self.method.patch) for shape in shapes)

    def look(self, encoder: nn.Module, device: torch.device) -> dict[str, float]:
        """Nothing."""
        return {}

    def measure(self, encoder: nn.Module, device: torch.device) -> dict[str, float]:
        """With held-out volumes, `dice`: the mean over volumes and foreground classes of either mask."""
        scores = []
        classes = range(1, len(self.source.spec.classes))
        for found, true, _ in predicted_pairs(
            self.method.predict, self.source, self.queries, self.method.patch, device
        ):
            scores += [dice_score(found == c, true == c) for c in classes]
        dice = mean_of_known(scores)
        return {} if np.isnan(dice) else {self.score: dice}
