"""The labels of a run: which ones are learned from, which ones are held out, and which ones nobody sees."""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from tacit.data.budget import HELD_OUT, Budget, draw_budget, draw_masks
from tacit.data.source import UNLABELLED, Source
from tacit.errors import UsageError
from tacit.evaluation.batch_statistics import tracking_layers
from tacit.methods.base import Method
from tacit.methods.recipe import Recipe
from tacit.rng import Rng
from tacit.training.loader import Stream

_OPTIONS = ("labels_per_class", "labelled", "label_fraction", "held_out", "groups", "mu")


@dataclass(frozen=True, slots=True)
class Teaching:
    """What a method that learns labels gets.

    whole: the data; samples beyond the budget have lost their labels, so that nothing can look at them.
    pool: the part that is learned from, with and without labels.
    labelled: the stream of labelled samples, by their positions in the pool.
    learned: positions of the whole whose labels are learned from.
    held_out: positions of the whole whose labels calibrate and validate.
    record: the numbers of labels, and a digest of them, for run.yaml.
    """

    whole: Source
    pool: Source
    labelled: Stream
    learned: np.ndarray
    held_out: np.ndarray
    record: dict[str, Any]


def teach(arguments: Mapping[str, Any], recipe: Recipe, whole: Source, train: np.ndarray) -> Teaching:
    """Draw the labels of a run.

    Raises:
        UsageError: too few labels or classes, or an invalid budget.
    """
    budget = budget_of(arguments, whole, train)
    if not arguments["quiet"]:
        for note in (*budget.notes, *_held_out_notes(whole, budget)):
            print(f"note: {note}", file=sys.stderr)
    seen = copy.copy(whole)
    seen.labels = np.full(len(whole), UNLABELLED, np.int64)
    for part in (budget.labelled, budget.held_out):
        seen.labels[part] = whole.labels[part]
    return Teaching(
        whole=seen,
        pool=seen.subset(budget.pool),
        labelled=Stream(np.searchsorted(budget.pool, budget.labelled), _labelled_batch(arguments, recipe)),
        learned=budget.labelled,
        held_out=budget.held_out,
        record={
            "learned": _counts(whole, budget.labelled),
            "held_out": _counts(whole, budget.held_out),
            "unlabelled": len(budget.pool) - len(budget.labelled),
            "digest": blake2b(seen.labels.tobytes() + budget.pool.tobytes(), digest_size=8).hexdigest(),
        },
    )


def _held_out_notes(whole: Source, budget: Budget) -> list[str]:
    """What a user should know of held-out labels that are too few to choose by."""
    held, learned = (np.unique(whole.labels[part]) for part in (budget.held_out, budget.labelled))
    if whole.spec.target == "mask" or not 0 < len(held) < len(learned):
        return []
    return [
        f"held-out labels are of {len(held)} of {len(learned)} classes: what is kept and how sure it is are "
        "judged by these alone; pass a larger --held-out"
    ]


def check_batch(method: Method, labelled: Stream) -> str | None:
    """A warning where so few labelled samples pass at once that BatchNorm learns noise, else nothing.

    Raises:
        UsageError: a single one, which BatchNorm cannot be trained with.
    """
    if labelled.batch_size > 2 or method.modality != "image" or not tracking_layers(method):
        return None
    text = f"a step has {labelled.batch_size} labelled image{'s' * (labelled.batch_size > 1)}"
    mend = "pass a larger --batch-size, a smaller --mu, or an --encoder without BatchNorm"
    if labelled.batch_size == 1:
        raise UsageError(f"{text}, and BatchNorm needs two at least: {mend}")
    return f"{text}, by which BatchNorm normalises: {mend}"


def budget_of(arguments: Mapping[str, Any], whole: Source, train: np.ndarray) -> Budget:
    """Whose labels are learned from and held out: a function of the seed, the data and the budget.

    Raises:
        UsageError: too few labels or classes, or an invalid budget.
    """
    rng = Rng.of(arguments["seed"])("budget")
    common: dict[str, Any] = {
        "fraction": arguments["label_fraction"],
        "held_out": HELD_OUT if arguments["held_out"] is None else arguments["held_out"],
        "validation": whole.splits.get("val") if "train" in whole.splits else None,
        "groups": whole.groups,
    }
    if whole.spec.target == "mask":
        return draw_masks(whole.labels, train, rng, count=arguments["labelled"], **common)
    per_class, classes = arguments["labels_per_class"], whole.spec.classes
    return draw_budget(whole.labels, train, rng, per_class=per_class, classes=classes, **common)


def refuse_label_options(arguments: Mapping[str, Any], learns: type[Method]) -> None:
    """A method without labels has no use for a budget, nor one that learns masks for labels per class."""
    masks = learns.learns == "mask"
    other, use = ("labels_per_class", "labelled") if masks else ("labelled", "labels_per_class")
    if learns.learns is not None and arguments[other] is not None:
        kind = "masks" if masks else "classes"
        raise UsageError(
            f"{arguments['method']} learns {kind}, so --{other.replace('_', '-')} means nothing to it: pass "
            f"--{use.replace('_', '-')}"
        )
    given = [name for name in _OPTIONS if arguments[name] is not None]
    if given and learns.learns is None:
        raise UsageError(
            f"{arguments['method']} learns no labels, so --{given[0].replace('_', '-')} means nothing to it: "
            "leave it out, or choose a semi-supervised method (tacit methods)"
        )


def _labelled_batch(arguments: Mapping[str, Any], recipe: Recipe) -> int:
    """Labelled samples of a step: batch_size / mu, and one at least for each process and part."""
    parts = arguments["accumulate"] * arguments["devices"]
    return max(1, round(recipe.batch_size / recipe.mu / parts)) * parts


def _counts(source: Source, positions: np.ndarray) -> dict[str, int]:
    if source.spec.target == "mask":
        return {"masks": len(positions)}
    labels = source.labels[positions]
    names = source.spec.classes
    return {names[c] if names else str(c): int((labels == c).sum()) for c in np.unique(labels).tolist()}
