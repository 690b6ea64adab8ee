"""`tacit.curve`: what semi-supervised methods gain over the same labels alone, by number of labels."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import joblib
import numpy as np

from tacit.battle.outcome import CurveOutcome, write_outcome
from tacit.claims.cells import Cells
from tacit.claims.graded import graded_floors, graded_run
from tacit.data.budget import group_split
from tacit.data.open import open_source
from tacit.data.source import UNLABELLED, Source
from tacit.errors import UsageError
from tacit.methods.registry import baseline_of, method_class
from tacit.rng import Rng
from tacit.training.ingredients import check_fit
from tacit.training.views import say, views_of

BASELINE = "supervised"
_TEST = 0.25  # of the labelled samples, where the data bring no test split


def curve(
    data: str | os.PathLike[str],
    *,
    methods: str | Sequence[str] = ("fixmatch", "mean-teacher"),
    budgets: str | Sequence[int] = (5, 20, 80),
    seeds: int = 5,
    out: str | os.PathLike[str] | None = None,
    encoder: str = "tacit/convnet",
    labels: str | None = None,
    groups: str | None = None,
    size: int | None = None,
    views: str | None = None,
    steps: int = 1000,
    batch_size: int = 64,
    mu: float = 2.0,
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
    """Compare methods over numbers of labels, each with the labels alone (`supervised`) in as many steps.

    For each seed and budget one draw of labels serves all methods. Data without a test split lose a quarter
    of their labelled samples (stratified, whole groups) to it before anything is drawn. All methods have
    the same encoder, optimiser, batches and steps, and are graded after the last step. Every run is kept as
    soon as it is done: the same command goes on where it was stopped. Beside the methods are their floors:
    what the same labels give without learning, by the most frequent class and by logistic regression on
    pixels and on the frozen encoder that all begin with.

    Args:
        data: labelled images, as `tacit fit` takes them.
        methods: semi-supervised methods, separated by commas on the command line; the baseline is added.
        budgets: labels per class, separated by commas.
        seeds: draws of labels, 2 at least.
        out: folder for results; default curves/DATA.
        encoder: spec string.
        labels: CSV of file names and labels.
        groups: CSV of file names and groups, or re:PATTERN.
        size: side in pixels of what the encoder sees.
        views: how views are made, as `tacit fit` takes it; default: by what the pictures are like.
        steps: optimiser steps of a run, about: whole passes over the unlabelled images are taken.
        batch_size: unlabelled images per step.
        mu: unlabelled images per labelled one in a step.
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
        UsageError: an unknown method or one for other data, a budget below 1, too few labels.
        TacitError: a run failed; the others are kept.
    """
    names, sizes = _methods(methods), _budgets(budgets)
    if seeds < 2:
        raise UsageError(f"a curve needs 2 seeds at least, not {seeds}: one has no interval")
    shared = {
        "data": os.fspath(data),
        "labels": labels,
        "groups": groups,
        "cache": cache,
        "encoder": encoder,
        "size": size,
        "device": device,
        "views": views,
        "steps": steps,
        "batch_size": batch_size,
        "mu": mu,
        "optimizer": optimizer,
        "lr": lr,
        "weight_decay": weight_decay,
        "ema": ema,
    }
    source = _open(shared)
    for name in reversed(names):  # the baseline last: it was not asked for
        check_fit(method_class(name), name, source)
    if not quiet:
        for line in say(views_of(source, views)):
            print(line, flush=True)
        print(f"{len(names)} methods x {len(sizes)} budgets x {seeds} seeds, graded on "
              f"{len(source.splits['test'])} test images", flush=True)  # fmt: skip
    shared["fingerprint"] = f"{source.fingerprint}-{joblib.hash(source.labels)}"
    folder = Path(out) if out is not None else Path("curves") / (Path(os.fspath(data)).name or "data")
    cells, below = (
        Cells(
            folder / name,
            "curve 3",
            jobs=joblib.cpu_count() if jobs is None else jobs,
            say=(lambda line: None) if quiet else (lambda line: print(line, flush=True)),
        )
        for name in ("cells", "floors")
    )
    grid = [
        {
            "method": method,
            "budget": budget,
            "seed": seed,
            "options": dict((options or {}).get(method, {})),
            **shared,
        }
        for budget, seed, method in product(sizes, range(seeds), names)
    ]
    results = cells.run(_cell, grid)
    drawn = [{"budget": budget, "seed": seed, **shared} for budget, seed in product(sizes, range(seeds))]
    floors = [
        ({**parameters, "method": name}, grades)
        for parameters, found in zip(drawn, below.run(_floors, drawn), strict=True)
        for name, grades in found.items()
    ]
    outcome = CurveOutcome.of(grid, results, baseline=BASELINE, floors=floors)
    write_outcome(folder, outcome)
    if not quiet:
        print(f"written: {folder / 'curve.png'}, .md, .csv and .json", flush=True)
    return outcome


def _cell(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """One run and its grades on the test images."""
    options = dict(parameters["options"])
    if parameters["ema"] is not None:
        options.setdefault("ema", parameters["ema"])
    same = (
        "encoder",
        "size",
        "views",
        "optimizer",
        "lr",
        "weight_decay",
        "batch_size",
        "mu",
        "steps",
        "seed",
        "device",
    )
    return graded_run(
        parameters["method"],
        _open(parameters),
        per_class=parameters["budget"],
        options=options,
        **{name: parameters[name] for name in (*same, "seed", "device")},
    )


def _floors(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What the same labels give without learning."""
    same = {name: parameters[name] for name in ("seed", "encoder", "size", "device")}
    return graded_floors(_open(parameters), per_class=parameters["budget"], **same)


def _open(parameters: Mapping[str, Any]) -> Source:
    """The data with a training and a test split, the same for every run."""
    source = open_source(
        parameters["data"],
        labels=parameters["labels"],
        groups=parameters["groups"],
        cache=parameters["cache"],
        progress=False,
    )
    if "train" in source.splits and "test" in source.splits:
        test = source.splits["test"]
        source.splits["test"] = test[source.labels[test] != UNLABELLED]
        return source
    if not len(source.labelled):
        raise UsageError("the data have no labels: use one folder per class, or name a CSV with --labels")
    test, _ = group_split(source.labels, source.groups, (_TEST, 1 - _TEST), Rng.of(0)("curve test"))
    train = np.setdiff1d(np.arange(len(source)), test)
    if source.groups is not None:
        train = train[~np.isin(source.groups[train], source.groups[test])]
    source.splits = {"train": train, "test": test}
    return source


def _methods(words: str | Sequence[str]) -> list[str]:
    names = [w.strip() for w in words.split(",")] if isinstance(words, str) else list(words)
    for name in names:
        learns = method_class(name)
        if learns.learns is None:
            raise UsageError(f"{name} learns no labels, so it has no curve; see tacit methods")
        if learns.learns == "mask":
            raise UsageError(
                f"{name} learns masks, and curves compare methods for classes: run tacit fit {name} and "
                f"tacit fit {baseline_of(learns)} with the same --labelled and --seed instead"
            )
    return list(dict.fromkeys([BASELINE, *names]))


def _budgets(words: str | Sequence[int]) -> list[int]:
    parts = words.split(",") if isinstance(words, str) else list(words)
    try:
        sizes = sorted({int(part) for part in parts})
    except ValueError:
        raise UsageError(
            f"budgets are whole numbers separated by commas, such as 5,20,80; not '{words}'"
        ) from None
    if not sizes or sizes[0] < 1:
        raise UsageError(f"a budget is 1 label per class at least, not {sizes[0] if sizes else 'none'}")
    return sizes
