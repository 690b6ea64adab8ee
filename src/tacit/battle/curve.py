"""`tacit.curve`: what semi-supervised methods gain over the same labels alone, by number of labels."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import joblib
import numpy as np

from tacit.battle.outcome import CurveOutcome, Unfinished, write_outcome
from tacit.claims.cells import Attempt, Cells
from tacit.claims.graded import graded_floors, graded_run
from tacit.data.budget import group_split
from tacit.data.form import form_class
from tacit.data.open import open_source
from tacit.data.source import UNLABELLED, Source
from tacit.data.splits import Folders
from tacit.data.understood import say as say_data
from tacit.errors import UsageError
from tacit.locks import owning
from tacit.methods.registry import baseline_for, method_class
from tacit.rng import Rng
from tacit.tasks.base import Task
from tacit.tasks.registry import task_of
from tacit.training.ingredients import check_fit
from tacit.training.options import Viewing
from tacit.training.views import own_options, say

_TEST = 0.25  # of the labelled samples, where the data bring no test split


def curve(
    data: str | os.PathLike[str],
    *,
    methods: str | Sequence[str] | None = None,
    budgets: str | Sequence[int] | None = None,
    seeds: int = 5,
    out: str | os.PathLike[str] | None = None,
    encoder: str | None = None,
    labels: str | None = None,
    label_column: str | None = None,
    file_column: str | None = None,
    masks: str | None = None,
    values: str | None = None,
    column: str | None = None,
    groups: str | None = None,
    folders: Folders | None = None,
    size: int | None = None,
    patch: str | tuple[int, int, int] | None = None,
    views: str | None = None,
    steps: int = 1000,
    batch_size: int | None = None,
    mu: float | None = None,
    optimizer: str = "adam",
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    ema: float | None = None,
    options: Mapping[str, Any] | None = None,
    jobs: int | None = None,
    device: str = "cpu",
    cache: str | None = None,
    quiet: bool = False,
) -> CurveOutcome:
    """Compare methods over numbers of labels, each with the labels alone in as many steps.

    The labels are classes, masks or values, as the data have them. For each seed and budget one draw of
    labels serves all methods. Data without a test split lose a quarter of their labelled samples (stratified,
    whole groups) to it before anything is drawn. All methods have the same encoder, optimiser, batches and
    steps, and are graded after the last step. Every run is kept as soon as it is done: the same command goes
    on where it was stopped. Beside the methods are their floors: what the same labels give without learning,
    such as logistic regression on pixels and on the frozen encoder that all begin with, or the mean mask.

    Args:
        data: labelled data, as `tacit fit` takes them.
        methods: that learn such labels, separated by commas on the command line; the baseline is added.
            Default: fixmatch and mean-teacher for classes, mean-teacher-segmentation and cps for masks.
        budgets: labels per class, or masks or values in all, separated by commas; default 5, 20 and 80 per
            class, 2, 4 and 8 masks, 25, 50 and 100 values.
        seeds: draws of labels, 2 at least.
        out: folder for results; default curves/DATA.
        encoder: spec string; default tacit/convnet, for masks tacit/unet2d or a small tacit/unet3d.
        labels: CSV of file names and classes.
        label_column: of the classes, in this CSV.
        file_column: of the files, in CSVs of labels, values or groups; default: the one that names
            the samples.
        masks: folder of masks, where they do not lie beside the samples.
        values: CSV of file names and values.
        column: of the values, in this CSV.
        groups: CSV of file names and groups, or re:PATTERN.
        folders: whether folders of the first level are classes or splits, where their names leave it open.
        size: side in pixels of what the encoder sees.
        patch: sides X,Y,Z in voxels of what the encoder sees of a volume.
        views: how views are made, as `tacit fit` takes it; default: by what the pictures are like.
        steps: optimiser steps of a run, about: whole passes over the unlabelled images are taken.
        batch_size: unlabelled samples per step; default 64, for masks the method's own.
        mu: unlabelled samples per labelled one in a step; default 2, for masks 1.
        optimizer: any that timm knows, for all methods.
        lr: learning rate, for all methods.
        weight_decay: for all methods.
        ema: largest decay of the averaged network, for all methods; default: each method's own.
        options: further options of methods, {method: {option: value}}.
        jobs: runs at once, one thread each; default one per core.
        device: auto, cpu, cuda, mps.
        cache: where decoded images are kept.
        quiet: print no progress.

    Returns:
        Tables, tests and verdicts; curve.json, curve.csv, curve.md and curve.png in `out` hold them, too.

    Raises:
        UsageError: an unknown method or one for other data, a budget below 1, too few labels, or another
            process works in `out`.
        Unfinished: some runs failed, or SIGINT or SIGTERM came: those that are done are kept, and are in the
            error's `outcome` and in the files in `out`, which say that they are partial.
    """
    if seeds < 2:
        raise UsageError(f"a curve needs 2 seeds at least, not {seeds}: one has no interval")
    if jobs is not None and jobs < 1:
        raise UsageError(f"jobs must be at least 1, not {jobs}")
    if not isinstance(data, str | os.PathLike):
        raise UsageError("a curve runs in several processes: name data in files")
    known = {
        **{"labels": labels, "masks": masks, "values": values, "column": column, "groups": groups},
        **{"folders": folders, "label_column": label_column, "file_column": file_column},
    }
    shared: dict[str, Any] = {
        **{"data": os.fspath(data), "cache": cache, "patch": patch, **known},
        **{"encoder": encoder, "size": size, "device": device, "views": views, "steps": steps},
        **{"batch_size": batch_size, "mu": mu, "optimizer": optimizer, "lr": lr},
        **{"weight_decay": weight_decay, "ema": ema},
    }
    asked = Asked(_methods(methods), budgets, seeds, options or {}, shared)
    folder = Path(out) if out is not None else Path("curves") / (Path(os.fspath(data)).name or "data")
    with owning(folder):
        return _compare(asked, folder, joblib.cpu_count() if jobs is None else jobs, quiet)


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be compared. options: of methods, by name. shared: parameters that all runs have."""

    methods: list[str]
    budgets: str | Sequence[int] | None
    seeds: int
    options: Mapping[str, Any]
    shared: dict[str, Any]


