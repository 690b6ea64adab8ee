"""`tacit fit --pretrain`: the encoder is learned without labels first, in a run of its own."""

from __future__ import annotations

from collections.abc import Callable

from tacit.errors import UsageError
from tacit.methods.base import Method
from tacit.methods.recipe import Recipe
from tacit.methods.registry import method_class
from tacit.tasks.registry import task_of
from tacit.training.ingredients import check_fit, open_data
from tacit.training.options import Options
from tacit.training.run import Run
from tacit.training.teaching import teach

_SHARED = (
    *("encoder", "size", "channels", "small_input", "precision", "views", "preset"),
    *("device", "devices", "nodes", "workers", "seed"),
    *("folders", "masks", "patch", "window", "spacing"),
    *("save_every", "on_collapse", "on_bad_file", "cache", "quiet"),
)  # what a run and its pretraining have in common


def check_pretraining(options: Options, kind: str) -> None:
    """Refuse a pretraining that cannot be, before any data are opened. kind: of the data.

    Raises:
        UsageError: an unknown method, one that learns labels or from other data, or an encoder that has
            learned already.
    """
    slug, encoder = options.start.pretrain, options.start.encoder
    if slug is None:
        return
    first = method_class(slug)
    if first.learns is not None:
        raise UsageError(f"--pretrain takes a self-supervised method, and {slug} learns labels")
    if kind not in first.kinds():
        raise UsageError(f"--pretrain takes a method for {kind}s, and {slug} is for {first.kinds()[0]}s")
    if isinstance(encoder, str) and encoder.startswith("run:"):
        raise UsageError(
            "--pretrain learns a new encoder, and --encoder names a learned one: give one of them"
        )


def check_before(options: Options, learns: type[Method], recipe: Recipe) -> None:
    """Refuse before the pretraining, not after it, data or budgets that cannot be learned from.

    Raises:
        UsageError: data of another kind, or too few labels.
        TacitError: files that cannot be used.
    """
    whole, _ = open_data(options)
    check_fit(learns, options.method, whole)
    if learns.learns is not None:
        train = whole.training
        teach(options.changed(quiet=True), recipe, task_of(learns.learns), whole, train)


def learn_first(fit: Callable[..., Run], options: Options, run: Run) -> str:
    """Learn the encoder without labels, or go on with that; its spec string.

    fit: `tacit.fit`. run: of the method that comes after; the pretraining's folder lies beside its own.

    Raises:
        UsageError, TacitError: as `fit` does.
    """
    slug = options.start.pretrain
    assert slug is not None
    words = options.words()
    first = Run(run.folder.with_name(f"{run.folder.name}-{slug}"))
    fit(
        slug,
        options.reading.data,
        out=first.folder,
        labels="none",
        resume=first.begun,
        epochs=options.start.pretrain_epochs,
        batch_size=options.start.pretrain_batch_size,
        **{name: words[name] for name in _SHARED},
    )
    return f"run:{first.folder}"
