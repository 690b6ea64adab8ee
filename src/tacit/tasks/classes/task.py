"""Labels that are classes: one of K for each sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from tacit.data.budget import HELD_OUT, Budget, draw_budget
from tacit.data.source import Source
from tacit.encoders.card import card_of
from tacit.errors import UsageError
from tacit.evaluation.features import extract
from tacit.files import without_nan
from tacit.rng import Rng
from tacit.tasks.base import Asked, Labels, Network, Predictions, Task, Taught
from tacit.tasks.classes.calibration import PRIOR, fit_temperature
from tacit.tasks.classes.classifier import ClassCard, Classifier
from tacit.tasks.classes.floors import class_floors
from tacit.tasks.classes.grading import grade_classes
from tacit.tasks.classes.online import HeldOutProbe
from tacit.tasks.classes.predict import write_classes
from tacit.tasks.classes.probe import PROBING
from tacit.tasks.held_out import network_outputs
from tacit.tasks.predictor import Predictor, load_head
from tacit.tasks.probing import Probing
from tacit.tasks.tables import check_table


class Classes(Task):
    """One of K classes for each sample; graded by balanced accuracy."""

    target: ClassVar[str] = "class"
    plural: ClassVar[str] = "classes"
    score: ClassVar[str] = "balanced_accuracy"
    measures: ClassVar[Mapping[str, str]] = {
        "balanced_accuracy": "balanced accuracy in %",
        "kappa": "kappa",
        "mae": "MAE",
        "ece": "ECE",
    }
    amount: ClassVar[str] = "labels_per_class"
    counted: ClassVar[str] = "labels per class"
    words: ClassVar[tuple[str, ...]] = ("labels", "label_column")
    rivals: ClassVar[tuple[str, ...]] = ("fixmatch", "mean-teacher")
    budgets: ClassVar[tuple[int, ...]] = (5, 20, 80)
    probing: ClassVar[Probing | None] = PROBING

    def check(self, source: Source, slug: str) -> None:
        """Refuse labels of another kind; of data without any, `draw` says what is missing."""
        if source.spec.target != self.target:
            raise UsageError(
                f"{slug} learns classes, and the labels of these data are {source.spec.target}s: choose a "
                "method that learns those (tacit methods), or name classes with --labels CSV"
            )

    def draw(
        self, source: Source, train: np.ndarray, labels: Labels, rng: Rng, validation: np.ndarray | None
    ) -> Budget:
        """So many labels of each class."""
        return draw_budget(
            source.labels,
            train,
            rng,
            per_class=labels.labels_per_class,
            fraction=labels.label_fraction,
            held_out=HELD_OUT if labels.held_out is None else labels.held_out,
            validation=validation,
            groups=source.groups,
            classes=source.spec.classes,
        )

    def count(self, source: Source, positions: np.ndarray) -> dict[str, int]:
        """Labels of each class, by its name."""
        labels, names = source.labels[positions], source.spec.classes
        return {names[c] if names else str(c): int((labels == c).sum()) for c in np.unique(labels).tolist()}

    def doubts(self, source: Source, budget: Budget) -> list[str]:
        """Held-out labels of some classes only are too few to choose by."""
        held, learned = (np.unique(source.labels[part]) for part in (budget.held_out, budget.labelled))
        if not 0 < len(held) < len(learned):
            return []
        return [
            f"held-out labels are of {len(held)} of {len(learned)} classes: what is kept and how sure it is "
            "are judged by these alone; pass a larger --held-out"
        ]

    def watch(
        self,
        source: Source,
        train: np.ndarray,
        rng: Rng,
        method: Taught,
        *,
        learned: np.ndarray,
        held_out: np.ndarray,
    ) -> HeldOutProbe:
        """Balanced accuracy on held-out labels, health, and both modes of BatchNorm."""
        return HeldOutProbe(source, train, rng, held_out, learned, method)

    def floors(
        self,
        source: Source,
        learned: np.ndarray,
        test: np.ndarray,
        encoder: nn.Module,
        device: torch.device | str,
    ) -> dict[str, dict[str, Any]]:
        """The most frequent class, and logistic regression on pixels and on the frozen encoder."""
        classes = source.spec.classes or tuple(map(str, range(int(source.labels.max()) + 1)))
        certain = np.eye(len(classes))
        found = class_floors(source, learned, test, encoder, device)
        return {
            f.name: asdict(grade_classes(source.labels[test], certain[f.predicted], classes)) for f in found
        }

    def calibrate(self, network: Network, source: Source, held_out: np.ndarray) -> Classifier:
        """Temperature scaling on the held-out labels."""
        linear = cast(
            nn.Linear, network.head[-1] if isinstance(network.head, nn.Sequential) else network.head
        )
        classes = source.spec.classes or tuple(map(str, range(linear.out_features)))
        card = ClassCard(classes=classes)
        if len(held_out):
            labels = torch.from_numpy(source.labels[held_out])
            logits = network_outputs(network, source, held_out, next(linear.parameters()).device)
            card.temperature, card.held_out = fit_temperature(logits, labels, prior=PRIOR), len(held_out)
            probability = (logits / card.temperature).softmax(1)
            card.grades = without_nan(asdict(grade_classes(labels.numpy(), probability.numpy(), classes)))
        return Classifier(network.encoder, linear, card)

    def restore(self, encoder: nn.Module, card: Mapping[str, Any], state: Mapping[str, Tensor]) -> Classifier:
        """From what was saved."""
        known = ClassCard.from_json(card)
        features = card_of(encoder).num_features
        return Classifier(encoder, load_head(lambda: nn.Linear(features, len(known.classes)), state), known)

    def grade(
        self, predictor: Predictor, source: Source, positions: np.ndarray, device: torch.device | str
    ) -> dict[str, Any]:
        """Balanced accuracy, accuracy, F1, calibration and the like."""
        classifier = cast(Classifier, predictor).to(device)
        probability = extract(classifier.probabilities, source, positions)
        return asdict(grade_classes(source.labels[positions], probability, classifier.card.classes))

    def check_out(self, asked: Asked) -> None:
        """A .csv or .parquet file."""
        check_table(asked)

    def write(
        self, predictor: Predictor, source: Source, asked: Asked, device: torch.device | str
    ) -> Predictions:
        """A table with a row per sample."""
        return write_classes(cast(Classifier, predictor).to(device), source, asked)


TASK = Classes()
