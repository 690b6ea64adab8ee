"""Files of medical images that are not read, and what makes files of them that are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

_HOW = {
    **dict.fromkeys((".dcm", ".dicom", ".ima"), "DICOM: convert each series with dcm2niix"),
    **dict.fromkeys((".mgz", ".mgh"), "FreeSurfer: convert them with mri_convert, or nibabel"),
    **dict.fromkeys((".nrrd", ".nhdr", ".mha", ".mhd", ".gipl"), "convert them to .nii.gz with SimpleITK"),
    ".img": "Analyze or NIfTI pairs: save each as one .nii.gz with nibabel",
    ".mnc": "MINC: convert them with mnc2nii, or nibabel",
}
_LOOKED_AT = 50  # files that are opened to find DICOM without an extension


def how_to_read(others: Mapping[str, int], folder: Path | None = None) -> str:
    """What to do about the first kind of these files that is known; empty if none is.

    others: numbers of files by extension, in lower case. folder: where those without an extension are looked
    at, because DICOM files often have none.
    """
    found = next((_HOW[extension] for extension in others if extension in _HOW), "")
    if not found and folder is not None and any(not ext or ext[1:].isdigit() for ext in others):
        found = _HOW[".dcm"] if _is_dicom(folder) else ""
    return found


def left_unread(others: Mapping[str, int]) -> str:
    """A note of those that lie beside what is read; empty if there are none."""
    known = {extension: count for extension, count in others.items() if extension in _HOW}
    if not known:
        return ""
    counts = ", ".join(f"{count:,} {extension}" for extension, count in known.items())
    return f"{counts} not read ({how_to_read(known)})"


def _is_dicom(folder: Path) -> bool:
    paths = (Path(place) / name for place, _, names in os.walk(folder) for name in sorted(names))
    for path in islice((path for path in paths if path.is_file()), _LOOKED_AT):
        try:
            with path.open("rb") as file:
                if file.read(132)[128:] == b"DICM":
                    return True
        except OSError:
            continue
    return False
