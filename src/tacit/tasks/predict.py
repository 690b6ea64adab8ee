"""Predictions for files: a class with a calibrated confidence, a mask, or a value."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

from tacit.data.memory import Data, taken
from tacit.data.open import open_source
from tacit.data.splits import Folders
from tacit.data.understood import say
from tacit.errors import UsageError
from tacit.evaluation.subject import OnBadFile, open_for, pick_device
from tacit.tasks.base import Asked, Predictions, Task
from tacit.tasks.predictor import nothing_learned, read_predictor
from tacit.tasks.registry import all_tasks, load_predictor, task_of


def predict(
    run: str | os.PathLike[str],
    data: Data,
    out: str | os.PathLike[str] | None = None,
    *,
    labels: str | Any | None = None,
    label_column: str | None = None,
    file_column: str | None = None,
    masks: str | None = None,
    values: str | None = None,
    column: str | None = None,
    folders: Folders | None = None,
    on_bad_file: OnBadFile = "stop",
    cache: str | None = None,
    batch_size: int = 256,
    overlap: float | None = None,
    device: str = "auto",
    quiet: bool = False,
) -> Predictions:
    """Write what a run has learned to say of each sample, and grade it where labels are known.

    Of a run that learned classes: the class, the confidence in it, which is the largest probability, and the
    probability of every class, calibrated on the run's held-out labels (temperature scaling). Of one that
    learned masks: a mask for each sample (.nii.gz with the volume's affine and orientation, or .png of the
    picture's size) and a table, with a row per sample, of what each class measures (ml or pixels), the mean
    confidence of what is not background, and Dice where the true mask is known. Of one that learned values:
    the value, and an interval that covers 90 % of values like the held-out ones.

    Args:
        run: the folder of a run that learned labels.
        data: as the run learned from (a folder, a MedMNIST-style .npz, hf:NAME, ...).
        out: the file to write, .csv or .parquet; of a run that learned masks a folder. In Python it may be
            left out for a table in memory.
        labels: a CSV of file names and classes; "none" leaves all labels aside.
        label_column: of the classes, in this CSV.
        file_column: of the files, in a CSV of classes or values; default: the one that names the samples.
        masks: folder of true masks, where they do not lie beside the samples.
        values: a CSV of file names and true values.
        column: of the values, in this CSV.
        folders: whether folders of the first level are classes or splits, where their names leave it open.
        on_bad_file: whether the first unusable file stops, or is skipped and counted.
        cache: where decoded files are kept.
        batch_size: samples at once.
        overlap: of neighbouring windows of a volume along each axis, from 0 to below 1; default 0.5.
        device: auto, cpu, cuda, cuda:1, mps.
        quiet: do not say what was understood of the data.

    Returns:
        The file or folder, and grades where labels are known.

    Raises:
        UsageError: no such run or data, a run that learned no labels, labels that it does not know, or a
            place that cannot be written.
    """
    task = _task(Path(run))
    data, labels = taken(data, labels)
    given: dict[str, Any] = {"masks": masks, "values": values, "column": column, "overlap": overlap}
    given |= {"label_column": label_column, "file_column": file_column}
    _refuse_others(task, {name for name, value in given.items() if value is not None}, run)
    if labels not in (None, "none") and "labels" not in task.words:
        raise UsageError(
            f"--labels are of classes, and the run learned {task.plural}: name true {task.plural} with "
            f"--{task.plural}"
        )
    where = tuple(Path(place) for place in (data, masks) if isinstance(place, str | os.PathLike))
    asked = Asked(None if out is None else Path(out), where, batch_size, overlap)
    task.check_out(asked)
    predictor = load_predictor(Path(run))
    opening = {name: value for name, value in given.items() if value is not None and name != "overlap"}
    source = open_for(
        predictor.encoder,
        partial(
            open_source, data, labels=labels, folders=folders, on_bad_file=on_bad_file, cache=cache, **opening
        ),
    )
    if not quiet:
        say(source)
    return task.write(predictor, source, asked, pick_device(device))


def _task(folder: Path) -> Task:
    found = read_predictor(folder)
    if found is None:
        load_predictor(folder)  # says whether there is a run at all
        raise nothing_learned(folder)
    return task_of(found[0])


def _refuse_others(task: Task, given: set[str], run: str | os.PathLike[str]) -> None:
    """Refuse what only runs with other labels take."""
    for other in all_tasks().values():
        for name in other.words:
            if name in given and name not in task.words:
                word = name.replace("_", "-")
                raise UsageError(
                    f"--{word} is for runs that learned {other.plural}, and '{run}' learned none"
                )
