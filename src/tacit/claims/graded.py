"""One run of a method that learns labels, and its floors, graded on a test split: what curves repeat."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tacit.data.source import Source
from tacit.methods.registry import method_class
from tacit.tasks.base import Labels
from tacit.tasks.registry import load_predictor, task_of
from tacit.training.fit import fit
from tacit.training.ingredients import encoder_side, start_encoder
from tacit.training.options import Start
from tacit.training.summary import Summary
from tacit.training.teaching import budget_of


def graded_run(
    method: str,
    source: Source,
    *,
    labels: int,
    seed: int,
    steps: int,
    batch_size: int,
    options: Mapping[str, Any],
    device: str = "cpu",
    **arguments: Any,
) -> dict[str, Any]:
    """Learn from few labels of the split `train`, and grade the split `test`.

    labels: of each class, or masks or values in all. steps: optimiser steps, to whole passes over the
    unlabelled samples. The last step is graded. The draw of the labels depends on `seed` and `labels` alone.
    arguments: as `fit` takes them.

    Returns:
        What the task's `grade` measures, by name; `labels`, the number that was learned from; `kept`, the
        network; `warned`, whether the run said that it is below a floor; `unsure`, that it cannot tell.
    """
    task = task_of(str(method_class(method).learns))
    per_epoch = max(1, len(source.splits["train"]) // batch_size)
    with tempfile.TemporaryDirectory() as place:
        run = fit(
            method,
            source,
            out=Path(place) / "run",
            options=options,
            epochs=max(1, round(steps / per_epoch)),
            batch_size=batch_size,
            seed=seed,
            quiet=True,
            device=device,
            **{task.amount: labels, **arguments},
        )
        predictor = load_predictor(run.folder)
        learned = run.settings()["record"]["labels"]["learned"]
        summary = Summary.load(run.folder)
    found = task.grade(predictor, source, source.splits["test"], "cpu")
    kept: dict[str, Any] = {}
    if summary is not None:
        kept = {"kept": summary.kept, "warned": bool(summary.above), "unsure": bool(summary.unsure)}
    return {**found, "labels": sum(learned.values()), **kept}


def graded_floors(
    target: str,
    source: Source,
    *,
    labels: int,
    seed: int,
    encoder: str = "tacit/convnet",
    size: int | None = None,
    device: str = "cpu",
) -> dict[str, dict[str, Any]]:
    """What the labels of `graded_run` with this seed and budget give without learning, by name of the floor.

    target: kind of labels. encoder: the one that the runs begin with, as they make it.
    """
    task = task_of(target)
    train, test = source.splits["train"], source.splits["test"]
    budget = budget_of(Labels(**{task.amount: labels}), seed, task, source, train)
    side = encoder_side(encoder, size, source)
    start = start_encoder(Start(encoder=encoder), seed, source.subset(budget.pool), side)
    found = task.floors(source, budget.labelled, test, start, device)
    return {name: {**measured, "labels": len(budget.labelled)} for name, measured in found.items()}
