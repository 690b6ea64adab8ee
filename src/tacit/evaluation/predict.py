"""Predictions for files: a class with a calibrated confidence, or a mask for each volume."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tacit.data.open import open_source
from tacit.data.source import UNLABELLED, Source
from tacit.errors import UsageError, unknown
from tacit.evaluation.classifier import Classifier, ClassifierCard, load_classifier
from tacit.evaluation.features import feature_batches
from tacit.evaluation.grading import Grades, grade
from tacit.evaluation.predict_masks import MaskPredictions, predict_masks
from tacit.evaluation.segmenter import CARD as SEGMENTER
from tacit.evaluation.segmenter import OVERLAP
from tacit.evaluation.subject import OnBadFile, open_for, pick_device
from tacit.files import replacing

_ENDINGS = (".csv", ".parquet")


@dataclass(frozen=True, slots=True)
class Predictions:
    """What `predict` did.

    path: the file written. card: the classifier's. grades: where the data have labels, how it did on them.
    """

    path: Path
    samples: int
    card: ClassifierCard
    grades: Grades | None


def predict(
    run: str | os.PathLike[str],
    data: str | os.PathLike[str] | Source,
    out: str | os.PathLike[str],
    *,
    labels: str | None = None,
    masks: str | None = None,
    on_bad_file: OnBadFile = "stop",
    cache: str | None = None,
    batch_size: int = 256,
    overlap: float | None = None,
    device: str = "auto",
) -> Predictions | MaskPredictions:
    """Write what a run's classifier or segmenter says of each sample.

    Of a classifier: the class, the confidence in it, which is the largest probability, and the probability of
    every class. Probabilities are calibrated on the run's held-out labels (temperature scaling); a run
    without such labels gives them as they are. Of a segmenter: a mask for each volume (.nii.gz, with the
    volume's affine and orientation) and a table of millilitres per class; see `predict_masks`.

    Args:
        run: the folder of a run that learned labels or masks.
        data: images (a folder, a MedMNIST-style .npz, hf:NAME, ...) or volumes, as the run learned from.
        out: the file to write, .csv or .parquet, with the columns file, label (empty where unknown),
            predicted, confidence, and p_CLASS for each class; of a run that learned masks a folder.
        labels: a CSV of file names and labels; where labels are known, the predictions are graded.
        masks: folder of true masks, where they do not lie beside the volumes; then masks are graded.
        on_bad_file: whether the first unusable file stops, or is skipped and counted.
        cache: where decoded images are kept.
        batch_size: images at once.
        overlap: of neighbouring windows of a volume along each axis, from 0 to below 1; default 0.5.
        device: auto, cpu, cuda, cuda:1, mps.

    Returns:
        The file, and grades where labels are known.

    Raises:
        UsageError: no such run or data, a run that learned no labels, labels of a class that it does not
            know, or another ending of `out`.
    """
    if (Path(run) / SEGMENTER).is_file():
        if labels not in (None, "none"):
            raise UsageError(
                "--labels are of classes, and the run learned masks: name true masks with --masks"
            )
        overlap = OVERLAP if overlap is None else overlap
        return predict_masks(
            run,
            data,
            out,
            labels=labels,
            masks=masks,
            on_bad_file=on_bad_file,
            cache=cache,
            overlap=overlap,
            device=device,
        )
    for name, value in (("masks", masks), ("overlap", overlap)):
        if value is not None:
            raise UsageError(f"--{name} is for runs that learned masks, and '{run}' learned none")
    target = Path(out)
    if target.suffix not in _ENDINGS:
        raise unknown("ending of --out", target.suffix or str(target), _ENDINGS)
    if target.is_dir():
        raise UsageError(f"--out {target} is a folder; name a file")
    if batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, not {batch_size}")
    classifier = load_classifier(Path(run))
    source = open_for(
        classifier.encoder,
        partial(open_source, data, labels=labels, on_bad_file=on_bad_file, cache=cache),
    )
    truth = _truth(source, classifier.card)
    classifier = classifier.to(pick_device(device))
    probability = _write(target, source, classifier, truth, batch_size)
    known = truth != UNLABELLED
    grades = grade(truth[known], probability[known]) if known.any() else None
    return Predictions(target, len(source), classifier.card, grades)


def _truth(source: Source, card: ClassifierCard) -> np.ndarray:
    """(N,) labels as the classifier numbers them, -1 for unlabelled."""
    names = source.spec.classes
    strange = [name for name in names if name not in card.classes]
    if strange:
        raise UsageError(
            f"the data have labels '{strange[0]}', which the run does not know (its classes are "
            f"{', '.join(card.classes[:8])}{', ...' if len(card.classes) > 8 else ''}): fix them, or pass "
            "--labels none"
        )
    number = np.array([card.classes.index(name) for name in names] + [UNLABELLED], np.int64)
    return number[source.labels]  # -1 takes the last entry


def _write(
    target: Path, source: Source, classifier: Classifier, truth: np.ndarray, batch_size: int
) -> np.ndarray:
    """The table, batch by batch; (N, K) probabilities."""
    classes, kept = classifier.card.classes, []
    with replacing(target) as file:
        writer: Any = None
        for rows, values in feature_batches(classifier.probabilities, source, batch_size=batch_size):
            kept.append(values)
            table = _table(source, classes, rows, values, truth[rows])
            writer = writer or _writer(target.suffix, file, table.schema)
            writer.write(table)
        if writer is not None:
            writer.close()
    return np.concatenate(kept) if kept else np.empty((0, len(classes)), np.float32)


def _table(
    source: Source, classes: tuple[str, ...], rows: slice, values: np.ndarray, truth: np.ndarray
) -> Any:
    import pyarrow as pa

    def names(numbers: np.ndarray) -> Iterator[str | None]:
        return (None if k == UNLABELLED else classes[k] for k in numbers.tolist())

    columns = {
        "file": pa.array(source.names[rows], pa.string()),
        "label": pa.array(names(truth), pa.string()),
        "predicted": pa.array(names(values.argmax(1)), pa.string()),
        "confidence": pa.array(values.max(1), pa.float32()),
        **{f"p_{name}": pa.array(values[:, k], pa.float32()) for k, name in enumerate(classes)},
    }
    return pa.table(columns)


def _writer(ending: str, file: Any, schema: Any) -> Any:
    if ending == ".parquet":
        from pyarrow.parquet import ParquetWriter

        return ParquetWriter(file, schema)
    from pyarrow.csv import CSVWriter, WriteOptions

    return CSVWriter(file, schema, write_options=WriteOptions(quoting_style="needed"))
