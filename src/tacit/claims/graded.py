"""One run of a method that learns labels, graded on a test split: what curves and claims repeat."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tacit.data.source import Source
from tacit.evaluation.classifier import load_classifier
from tacit.evaluation.features import extract
from tacit.evaluation.grading import grade
from tacit.training.fit import fit


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
    test = source.splits["test"]
    probability = extract(classifier.probabilities, source, test)
    return {**asdict(grade(source.labels[test], probability)), "labels": sum(learned.values())}
