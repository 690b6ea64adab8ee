"""What is measured while a classifier learns: how well it does on the held-out labels."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from tacit.tasks.classes.floors import balanced_accuracy
from tacit.tasks.held_out import HeldOut


class HeldOutProbe(HeldOut):
    """Balanced accuracy on held-out labels; both modes of BatchNorm are compared by plain accuracy."""

    score = "balanced_accuracy"

    def rate(self, outputs: Tensor, positions: np.ndarray) -> float:
        """Balanced accuracy, from 0 to 1. outputs: (n, classes) logits."""
        return balanced_accuracy(self.source.labels[positions], outputs.argmax(1).numpy())

    def share(self, outputs: Tensor, positions: np.ndarray) -> float:
        """Accuracy."""
        return float((outputs.argmax(1).numpy() == self.source.labels[positions]).mean())
