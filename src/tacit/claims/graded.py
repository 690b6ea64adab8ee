"""One run of a method that learns labels, and its floors, graded on a test split: what curves repeat."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from tacit.data.source import Source
from tacit.evaluation.classifier import load_classifier
from tacit.evaluation.features import extract
from tacit.evaluation.floors import class_floors
from tacit.evaluation.grading import grade
from tacit.training.fit import fit
from tacit.training.ingredients import encoder_side, start_encoder
from tacit.training.summary import Summary
from tacit.training.teaching import budget_of


def graded_run(
    method: str,
    source: Source,
    *,
    per_class: int,
    seed: int,
    steps: int,
    batch_size: int,
    options: Mapping[str, Any],
    encoder: str = "tacit/convnet",
    schedule: str = "cosine 7/16",
    **arguments: Any,
) -> dict[str, Any]:
    """Learn from `per_class` labels of each class of the split `train`, and grade the split `test`.

    steps: optimiser steps, to whole passes over the unlabelled samples. The last step is graded. The draw
    of the labels depends on `seed` and `per_class` alone. arguments: as `fit` takes them.

    Returns:
        What `grade` measures, by name, and `labels`, the number that was learned from.
    """
    per_epoch = max(1, len(source.splits["train"]) // batch_size)
    with tempfile.TemporaryDirectory() as place:
        run = fit(
            method,
            source,
            out=Path(place) / "run",
            encoder=encoder,
            options=options,
            labels_per_class=per_class,
            epochs=max(1, round(steps / per_epoch)),
            batch_size=batch_size,
            schedule=schedule,  # type: ignore[arg-type]  # checked by the recipe
            seed=seed,
            quiet=True,
            **arguments,
        )
        classifier = load_classifier(run.folder).to("cpu")
        learned = run.settings()["record"]["labels"]["learned"]
        summary = Summary.load(run.folder)
    test = source.splits["test"]
    probability = extract(classifier.probabilities, source, test)
    kept = {"kept": summary.kept, "warned": bool(summary.above)} if summary is not None else {}
    return {**asdict(grade(source.labels[test], probability)), "labels": sum(learned.values()), **kept}


def graded_floors(
    source: Source,
    *,
    per_class: int,
    seed: int,
    encoder: str = "tacit/convnet",
    size: int | None = None,
    device: str = "cpu",
) -> dict[str, dict[str, Any]]:
    """What the labels of `graded_run` with this seed and budget give without learning, by name of the floor.

    encoder: the one that the runs begin with, as they make it.
    """
    arguments = {
        **{"encoder": encoder, "size": size, "small_input": None, "seed": seed},
        **{"label_fraction": None, "held_out": None, "labels_per_class": per_class},
    }
    train, test = source.splits["train"], source.splits["test"]
    budget = budget_of(arguments, source, train)
    side = encoder_side(encoder, size, source)
    start = start_encoder(arguments, source.subset(budget.pool), side)
    found = class_floors(source, budget.labelled, test, start, device)
    classes = len(source.spec.classes) or int(source.labels.max()) + 1
    certain = np.eye(classes)
    return {
        floor.name: {
            **asdict(grade(source.labels[test], certain[floor.predicted])),
            "labels": len(budget.labelled),
        }
        for floor in found
    }
