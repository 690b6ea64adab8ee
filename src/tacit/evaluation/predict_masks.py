"""Masks for volumes, in the volumes' own geometry, and a table of what was found."""

from __future__ import annotations

import csv
import gzip
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from tacit.data.open import open_source
from tacit.data.source import UNLABELLED, Source
from tacit.data.volume.volumes import Volume, to_original, volumes_of
from tacit.errors import UsageError, require
from tacit.evaluation.segmentation import MaskGrades, grade_masks
from tacit.evaluation.segmenter import OVERLAP, Segmenter, load_segmenter
from tacit.evaluation.subject import OnBadFile, open_for, pick_device
from tacit.files import replacing, write_atomically

TABLE = "volumes.csv"


@dataclass(frozen=True, slots=True)
class MaskPredictions:
    """What `predict_masks` did.

    path: the folder. grades: where the data have masks, how it did on them.
    """

    path: Path
    samples: int
    grades: MaskGrades | None


def predict_masks(
    run: str | os.PathLike[str],
    data: str | os.PathLike[str] | Source,
    out: str | os.PathLike[str],
    *,
    labels: str | None = None,
    masks: str | None = None,
    on_bad_file: OnBadFile = "stop",
    cache: str | None = None,
    overlap: float = OVERLAP,
    device: str = "auto",
) -> MaskPredictions:
    """Write a mask for each volume (.nii.gz, with its affine and orientation), and a table of them.

    The table, volumes.csv, has a row per volume: its file, the mask's, the volume of each class in
    millilitres, the mean confidence of the voxels that are not background, and Dice where the true mask is
    known.

    Args:
        run: the folder of a run that learned masks.
        data: a folder of volumes.
        out: folder for masks and table; it may exist.
        labels: "none" leaves true masks aside.
        masks: folder of true masks, where they do not lie beside the volumes.
        on_bad_file: whether the first unusable file stops, or is skipped and counted.
        cache: where decoded volumes are kept.
        overlap: of neighbouring windows along each axis, from 0 to below 1.
        device: auto, cpu, cuda, cuda:1, mps.

    Raises:
        UsageError: no such run or data, a run that learned no masks, or an `out` that is a file or where a
            mask would replace a volume.
    """
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder} is a file; masks go into a folder")
    if not 0 <= overlap < 1:
        raise UsageError(f"overlap must lie in [0, 1), not {overlap}")
    segmenter = load_segmenter(Path(run))
    source = open_for(
        segmenter.encoder,
        partial(open_source, data, labels=labels, masks=masks, on_bad_file=on_bad_file, cache=cache),
    )
    _check_classes(source, segmenter)
    _check_targets(source, folder, [place for place in (data, masks) if not isinstance(place, Source)])
    segmenter = segmenter.to(pick_device(device))
    rows: list[dict[str, Any]] = []
    pairs = _write_all(segmenter, source, folder, overlap, rows)
    first = next(pairs, None)  # None once all masks are written and none is known
    graded = None if first is None else grade_masks(chain([first], pairs), segmenter.card.classes)
    cases = graded.cases if graded else ()
    for row, case in zip((row for row in rows if row["known"]), cases, strict=True):
        named = zip(segmenter.card.classes[1:], case, strict=True)
        row |= {f"dice_{name}": _number(each.dice) for name, each in named}
    _write_table(folder / TABLE, rows, segmenter.card.classes)
    return MaskPredictions(folder, len(source), graded)


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.4f}"


def _check_classes(source: Source, segmenter: Segmenter) -> None:
    known, found = segmenter.card.classes, source.spec.classes
    if source.spec.target == "mask" and len(found) > len(known):
        raise UsageError(
            f"the masks have values up to {len(found) - 1}, and the run knows 0 to {len(known) - 1} "
            f"({', '.join(known)}): fix the masks, or pass --labels none"
        )


def _check_targets(source: Source, folder: Path, places: Sequence[str | os.PathLike[str] | None]) -> None:
    """Refuse to put masks where a later run would take them as true, or over files of other origin."""
    out = folder.resolve()
    for place in places:
        if place is not None and out.is_relative_to(Path(place).expanduser().resolve()):
            raise UsageError(
                f"--out {folder} lies in {place}, where a later run would take predictions as true masks or "
                "volumes: choose a folder outside of it"
            )
    owners: dict[str, str] = {}
    again = (folder / TABLE).is_file()  # an earlier prediction, which may be replaced
    inputs = {stored.origin.resolve() for stored in volumes_of(source).stored}
    for name in source.names:
        target = _target(name)
        if (other := owners.setdefault(target, name)) != name:
            raise UsageError(f"the masks of {other} and {name} would have one name: put them in two folders")
        path = folder / target
        if path.exists() and (not again or path.resolve() in inputs):
            raise UsageError(f"the mask of {name} would replace {path}: choose another --out")


def _write_all(
    segmenter: Segmenter, source: Source, folder: Path, overlap: float, rows: list[dict[str, Any]]
) -> Iterator[tuple[np.ndarray, np.ndarray, Sequence[float]]]:
    """Writes each volume's mask as soon as it is there; yields predicted, true, spacing where it is known."""
    whole = volumes_of(source)
    for i, name in enumerate(source.names):
        volume = whole.volume(i)
        probability = segmenter.probabilities(volume, overlap=overlap)
        confidence, mask = (each.numpy() for each in probability.max(0))
        target = _target(name)
        _write_mask(folder / target, mask.astype(np.uint8), volume)
        known = source.labels[i] != UNLABELLED and source.spec.target == "mask"
        rows.append({"known": known, **_row(name, target, mask, confidence, volume, segmenter)})
        if known:
            yield mask, volume.read_mask((0, 0, 0), volume.shape).numpy(), volume.spacing


def _target(name: str) -> str:
    """The mask's path below the folder, for a volume of this name."""
    return f"{name.removesuffix('.gz').rpartition('.')[0] or name}.nii.gz"


def _write_mask(target: Path, mask: np.ndarray, volume: Volume) -> None:
    nibabel = require("nibabel", "volumes")
    array, affine, header = to_original(mask, volume)
    image = nibabel.Nifti1Image(array.astype(np.uint8), affine, header)
    image.set_data_dtype(np.uint8)
    image.header.set_slope_inter(1, 0)
    with replacing(target) as file:
        file.write(gzip.compress(image.to_bytes(), 6, mtime=0))


def _row(
    name: str, target: str, mask: np.ndarray, confidence: np.ndarray, volume: Volume, segmenter: Segmenter
) -> dict[str, Any]:
    millilitres = float(np.prod(volume.spacing)) / 1000
    counts = np.bincount(mask.ravel(), minlength=len(segmenter.card.classes))
    found = confidence[mask > 0]
    return {
        "file": name,
        "mask": target,
        **{f"ml_{c}": f"{counts[k] * millilitres:.4f}" for k, c in enumerate(segmenter.card.classes) if k},
        "confidence": _number(found.mean()) if len(found) else "",
    }


def _write_table(path: Path, rows: Sequence[Mapping[str, Any]], classes: tuple[str, ...]) -> None:
    columns = ["file", "mask", *(f"ml_{c}" for c in classes[1:]), "confidence"]
    if any(row["known"] for row in rows):
        columns += [f"dice_{c}" for c in classes[1:]]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())
