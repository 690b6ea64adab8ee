"""A classifier on disk: what stands on a run's encoder, its classes, and how it was calibrated."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional as F

from tacit.batch import Samples
from tacit.data.source import Source
from tacit.encoders.card import card_of
from tacit.encoders.zoo import load_encoder
from tacit.errors import TacitError, UsageError
from tacit.evaluation.calibration import PRIOR, fit_temperature
from tacit.evaluation.grading import grade
from tacit.evaluation.held_out import held_out_logits
from tacit.files import write_atomically
from tacit.methods.classification.base import SemiSupervised

WEIGHTS, CARD = "classifier.safetensors", "classifier.json"


@dataclass(slots=True)
class ClassifierCard:
    """Stands beside the weights as `classifier.json`.

    classes: names in the order of their numbers.
    temperature: logits are divided by it; fitted on the held-out labels, 1 where there are none.
    held_out: number of those labels. grades: how the classifier did on them.
    """

    classes: tuple[str, ...]
    temperature: float = 1.0
    held_out: int = 0
    grades: dict[str, Any] | None = None


@dataclass(slots=True)
class Classifier:
    """A learned classifier. weight: (K, D); bias: (K,)."""

    encoder: nn.Module
    weight: Tensor
    bias: Tensor
    card: ClassifierCard

    def to(self, device: torch.device | str) -> Classifier:
        """The same on `device`, in eval mode."""
        return Classifier(
            self.encoder.to(device).eval(), self.weight.to(device), self.bias.to(device), self.card
        )

    def probabilities(self, samples: Samples) -> Tensor:
        """(N, K) calibrated probabilities, from the samples' still views."""
        features = self.encoder(card_of(self.encoder).form.still(samples.to(self.weight.device)))
        return (F.linear(features.float(), self.weight, self.bias) / self.card.temperature).softmax(1)


def save_classifier(method: SemiSupervised, source: Source, held_out: np.ndarray, folder: Path) -> None:
    """Calibrate a finished method on its held-out labels, and write its classifier into `folder`."""
    device = next(method.parameters()).device
    linear = method.head[-1]  # type: ignore[index]  # dropout, then the linear layer
    state = {
        "weight": linear.weight.detach().cpu().contiguous(),
        "bias": linear.bias.detach().cpu().contiguous(),
    }
    classes = source.spec.classes or tuple(map(str, range(method.classes)))
    card = ClassifierCard(classes)
    if len(held_out):
        labels = torch.from_numpy(source.labels[held_out])
        logits = held_out_logits(method, source, held_out, device)
        card.temperature, card.held_out = fit_temperature(logits, labels, prior=PRIOR), len(held_out)
        probability = (logits / card.temperature).softmax(1)
        card.grades = {
            name: None if value != value else value  # NaN, which JSON does not have
            for name, value in asdict(grade(labels.numpy(), probability.numpy())).items()
        }
    write_atomically(folder / WEIGHTS, save(state))
    write_atomically(folder / CARD, json.dumps(asdict(card), indent=2).encode())


def load_classifier(folder: Path) -> Classifier:
    """The classifier of a run.

    Raises:
        UsageError: no run, one that has not finished, or one that learned no labels.
        TacitError: its files are damaged.
    """
    encoder = load_encoder(folder)
    if not (folder / CARD).is_file():
        raise UsageError(
            f"'{folder}' holds no classifier: its method learned no labels. A semi-supervised method can, on "
            f"this encoder: tacit fit fixmatch --encoder run:{folder} --data LABELLED"
        )
    try:
        card = json.loads((folder / CARD).read_text())
        known = {key: value for key, value in card.items() if key in ClassifierCard.__slots__}
        state = load((folder / WEIGHTS).read_bytes())
        made = ClassifierCard(**{**known, "classes": tuple(known["classes"])})
        return Classifier(encoder, state["weight"], state["bias"], made)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise TacitError(f"the classifier in {folder} is damaged: {error}") from None
