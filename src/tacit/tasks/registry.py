"""All kinds of targets, by name."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

from tacit.encoders.zoo import load_encoder
from tacit.errors import UsageError
from tacit.tasks.base import Task
from tacit.tasks.predictor import Predictor, damaged, nothing_learned, read_predictor

ENTRY_POINTS = "tacit.tasks"


@cache
def all_tasks() -> dict[str, Task]:
    """Ours, one per folder of this one, and those that packages bring in as entry points."""
    own = sorted(path.parent.name for path in Path(__file__).parent.glob("*/task.py"))
    found: list[Task] = [import_module(f"tacit.tasks.{name}.task").TASK for name in own]
    found += [entry.load() for entry in entry_points(group=ENTRY_POINTS)]
    return {task.target: task for task in found}


def task_of(target: str) -> Task:
    """The task for a kind of target.

    Raises:
        UsageError: there is none.
    """
    if target not in all_tasks():
        raise UsageError(f"there is no task for labels of the kind '{target}'")
    return all_tasks()[target]


def load_predictor(folder: Path) -> Predictor:
    """The predictor of a run, whatever it predicts.

    Raises:
        UsageError: no run, one that has not finished, or one that learned no labels.
        TacitError: its files are damaged.
    """
    encoder = load_encoder(folder)
    found = read_predictor(folder)
    if found is None:
        raise nothing_learned(folder)
    target, card, state = found
    task = task_of(target)
    try:
        return task.restore(encoder, card, state)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise damaged(folder, error) from None
