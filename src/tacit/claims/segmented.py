"""One run of a method that learns masks, graded on test volumes: what claims repeat."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tacit.data.source import Source
from tacit.data.volume.form import VolumeForm
from tacit.encoders.card import card_of
from tacit.evaluation.segmentation import grade_masks, mean_of_known
from tacit.evaluation.segmenter import load_segmenter, predicted_pairs
from tacit.training.fit import fit


def segmented_run(
    method: str,
    source: Source,
    *,
    labelled: int,
    seed: int,
    steps: int,
    batch_size: int,
    options: Mapping[str, Any],
    **arguments: Any,
) -> dict[str, Any]:
    """Learn from `labelled` masks of the split `train`, and grade the split `test`.

    steps: optimiser steps, to whole passes over the unlabelled volumes. The last step is graded. The draw of
    the labelled volumes depends on `seed` and `labelled` alone. arguments: as `fit` takes them.

    Returns:
        dice, jaccard, hd95 (mm), asd (mm): means over classes; dice_cases: per test volume, mean over
        classes;
        not_found: masks of a class that is there and was not found.
    """
    per_epoch = max(1, len(source.splits["train"]) // batch_size)
    with tempfile.TemporaryDirectory() as place:
        run = fit(
            method,
            source,
            out=Path(place) / "run",
            options=options,
            labelled=labelled,
            epochs=max(1, round(steps / per_epoch)),
            batch_size=batch_size,
            seed=seed,
            quiet=True,
            held_out=0.0,
            device="cpu",
            **arguments,
        )
        segmenter = load_segmenter(run.folder).to("cpu")
    patch = VolumeForm.of(card_of(segmenter.encoder).form).patch
    pairs = predicted_pairs(segmenter.predict, source, source.splits["test"], patch, "cpu")
    grades = grade_masks(pairs, segmenter.card.classes)
    return {
        **{name: grades.mean(name) for name in ("dice", "jaccard", "hd95", "asd")},
        "dice_classes": dict(zip(grades.classes, grades.dice, strict=True)),
        "dice_cases": [mean_of_known(each.dice for each in case) for case in grades.cases],
        "not_found": sum(each.prediction for each in grades.empty),
    }
