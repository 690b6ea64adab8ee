"""The labels of a run: which ones are learned from, which ones are held out, and which ones nobody sees."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from tacit.data.budget import Budget
from tacit.data.source import Source
from tacit.errors import UsageError
from tacit.evaluation.batch_statistics import tracking_layers
from tacit.methods.base import Method
from tacit.methods.recipe import Recipe
from tacit.rng import Rng
from tacit.tasks.base import Labels, Task
from tacit.tasks.registry import all_tasks, task_of
from tacit.training.loader import Stream
from tacit.training.options import Machine, Options

_OPTIONS = ("labels_per_class", "labelled", "label_fraction", "held_out", "mu")


@dataclass(frozen=True, slots=True)
class Teaching:
    """What a method that learns labels gets.

    task: for their kind.
    whole: the data; samples beyond the budget have lost their labels, so that nothing can look at them.
    pool: the part that is learned from, with and without labels.
    labelled: the stream of labelled samples, by their positions in the pool.
    learned: positions of the whole whose labels are learned from.
    held_out: positions of the whole whose labels calibrate and validate.
    record: the numbers of labels, and a digest of them, for run.yaml.
    """

    task: Task
    whole: Source
    pool: Source
    labelled: Stream
    learned: np.ndarray
    held_out: np.ndarray
    record: dict[str, Any]


def teach(options: Options, recipe: Recipe, task: Task, whole: Source, train: np.ndarray) -> Teaching:
    """Draw the labels of a run.

    Raises:
        UsageError: too few labels, or an invalid budget.
    """
    budget = budget_of(options.labels, options.machine.seed, task, whole, train)
    if not options.care.quiet:
        for note in (*budget.notes, *task.doubts(whole, budget)):
            print(f"note: {note}", file=sys.stderr)
    batch = _labelled_batch(options.machine, recipe)
    seen = whole.hiding(np.concatenate([budget.labelled, budget.held_out]))
    learned = seen.labels.tobytes() + (b"" if seen.values is None else seen.values.tobytes())
    return Teaching(
        task=task,
        whole=seen,
        pool=seen.subset(budget.pool),
        labelled=Stream(np.searchsorted(budget.pool, budget.labelled), batch),
        learned=budget.labelled,
        held_out=budget.held_out,
        record={
            "learned": task.count(whole, budget.labelled),
            "held_out": task.count(whole, budget.held_out),
            "unlabelled": len(budget.pool) - len(budget.labelled),
            "digest": blake2b(learned + budget.pool.tobytes(), digest_size=8).hexdigest(),
        },
    )


def check_batch(method: Method, labelled: Stream) -> str | None:
    """A warning where so few labelled samples pass at once that BatchNorm learns noise, else nothing.

    Raises:
        UsageError: a single one, which BatchNorm cannot be trained with.
    """
    dense = method.learns is not None and task_of(method.learns).dense  # a sample has many voxels
    if labelled.batch_size > 2 or dense or not tracking_layers(method):
        return None
    text = f"a step has {labelled.batch_size} labelled image{'s' * (labelled.batch_size > 1)}"
    mend = "pass a larger --batch-size, a smaller --mu, or an --encoder without BatchNorm"
    if labelled.batch_size == 1:
        raise UsageError(f"{text}, and BatchNorm needs two at least: {mend}")
    return f"{text}, by which BatchNorm normalises: {mend}"


def budget_of(labels: Labels, seed: int, task: Task, whole: Source, train: np.ndarray) -> Budget:
    """Whose labels are learned from and held out: a function of the seed, the data and the budget.

    Raises:
        UsageError: too few labels, or an invalid budget.
    """
    validation = whole.splits.get("val") if "train" in whole.splits else None
    return task.draw(whole, train, labels, Rng.of(seed)("budget"), validation)


def refuse_label_options(options: Options, learns: type[Method]) -> None:
    """Refuse a budget for a method without labels, and one that counts labels of another kind."""
    slug, words = options.method, options.words()
    given = [name for name in _OPTIONS if words[name] is not None]
    if learns.learns is None:
        if given:
            raise UsageError(
                f"{slug} learns no labels, so --{given[0].replace('_', '-')} means nothing to it: leave it "
                "out, or choose a semi-supervised method (tacit methods)"
            )
        return
    task = task_of(learns.learns)
    for name in {other.amount for other in all_tasks().values()} - {task.amount}:
        if name in given:
            raise UsageError(
                f"{slug} learns {task.plural}, so --{name.replace('_', '-')} means nothing to it: pass "
                f"--{task.amount.replace('_', '-')}"
            )


def _labelled_batch(machine: Machine, recipe: Recipe) -> int:
    """Labelled samples of a step: batch_size / mu, and one at least for each process and part."""
    parts = machine.accumulate * machine.processes
    return max(1, round(recipe.batch_size / recipe.mu / parts)) * parts
