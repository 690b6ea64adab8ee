"""The labels of a run: which ones are learned from, which ones are held out, and which ones nobody sees."""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from tacit.data.budget import HELD_OUT, draw_budget
from tacit.data.source import UNLABELLED, Source
from tacit.errors import UsageError
from tacit.methods.base import Method
from tacit.methods.recipe import Recipe
from tacit.rng import Rng
from tacit.training.loader import Labelled

_OPTIONS = ("labels_per_class", "label_fraction", "held_out", "groups", "mu")


@dataclass(frozen=True, slots=True)
class Teaching:
    """What a method that learns labels gets.

    whole: the data; samples beyond the budget have lost their labels, so that nothing can look at them.
    pool: the part that is learned from, with and without labels.
    labelled: the stream of labelled samples, by their positions in the pool.
    held_out: positions of the whole whose labels calibrate and validate.
    record: the numbers of labels, and a digest of them, for run.yaml.
    """

    whole: Source
    pool: Source
    labelled: Labelled
    held_out: np.ndarray
    record: dict[str, Any]


def teach(arguments: Mapping[str, Any], recipe: Recipe, whole: Source, train: np.ndarray) -> Teaching:
    """Draw the labels of a run.

    Raises:
        UsageError: too few labels or classes, or a budget that is none.
    """
    held_out = arguments["held_out"]
    budget = draw_budget(
        whole.labels,
        train,
        Rng.of(arguments["seed"])("budget"),
        per_class=arguments["labels_per_class"],
        fraction=arguments["label_fraction"],
        held_out=HELD_OUT if held_out is None else held_out,
        validation=whole.splits.get("val") if "train" in whole.splits else None,
        groups=whole.groups,
        classes=whole.spec.classes,
    )
    if not arguments["quiet"]:
        for note in budget.notes:
            print(f"note: {note}", file=sys.stderr)
    seen = copy.copy(whole)
    seen.labels = np.full(len(whole), UNLABELLED, np.int64)
    for part in (budget.labelled, budget.held_out):
        seen.labels[part] = whole.labels[part]
    return Teaching(
        whole=seen,
        pool=seen.subset(budget.pool),
        labelled=Labelled(np.searchsorted(budget.pool, budget.labelled), _labelled_batch(arguments, recipe)),
        held_out=budget.held_out,
        record={
            "learned": _counts(whole, budget.labelled),
            "held_out": _counts(whole, budget.held_out),
            "unlabelled": len(budget.pool) - len(budget.labelled),
            "digest": blake2b(seen.labels.tobytes() + budget.pool.tobytes(), digest_size=8).hexdigest(),
        },
    )


def refuse_label_options(arguments: Mapping[str, Any], learns: type[Method]) -> None:
    """A method without labels has no use for a budget."""
    given = [name for name in _OPTIONS if arguments[name] is not None]
    if given and not learns.learns_labels:
        raise UsageError(
            f"{arguments['method']} learns no labels, so --{given[0].replace('_', '-')} means nothing to it: "
            "leave it out, or choose a semi-supervised method (tacit methods)"
        )


def _labelled_batch(arguments: Mapping[str, Any], recipe: Recipe) -> int:
    """Labelled samples of a step: batch_size / mu, and one at least for each process and part."""
    parts = arguments["accumulate"] * arguments["devices"]
    return max(1, round(recipe.batch_size / recipe.mu / parts)) * parts


def _counts(source: Source, positions: np.ndarray) -> dict[str, int]:
    labels = source.labels[positions]
    names = source.spec.classes
    return {names[c] if names else str(c): int((labels == c).sum()) for c in np.unique(labels).tolist()}
