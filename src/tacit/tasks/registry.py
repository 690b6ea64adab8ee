"""All kinds of targets, by name."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from tacit.checks import shortly
from tacit.encoders.zoo import load_encoder
from tacit.errors import TacitError, UsageError
from tacit.tasks.base import Task
from tacit.tasks.predictor import (
    DAMAGE,
    Predictor,
    damaged,
    first_line,
    nothing_learned,
    read_predictor,
)

ENTRY_POINTS = "tacit.tasks"


@cache
def own_tasks() -> dict[str, Task]:
    """Ours, one per folder of this one."""
    names = sorted(path.parent.name for path in Path(__file__).parent.glob("*/task.py"))
    found: list[Task] = [import_module(f"tacit.tasks.{name}.task").TASK for name in names]
    return {task.target: task for task in found}


@cache
def all_tasks() -> dict[str, Task]:
    """Ours, then those of packages, which cannot replace ours.

    One that cannot be loaded is left out: who asks for its target hears why from `task_of`.
    """
    found = dict(own_tasks())
    for name, point in _others().items():
        with suppress(TacitError):
            found[name] = _loaded(point)
    return found


def task_of(target: str) -> Task:
    """The task for a kind of target.

    Raises:
        UsageError: there is none.
        TacitError: a package has one that cannot be loaded.
    """
    if target in own_tasks():
        return own_tasks()[target]
    others = _others()
    if target not in others:
        raise UsageError(
            f"there is no task for labels of the kind {shortly(target)}: install the package that brings it"
        )
    return _loaded(others[target])


def _others() -> dict[str, EntryPoint]:
    """Those that packages bring in as entry points, by target; nothing is imported."""
    points = entry_points(group=ENTRY_POINTS)
    return {point.name: point for point in points if point.name not in own_tasks()}


def _loaded(point: EntryPoint) -> Task:
    try:
        task = point.load()
        fault = _fault(task, point.name)
    except Exception as error:  # of whatever a package does when it is imported
        fault = first_line(error)
    if fault:
        package = f"the package {point.dist.name}" if point.dist else "a package"
        raise TacitError(
            f"the kind of labels '{point.name}' (entry point {point.value} of {package}) cannot be loaded: "
            f"{fault}; fix the package or uninstall it"
        )
    found: Task = task
    return found


def _fault(task: object, name: str) -> str:
    """What keeps an object from being the task of this name, in words; nothing if it is."""
    if not isinstance(task, Task):
        return "it is no instance of tacit.tasks.base.Task"
    missing = [word for word in Task.__annotations__ if not hasattr(task, word)]
    if missing:
        return f"it does not say its {', '.join(missing)}"
    if task.target != name:
        return f"its target is '{task.target}', which must be the entry point's name"
    return "" if task.score in task.measures else f"its score '{task.score}' is not among its measures"


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
    except DAMAGE as error:
        raise damaged(folder, error) from None