def _compare(asked: Asked, folder: Path, jobs: int, quiet: bool) -> CurveOutcome:
    """Run what is missing and write the outcome, in a folder that nothing else writes to."""
    source = _open(asked.shared)
    grid, task, said = _grid(asked, source)
    say: Callable[[str], None] = (lambda line: None) if quiet else (lambda line: print(line, flush=True))
    if not quiet:
        say_data(source)
    for line in said:
        say(line)
    cells, below = (Cells(folder / name, "curve 4", jobs=jobs, say=say) for name in ("cells", "floors"))
    runs = cells.attempt(_cell, grid)
    drawn = list({(p["budget"], p["seed"]): _draw_of(p) for p in grid}.values())
    if runs.stop is None:
        floors = below.attempt(_floors, drawn)
    else:
        kept = tuple(below.kept(_floors, parameters) for parameters in drawn)
        floors = Attempt("floors", (), kept, {}, None)
    outcome = CurveOutcome.of(
        grid,
        runs.results,
        target=task.target,
        baseline=grid[0]["method"],
        floors=[
            ({**parameters, "method": name}, grades)
            for parameters, found in zip(drawn, floors.results, strict=True)
            for name, grades in (found or {}).items()
        ],
        failures=runs.failures,
    )
    if runs.done:
        write_outcome(folder, outcome)
        say(f"written: {folder / 'curve.png'}, .md, .csv and .json")
    _check_whole(runs, floors, outcome, folder)
    return outcome


def _check_whole(runs: Attempt, floors: Attempt, outcome: CurveOutcome, folder: Path) -> None:
    """Say what is missing.

    Raises:
        Unfinished: some runs or floors are.
    """
    stop = runs.stop or floors.stop
    lines = [
        f"{len(attempt.failures)} of {len(attempt.names)} {what} failed, the first: {attempt.first}"
        for what, attempt in (("runs", runs), ("floors", floors))
        if attempt.failures
    ]
    if stop is None and not lines:
        return
    said = f"{outcome.partial} in {folder / 'curve.md'}" if runs.done else "no run is done yet"
    last = [str(stop)] if stop else ["run the same command again when it is fixed"]
    raise Unfinished(
        "; ".join([*lines, said if outcome.gaps else f"the curve is in {folder / 'curve.md'}", *last]),
        stop.exit_code if stop else 1,
        outcome if runs.done else None,
    )


def _grid(asked: Asked, source: Source) -> tuple[list[dict[str, Any]], Task, list[str]]:
    """The parameters of all runs, the baseline's first; the kind of labels; what will be done, in words."""
    shared, names = asked.shared, asked.methods
    kind = task_of(str(method_class(names[0]).learns) if names else source.spec.target)
    for name in names:
        check_fit(method_class(name), name, source)
    names = _with_baseline(names or kind.rivals, kind, source)
    sizes = _budgets(kind.budgets if asked.budgets is None else asked.budgets, kind)
    form = form_class(source.spec.modality)
    check_fit(method_class(names[0]), names[0], source)  # the baseline last: it was not asked for
    defaults = {
        "encoder": form.light_dense if kind.dense else form.light,
        "batch_size": kind.batch_size,
        "mu": kind.mu,
    }
    shared = {
        **shared,
        **{name: value for name, value in defaults.items() if shared[name] is None},
        "target": kind.target,
        "fingerprint": f"{source.fingerprint}-{joblib.hash((source.labels, source.values))}",
    }
    draws = product(sizes, range(asked.seeds), names)
    grid = [
        {"method": m, "budget": b, "seed": s, "options": dict(asked.options.get(m, {})), **shared}
        for b, s, m in draws
    ]
    return grid, kind, _said(source, kind, names, sizes, asked.seeds, shared["views"])


