"""Resuming a run: what may be resumed, and that it is still the same run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from tacit.data.source import Source
from tacit.errors import TacitError, UsageError
from tacit.locks import LOCK
from tacit.methods.base import Method
from tacit.methods.recipe import Recipe
from tacit.training.checkpoint import Checkpoint
from tacit.training.options import Options
from tacit.training.run import Run, is_main_process
from tacit.training.settings import check_same_settings, describe, plain
from tacit.training.teaching import Teaching
from tacit.untrusted import first_line


def claim_folder(run: Run, options: Options) -> Checkpoint | None:
    """The checkpoint to resume from, or None for a fresh start; an existing run is never overwritten.

    The main process must own the folder.

    Raises:
        UsageError: the folder has other files, or a run that is not to be resumed, or has other settings.
    """
    resume = options.care.resume
    if not is_main_process():  # the main process has claimed it for all
        return Checkpoint.load(run.last) if resume and run.last.is_file() else None
    if not run.exists and _has_files(run.folder):
        raise UsageError(f"'{run}' exists and is not a run of tacit; choose another --out")
    if not run.begun:
        return None
    if not resume:
        mend = (
            "choose another --out, or remove it"
            if run.finished
            else "go on with --resume, or choose another --out"
        )
        state = "a finished" if run.finished else "an unfinished"
        raise UsageError(f"'{run}' holds {state} run: {mend}")
    check_same_settings(run, describe(options))
    return Checkpoint.load(run.last) if run.last.is_file() else None


def _has_files(folder: Path) -> bool:
    """Whether there is anything but the lock of this process."""
    return any(path.name != LOCK for path in folder.iterdir())


def restore(method: Method, checkpoint: Checkpoint, run: Run) -> None:
    """Put the checkpoint's parameters and buffers into the method.

    Parts of a method that keep whole numbers, such as clusters, have a `check_state()` that raises a
    `ValueError` where these are out of their range.

    Raises:
        UsageError: they do not fit.
        TacitError: they are of other types, or out of range.
    """
    own = method.state_dict()
    for name, value in checkpoint.method.items():
        if name in own and value.is_floating_point() != own[name].is_floating_point():
            kind = f"its {name} has the type {value.dtype}, and must have {own[name].dtype}"
            raise TacitError(f"the checkpoint {run.last} is damaged: {kind}")
    try:
        method.load_state_dict(checkpoint.method)
    except RuntimeError as error:  # a module of the user's own can have changed
        reason = str(error).splitlines()[-1].strip()
        raise UsageError(f"cannot resume '{run}': its encoder had another shape ({reason})") from None
    try:
        for part in method.modules():
            if callable(check := getattr(part, "check_state", None)):
                check()
    except ValueError as error:
        raise TacitError(f"the checkpoint {run.last} is damaged: {first_line(error)}") from None


def check_same_data(
    run: Run, source: Source, recipe: Recipe, teaching: Teaching | None, beside: Source | None
) -> None:
    """Refuse to go on with other data, other labels, or a recipe that another version of tacit had.

    Raises:
        UsageError: names what has changed.
    """
    record = run.settings().get("record", {})
    before, now = record.get("recipe", {}), plain(asdict(recipe))
    for name in sorted((now.keys() & before.keys()) - {"source"}):
        if before[name] != now[name]:
            raise UsageError(
                f"cannot resume '{run}': {name} was {before[name]}, and this version's recipe has "
                f"{now[name]}: start it again with another --out"
            )
    found = [record.get(part, {}).get("fingerprint") for part in ("data", "images")]
    if found != [source.fingerprint, beside.fingerprint if beside else None]:
        raise UsageError(f"cannot resume '{run}': the data have changed since it was begun")
    if teaching is not None and record.get("labels", {}).get("digest") != teaching.record["digest"]:
        raise UsageError(f"cannot resume '{run}': the labels have changed since it was begun")
