"""The hippocampus volumes that several claims use, as a folder of NIfTI files."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tacit.claims.base import Setting
from tacit.data.open import open_source
from tacit.data.source import Source
from tacit.errors import UsageError, require
from tacit.files import replacing

COUNT, TEST = 260, 60
"""Volumes in all, and how many of them, the last by their number, are for test."""


def write_hippocampus(setting: Setting, claim: str, learn: Iterable[int], test: Iterable[int]) -> Path:
    """The folder with these volumes and their masks, in splits `train` and `test`.

    The files are made once, and decoded, so that cells at work side by side find them. claim: its name, for
    the error.

    Raises:
        UsageError: the data set is not there.
    """
    if setting.data is None or not (setting.data / "msd_hippocampus").is_dir():
        raise UsageError(
            f"the claim '{claim}' needs the data set msd_hippocampus: name the folder that holds it with "
            "--data or TACIT_TEST_DATA"
        )
    folder = setting.folder / "hippocampus"
    with np.load(setting.data / "msd_hippocampus" / "msd_hippocampus.npz", allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    for split, chosen in (("train", learn), ("test", test)):
        for i in chosen:
            begin, end = arrays["offset"][i : i + 2]
            for kind, key in (("images", "image"), ("labels", "label")):
                path = folder / split / kind / f"{arrays['id'][i]}.nii.gz"
                if not path.is_file():
                    _write(path, arrays[key][begin:end].reshape(arrays["shape"][i]))
    open_hippocampus(folder)
    return folder


def open_hippocampus(folder: Path) -> Source:
    """The volumes of such a folder; decoded voxels lie beside it."""
    return open_source(folder, cache=str(folder.parent / "cache"), progress=False)


def _write(path: Path, voxels: np.ndarray) -> None:
    nibabel = require("nibabel", "volumes")
    with replacing(path) as file:
        file.write(gzip.compress(nibabel.Nifti1Image(voxels, np.eye(4)).to_bytes(), 6, mtime=0))