def _draw_of(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What the floors of a run depend on: its draw of labels, and what all runs share."""
    return {name: value for name, value in parameters.items() if name not in ("method", "options")}


def _said(
    source: Source, task: Task, names: Sequence[str], sizes: Sequence[int], seeds: int, views: str | None
) -> list[str]:
    """What will be compared, in words."""
    viewing = Viewing(views=views)
    chosen = (own_options(method_class(name), name, viewing, {}, source)[1] for name in names)
    choice = next((choice for choice in chosen if choice is not None), None)
    return [
        *(say(choice) if choice else ()),
        f"{len(names)} methods x {len(sizes)} budgets x {seeds} seeds of {task.plural}, graded on "
        f"{len(source.splits['test'])} test {source.spec.modality}s",
    ]


def _cell(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """One run and its grades on the test samples."""
    options = dict(parameters["options"])
    if parameters["ema"] is not None:
        options.setdefault("ema", parameters["ema"])
    same = ("encoder", "optimizer", "lr", "weight_decay", "batch_size", "mu", "steps", "seed", "device")
    some = {name: parameters[name] for name in ("size", "views", "patch") if parameters[name] is not None}
    return graded_run(
        parameters["method"],
        _open(parameters),
        labels=parameters["budget"],
        options=options,
        schedule="cosine 7/16",
        **{name: parameters[name] for name in same},
        **some,
    )


def _floors(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What the same labels give without learning."""
    same = {name: parameters[name] for name in ("seed", "encoder", "size", "device")}
    return graded_floors(parameters["target"], _open(parameters), labels=parameters["budget"], **same)


def _open(parameters: Mapping[str, Any]) -> Source:
    """The data with a training and a test split, the same for every run."""
    named = (
        *("labels", "label_column", "file_column", "masks", "values", "column", "groups"),
        *("folders", "patch", "cache"),
    )
    asked: dict[str, Any] = {name: parameters.get(name) for name in named}
    source = open_source(parameters["data"], progress=False, **asked)
    if "train" in source.splits and "test" in source.splits:
        test = source.splits["test"]
        source.splits["test"] = test[source.labels[test] != UNLABELLED]
        return source
    if not len(source.labelled):
        raise UsageError(
            "the data have no labels: use one folder per class, or name a CSV with --labels or --values, "
            "or a folder with --masks"
        )
    test, _ = group_split(source.labels, source.groups, (_TEST, 1 - _TEST), Rng.of(0)("curve test"))
    train = np.setdiff1d(np.arange(len(source)), test)
    if source.groups is not None:
        train = train[~np.isin(source.groups[train], source.groups[test])]
    source.splits = {"train": train, "test": test}
    return source


def _methods(words: str | Sequence[str] | None) -> list[str]:
    """Those that were asked for; they must learn one kind of labels."""
    names = [w.strip() for w in words.split(",")] if isinstance(words, str) else list(words or ())
    for name in names:
        if method_class(name).learns is None:
            raise UsageError(f"{name} learns no labels, so it has no curve; see tacit methods")
    kinds = {str(method_class(name).learns): name for name in names}
    if len(kinds) > 1:
        said = " and ".join(f"{name} learns {task_of(kind).plural}" for kind, name in kinds.items())
        raise UsageError(f"{said}: a curve compares methods for one kind of labels")
    return names


def _with_baseline(names: Sequence[str], task: Task, source: Source) -> list[str]:
    """The baseline first."""
    baseline = baseline_for(source.spec.modality, task.target)
    if baseline is None:
        raise UsageError(f"no method learns {task.plural} of {source.spec.modality}s from the labels alone")
    return list(dict.fromkeys([baseline, *names]))


def _budgets(words: str | Sequence[int], task: Task) -> list[int]:
    parts = words.split(",") if isinstance(words, str) else list(words)
    try:
        sizes = sorted({int(part) for part in parts})
    except ValueError:
        raise UsageError(
            f"budgets are whole numbers separated by commas, such as 5,20,80; not '{words}'"
        ) from None
    if not sizes or sizes[0] < 1:
        raise UsageError(f"a budget is at least 1 ({task.counted}), not {sizes[0] if sizes else 'none'}")
    return sizes
