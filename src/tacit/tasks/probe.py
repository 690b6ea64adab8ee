"""What a frozen representation knows, beside its random twin and raw pixels."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from tacit import __version__
from tacit.data.memory import Data, described, taken
from tacit.data.open import open_source
from tacit.data.skipped import beside, report_skipped
from tacit.data.source import Source
from tacit.data.splits import Folders
from tacit.data.understood import say
from tacit.encoders.card import card_of
from tacit.encoders.zoo import build_encoder, is_pretrained
from tacit.errors import TacitError, UsageError
from tacit.evaluation.features import Embed, encoder_features, raw_features
from tacit.evaluation.subject import OnBadFile, encoder_for, pick_device
from tacit.files import check_writable
from tacit.tasks.classes.probe import Result, measure, probe_split, table
from tacit.tasks.probing import LEARNED, PIXELS, TWIN, ProbeReport, Probing, Split
from tacit.tasks.registry import task_of

__all__ = ["PIXELS", "ProbeReport", "Result", "measure", "probe", "probe_split", "table"]


def probe(
    what: str | os.PathLike[str] | nn.Module,
    data: Data,
    *,
    labels: str | Any | None = None,
    label_column: str | None = None,
    file_column: str | None = None,
    values: str | None = None,
    column: str | None = None,
    groups: str | None = None,
    folders: Folders | None = None,
    baselines: bool = True,
    k: int = 20,
    on_bad_file: OnBadFile = "stop",
    cache: str | None = None,
    batch_size: int = 256,
    device: str = "auto",
    out: str | None = None,
    seed: int = 0,
    quiet: bool = False,
) -> ProbeReport:
    """Measure frozen features on labelled data.

    Of classes: accuracy of weighted kNN and of a linear probe. Of values: R2, mean absolute error and
    Pearson's correlation of ridge regression. The data's own train / val / test split is used where it has
    one; otherwise the labelled samples are split 60 / 20 / 20, stratified by class or spread over small and
    large values; whole groups are kept together. The regularisation is chosen on validation data; the test
    part is looked at once.

    Args:
        what: a run folder, an encoder's spec string such as timm/resnet18, or a module with a card.
        data: labelled images: a folder with class folders, a MedMNIST-style .npz, hf:NAME, ...
        labels: a CSV of file names and labels, for a folder without class folders.
        label_column: of the classes, in this CSV.
        file_column: of the files, in either CSV; default: the one that names the samples.
        values: a CSV of file names and numbers, such as ages, to probe instead of classes.
        column: of the values, in this CSV.
        groups: CSV of file names and groups, such as patients, or re:PATTERN for names; no group is in two
            parts. Data can bring groups of their own, as slices of volumes do.
        folders: whether folders of the first level are classes or splits, where their names leave it open.
        baselines: also measure the random twin and raw pixels.
        k: neighbours of the kNN probe, which is for classes.
        on_bad_file: whether the first unusable file stops, or all are skipped; then they are listed beside
            the report, in REPORT.skipped.csv.
        cache: where decoded images are kept.
        batch_size: images encoded at once.
        device: auto, cpu, cuda, cuda:1, mps.
        out: JSON file for the report; for a run the default is its folder probes/.
        seed: of the split and the random twin.
        quiet: do not say what was understood of the data.

    Returns:
        The report; printing it gives a table.

    Raises:
        UsageError: no such run or data, too few labels, or labels that are masks.
        TacitError: `out` cannot be written. Without `out` the report is returned all the same.
    """
    if k < 1 or batch_size < 1:
        raise UsageError(f"k and batch_size must be at least 1, not {k} and {batch_size}")
    if out is not None:
        check_writable(Path(out))
    data, labels = taken(data, labels)
    open_data = partial(
        open_source,
        data,
        labels=labels,
        label_column=label_column,
        file_column=file_column,
        values=values,
        column=column,
        groups=groups,
        folders=folders,
        on_bad_file=on_bad_file,
        cache=cache,
    )
    encoder, source, spec = encoder_for(what, open_data)
    if not quiet:
        say(source)
    probing = _probing(source, spec)
    split, how = probing.split(source, seed)
    place = pick_device(device)
    module = isinstance(what, nn.Module)
    learned = module or is_pretrained(spec)
    named: list[tuple[str, Embed]] = [(LEARNED if learned else "random", encoder_features(encoder, place))]
    if baselines and learned and not module:
        named.append((TWIN, encoder_features(_twin(encoder, spec, seed), place)))
    if baselines:
        named.append((PIXELS, raw_features(source)))
    results = probing.measure(named, source, split, k=k, batch_size=batch_size)
    protocol = {
        "name": probing.name,
        "encoder": spec,
        "data": described(data),
        "fingerprint": source.fingerprint,
        "skipped": len(source.skipped),
        **probing.labels(source),
        "split": how,
        **{name: len(part) for name, part in split.items()},
        "groups": _groups(source, split),
        **probing.how(k),
        "seed": seed,
        "version": __version__,
    }
    report = probing.report(tuple(results), protocol)
    target = _target(spec, protocol, out)
    if target is not None:
        _save(report, target, asked=out is not None)
    report_skipped(source, beside(target))
    return report


def _save(report: ProbeReport, target: Path, *, asked: bool) -> None:
    """Write the report; where that fails, it is not lost. asked: whether the user named the file."""
    try:
        report.save(target)
    except TacitError as error:
        if asked:
            print(report, file=sys.stderr)
            raise
        print(f"note: the report is not kept ({error}): name another file with --out", file=sys.stderr)


def _groups(source: Source, split: Split) -> dict[str, int] | None:
    """How many groups each part has."""
    groups = source.groups
    return None if groups is None else {name: len(np.unique(groups[part])) for name, part in split.items()}


def _probing(source: Source, spec: str) -> Probing:
    """How the labels of the data are probed.

    Raises:
        UsageError: they are masks.
    """
    task = task_of(source.spec.target)
    if task.probing is None:
        raise UsageError(
            f"a probe needs classes or values, and the data have {task.plural}: name a CSV with --labels or "
            f"--values, or train on the {task.plural} with tacit fit supervised-segmentation --encoder {spec}"
        )
    return task.probing


def _twin(encoder: nn.Module, spec: str, seed: int) -> nn.Module:
    """The same architecture on the same input, untrained."""
    card = card_of(encoder)
    return build_encoder(
        f"random:{spec}",
        **card.architecture,
        mean=card.form.mean,
        std=card.form.std,
        seed=seed,
    )


def _target(spec: str, protocol: Mapping[str, Any], out: str | None) -> Path | None:
    """Where the report goes. Its name tells data and protocol apart, so that none replaces another."""
    if out is not None:
        return Path(out)
    if not spec.startswith("run:"):
        return None
    digest = blake2b(json.dumps(protocol, sort_keys=True).encode(), digest_size=4).hexdigest()
    return Path(spec.removeprefix("run:")) / "probes" / f"{protocol['fingerprint'][:12]}-{digest}.json"
