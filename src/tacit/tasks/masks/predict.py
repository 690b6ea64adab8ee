"""Masks in the samples' own geometry, and a table of what was found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from tacit.data.canvas import OVERLAP, Canvas, Grid
from tacit.data.lookup import stem_of
from tacit.data.source import UNLABELLED, Source
from tacit.errors import TacitError, UsageError, escaped
from tacit.files import csv_line, expanded, write_atomically
from tacit.locks import owning
from tacit.tasks.base import Asked, Predictions
from tacit.tasks.masks.grading import grade_masks
from tacit.tasks.masks.numbering import Numbering, numbering
from tacit.tasks.masks.segmenter import Segmenter, canvas_of

Pair = tuple[np.ndarray, np.ndarray, Grid]
Rows = list[dict[str, Any]]


def check_folder(asked: Asked) -> None:
    """Refuse what is no folder, before anything is opened.

    Raises:
        UsageError: a file, or an overlap that windows cannot have.
    """
    if asked.folder.exists() and not asked.folder.is_dir():
        raise UsageError(f"--out {asked.folder} is a file; masks go into a folder")
    if asked.overlap is not None and not 0 <= asked.overlap < 1:
        raise UsageError(f"overlap must lie in [0, 1), not {asked.overlap}")


def table_name(source: Source) -> str:
    """Of the table beside the masks: volumes.csv, images.csv."""
    return f"{source.spec.modality}s.csv"


def write_masks(segmenter: Segmenter, source: Source, asked: Asked) -> Predictions:
    """A mask for each sample, and a table of them.

    The table has a row per sample: its file, the mask's, how much of each class was found (ml or pixels), the
    mean confidence where it is not background, and Dice where the true mask is known.

    Raises:
        UsageError: masks of unknown classes, a mask would replace a sample, or another process writes to the
            folder.
    """
    numbers, note = _numbering(source, segmenter)
    with owning(asked.folder):
        return _write_folder(segmenter, source, asked, numbers, note)


def _write_folder(
    segmenter: Segmenter, source: Source, asked: Asked, numbers: np.ndarray, note: str
) -> Predictions:
    """The masks and the table, in a folder that nothing else writes to."""
    _check_targets(segmenter, source, asked)
    rows: Rows = []
    table = table_name(source)
    unit = canvas_of(segmenter.encoder, source, 0).unit if len(source) else ""
    pairs = _write_all(segmenter, source, asked, rows, numbers)
    try:
        first = next(pairs, None)  # None once all masks are written and none is known
        graded = None if first is None else grade_masks(chain([first], pairs), segmenter.card.classes)
    except BaseException:
        with suppress(TacitError):  # of the masks that there are; the same command then replaces them
            _write_table(asked.folder / table, rows, segmenter.card.classes, unit)
        raise
    cases = graded.cases if graded else ()
    for row, case in zip((row for row in rows if row["known"]), cases, strict=True):
        named = zip(segmenter.card.classes[1:], case, strict=True)
        row |= {f"dice_{name}": _number(each.dice) for name, each in named}
    _write_table(asked.folder / table, rows, segmenter.card.classes, unit)
    notes = (f"note: {note}",) if note else ()
    return Predictions(asked.folder, len(source), segmenter.card, graded, (), notes, f"masks and {table}")


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.4f}"


def _numbering(source: Source, segmenter: Segmenter) -> Numbering:
    if source.spec.target != "mask":
        return Numbering(np.empty(0, np.int64))
    return numbering(source.spec.classes, segmenter.card.classes, source.mask_values)


def _check_targets(segmenter: Segmenter, source: Source, asked: Asked) -> None:
    """Refuse to put masks where a later run would take them as true, or over files of other origin."""
    folder, out = asked.folder, asked.folder.resolve()
    for place in asked.where:
        if out.is_relative_to(expanded(place).resolve()):
            raise UsageError(
                f"--out {folder} lies in {place}, where a later run would take predictions as true masks or "
                "new samples: choose a folder outside of it"
            )
    owners: dict[str, str] = {}
    again = (folder / table_name(source)).is_file()  # an earlier prediction, which may be replaced
    canvases = [canvas_of(segmenter.encoder, source, i) for i in range(len(source))]
    inputs = {canvas.origin.resolve() for canvas in canvases if canvas.origin is not None}
    for name, canvas in zip(source.names, canvases, strict=True):
        target = _target(name, canvas)
        if (other := owners.setdefault(target, name)) != name:
            raise UsageError(f"the masks of {other} and {name} would have one name: put them in two folders")
        path = folder / target
        if path.exists() and (not again or path.resolve() in inputs):
            raise UsageError(f"the mask of {name} would replace {path}: choose another --out")


def _write_all(
    segmenter: Segmenter, source: Source, asked: Asked, rows: Rows, numbers: np.ndarray
) -> Iterator[Pair]:
    """Writes each mask as soon as it is there; yields predicted, true, spacing where the mask is known.

    numbers: see `Numbering`.
    """
    overlap = OVERLAP if asked.overlap is None else asked.overlap
    for i, name in enumerate(source.names):
        canvas = canvas_of(segmenter.encoder, source, i)
        probability = segmenter.probabilities(canvas, overlap=overlap)
        confidence, mask = (each.numpy() for each in probability.max(0))
        target = _target(name, canvas)
        canvas.write(mask.astype(np.uint8), asked.folder / target)
        known = source.labels[i] != UNLABELLED and source.spec.target == "mask"
        measured = _measured(mask, confidence, canvas, segmenter.card.classes)
        rows.append({"known": known, "file": name, "mask": target, **measured})
        if known:
            yield mask, numbers[canvas.mask()], canvas.grid


def _target(name: str, canvas: Canvas) -> str:
    """The mask's path below the folder, for a sample of this name, as it stands in the table."""
    folder, slash, file = escaped(name).rpartition("/")
    return f"{folder}{slash}{stem_of(file)}{canvas.ending}"


def _measured(
    mask: np.ndarray, confidence: np.ndarray, canvas: Canvas, classes: tuple[str, ...]
) -> dict[str, str]:
    """How much of each class, and how sure."""
    counts = np.bincount(mask.ravel(), minlength=len(classes)) * canvas.element
    digits = 4 if canvas.element % 1 else 0
    found = confidence[mask > 0]
    return {
        **{f"{canvas.unit}_{c}": f"{counts[k]:.{digits}f}" for k, c in enumerate(classes) if k},
        "confidence": _number(found.mean()) if len(found) else "",
    }


def _write_table(path: Path, rows: Sequence[Mapping[str, Any]], classes: tuple[str, ...], unit: str) -> None:
    columns = ["file", "mask", *(f"{unit}_{c}" for c in classes[1:]), "confidence"]
    if any(row["known"] for row in rows):
        columns += [f"dice_{c}" for c in classes[1:]]
    lines = [csv_line(columns), *(csv_line(row.get(name) for name in columns) for row in rows)]
    write_atomically(path, "".join(lines))
