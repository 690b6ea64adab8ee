"""What is measured while values are learned: how well held-out values are predicted."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from torch import Tensor

from tacit.tasks.held_out import HeldOut
from tacit.tasks.values.grading import r_squared


class ValueProbe(HeldOut):
    """R2 on held-out values, all together.

    Both modes of BatchNorm are compared by R2 on learned samples, where below 0 counts as 0: a score from 0
    to 1, as `Modes` wants. Four samples count as one, because the standard error of R2 over n samples, about
    2 sqrt(R2) (1 - R2) / sqrt(n), is at most that of a share of right answers over n / 4.
    """

    score = "r2"
    settled_after = 100
    weigh: ClassVar[int] = 4

    def rate(self, outputs: Tensor, positions: np.ndarray) -> float | None:
        """R2, at most 1; None where the true values are all equal, or a prediction is not finite."""
        if self.source.values is None:
            return None
        found = r_squared(self.source.values[positions], outputs[:, 0].double().numpy())
        return found if np.isfinite(found) else None

    def share(self, outputs: Tensor, positions: np.ndarray) -> float:
        """The share of the variance that the outputs explain, from 0 to 1."""
        return max(0.0, self.rate(outputs, positions) or 0.0)
