"""A classifier: a linear layer on an encoder, its classes, and how it was calibrated."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tacit.batch import Samples
from tacit.encoders.card import card_of
from tacit.tasks.predictor import Predictor, PredictorCard, check_classes, check_number


@dataclass(slots=True, kw_only=True)
class ClassCard(PredictorCard):
    """What is known of a classifier.

    classes: names in the order of their numbers.
    temperature: logits are divided by it; fitted on the held-out labels, 1 where there are none.
    """

    classes: tuple[str, ...]
    temperature: float = 1.0

    def check(self) -> None:
        """The classes and the temperature, too."""
        PredictorCard.check(self)
        check_classes(self.classes)
        check_number("temperature", self.temperature, _plausible, "a number from 0.001 to 1,000")


def _plausible(temperature: float) -> bool:
    """Whether dividing logits by it leaves numbers; calibration gives 0.05 to 20."""
    return 1e-3 <= temperature <= 1e3


class Classifier(Predictor):
    """A learned classifier. head: a linear layer."""

    card: ClassCard

    def probabilities(self, samples: Samples) -> Tensor:
        """(N, K) calibrated probabilities, from the samples' still views."""
        features = self.encoder(card_of(self.encoder).form.still(samples.to(self.device)))
        return (self.head(features.float()) / self.card.temperature).softmax(1)
