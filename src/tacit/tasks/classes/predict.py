"""A row for each sample: its class, how sure that is, and the probability of every class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tacit.data.names import spelled
from tacit.data.source import UNLABELLED, Source
from tacit.errors import UsageError, escaped
from tacit.evaluation.features import feature_batches
from tacit.tasks.base import Asked, Predictions
from tacit.tasks.classes.classifier import ClassCard, Classifier
from tacit.tasks.classes.grading import grade_classes
from tacit.tasks.tables import text_column, write_table


def write_classes(classifier: Classifier, source: Source, asked: Asked) -> Predictions:
    """Columns file, label (empty where unknown), predicted, confidence, and p_CLASS for each class.

    Raises:
        UsageError: labels of a class that the classifier does not know.
    """
    card, truth = classifier.card, _truth(source, classifier.card)
    kept: list[np.ndarray] = []

    def parts() -> Iterator[Any]:
        looks = feature_batches(classifier.probabilities, source, batch_size=asked.batch_size)
        for rows, values in looks:
            kept.append(values)
            yield _table(source, card.classes, rows, values, truth[rows])

    table = write_table(asked.out, parts())
    known = truth != UNLABELLED
    found = (truth[known], np.concatenate(kept)[known])
    grades = grade_classes(*found, card.classes) if known.any() else None
    if card.held_out:
        said = f"calibrated on {card.held_out} held-out labels (temperature {card.temperature:.2f})"
        return Predictions(asked.out, len(source), card, grades, (said,), table=table)
    note = "note: not calibrated, as the run has no held-out labels"
    return Predictions(asked.out, len(source), card, grades, notes=(note,), table=table)


def _truth(source: Source, card: ClassCard) -> np.ndarray:
    """(N,) labels as the classifier numbers them, -1 for unlabelled."""
    if source.spec.target != "class":  # masks that lie beside the pictures, for instance
        return np.full(len(source), UNLABELLED, np.int64)
    names = [spelled(name) for name in source.spec.classes]
    known = [spelled(name) for name in card.classes]
    strange = [name for name in names if name not in known]
    if strange:
        raise UsageError(
            f"the data have labels '{strange[0]}', which the run does not know (its classes are "
            f"{', '.join(card.classes[:8])}{', ...' if len(card.classes) > 8 else ''}): fix them, or pass "
            "--labels none"
        )
    number = np.array([known.index(name) for name in names] + [UNLABELLED], np.int64)
    return number[source.labels]  # -1 takes the last entry


def _table(
    source: Source, classes: tuple[str, ...], rows: slice, values: np.ndarray, truth: np.ndarray
) -> Any:
    import pyarrow as pa

    def names(numbers: np.ndarray) -> Iterator[str | None]:
        return (None if k == UNLABELLED else classes[k] for k in numbers.tolist())

    columns = {
        "file": text_column(source.names[rows]),
        "label": text_column(names(truth)),
        "predicted": text_column(names(values.argmax(1))),
        "confidence": pa.array(values.max(1), pa.float32()),
        **{f"p_{escaped(name)}": pa.array(values[:, k], pa.float32()) for k, name in enumerate(classes)},
    }
    return pa.table(columns)
