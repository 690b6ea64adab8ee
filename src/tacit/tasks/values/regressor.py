"""A regressor: a linear layer on an encoder, the unit of its values, and how far off it may be."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tacit.batch import Samples
from tacit.checks import check_number, check_type, is_count
from tacit.encoders.card import card_of
from tacit.tasks.predictor import Predictor, PredictorCard
from tacit.tasks.values.calibration import COVERAGE


class ValueHead(nn.Module):
    """One number for each sample: a linear layer learns the standardised value, (value - mean) / scale.

    Both are buffers, so that wherever the weights go, the unit of the values goes with them.

    linear: from features to 1. mean, scale: of the values that are learned from; scale is above 0.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear, mean: float = 0.0, scale: float = 1.0) -> None:
        super().__init__()
        self.linear = linear
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))

    def standardised(self, features: Tensor) -> Tensor:
        """(B, D) -> (B,) float32, in units of `scale` from `mean`."""
        return self.linear(features).squeeze(1).float()

    def standardise(self, values: Tensor) -> Tensor:
        """(B,) values -> (B,) float32 targets of `standardised`."""
        return (values - self.mean) / self.scale

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) -> (B,) float32 in the unit of the values."""
        return self.standardised(features) * self.scale + self.mean


@dataclass(slots=True, kw_only=True)
class ValueCard(PredictorCard):
    """What is known of a regressor.

    width: predictions plus and minus it cover the share `coverage` of values like the held-out ones, see
        `half_width`; in the unit of the values, None where too few were held out. count: held-out samples, or
        groups of them, that it is from. reason: why there is no width.
    grades: as `ValueGrades.as_dict`.
    """

    width: float | None = None
    coverage: float = COVERAGE
    count: int = 0
    reason: str = ""

    def check(self) -> None:
        """The interval, too."""
        PredictorCard.check(self)
        if self.width is not None:
            check_number("width", self.width, lambda value: value >= 0, "null or a number of at least 0")
        check_number("coverage", self.coverage, lambda value: 0 < value < 1, "a number between 0 and 1")
        check_number("count", self.count, is_count, "a whole number of at least 0")
        check_type("reason", self.reason, str, "a text")


class Regressor(Predictor):
    """A learned regressor. head: a `ValueHead`."""

    card: ValueCard

    def values(self, samples: Samples) -> Tensor:
        """(N, 1) predicted values, from the samples' still views."""
        features = self.encoder(card_of(self.encoder).form.still(samples.to(self.device)))
        found: Tensor = self.head(features.float())
        return found[:, None]
