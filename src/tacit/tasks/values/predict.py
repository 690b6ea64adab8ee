"""A row for each sample: its value, and the interval that it lies in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tacit.data.source import Source
from tacit.evaluation.features import feature_batches
from tacit.tasks.base import Asked, Predictions
from tacit.tasks.tables import text_column, write_table
from tacit.tasks.values.grading import grade_values
from tacit.tasks.values.regressor import Regressor, ValueCard


def write_values(regressor: Regressor, source: Source, asked: Asked) -> Predictions:
    """Columns file, value (empty where unknown), predicted, low and high.

    low and high are the ends of the interval, empty where the run held out too few values for one.
    """
    card = regressor.card
    truth = np.full(len(source), np.nan) if source.values is None else source.values
    kept: list[np.ndarray] = []

    def parts() -> Iterator[Any]:
        for rows, found in feature_batches(regressor.values, source, batch_size=asked.batch_size):
            kept.append(found[:, 0])
            yield _table(source, rows, truth[rows], found[:, 0].astype(np.float64), card.width)

    table = write_table(asked.out, parts())
    known = np.flatnonzero(~np.isnan(truth))
    grades = None
    if len(known):
        groups = None if source.groups is None else source.groups[known]
        grades = grade_values(truth[known], np.concatenate(kept)[known], groups=groups)
    said, notes = _words(card)
    return Predictions(asked.out, len(source), card, grades, said, notes, table=table)


def _words(card: ValueCard) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What is said of the interval, and what is noted of its absence."""
    if card.width is None:
        return (), (f"note: no interval, because {card.reason}",)
    like = "values like the" if card.count == card.held_out else "values of groups like the"
    return (
        f"interval: predicted +- {card.width:.4g} covers {100 * card.coverage:g} % of {like} "
        f"{card.count} held-out ones",
    ), ()


def _table(source: Source, rows: slice, truth: np.ndarray, predicted: np.ndarray, width: float | None) -> Any:
    import pyarrow as pa

    def ends(sign: int) -> Any:
        if width is None:
            return pa.nulls(len(predicted), pa.float32())
        return pa.array(predicted + sign * width, pa.float32())

    columns = {
        "file": text_column(source.names[rows]),
        "value": pa.array(truth, pa.float64(), from_pandas=True),  # NaN becomes empty
        "predicted": pa.array(predicted, pa.float32()),
        "low": ends(-1),
        "high": ends(1),
    }
    return pa.table(columns)
