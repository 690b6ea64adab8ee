"""Where a NIfTI file places its voxels: by its sform, else its qform, else its spacings alone.

The standard gives both forms a code, 0 for "not used". A damaged sform gives way to a qform that is used,
and the notes of the volume say so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tacit.data.volume.grid import check_affine, distance, spacing_of
from tacit.errors import BadFile, require

_APART = 0.5  # voxels between two forms from which they are said to differ
_SAME = 1e-3  # relative difference of spacings that is rounding
_UNITS = {1: "metres", 3: "micrometres"}  # codes of NIfTI; 2 is mm, 0 unknown


class Placed(NamedTuple):
    """affine: (4, 4) float64. notes: what is unusual, each as an object of "the volume has"."""

    affine: np.ndarray
    notes: tuple[str, ...] = ()


def place(name: str, header: Any) -> Placed:
    """The affine of a NIfTI header, which may be unchecked.

    Raises:
        BadFile: no form that is used can be.
    """
    header = header.copy()
    if header["pixdim"][0] == 0:  # the standard: taken as 1
        header["pixdim"][0] = 1
    sform, qform = int(header["sform_code"]) > 0, int(header["qform_code"]) > 0
    if not sform and not qform:
        placed = _by_spacing(name, header)
    elif not sform:
        placed = Placed(_sound(name, header.get_qform))
    else:
        placed = _by_sform(name, header, qform)
    unit = _UNITS.get(int(header["xyzt_units"]) & 7)
    told = (f"{unit} as the unit of its header: its numbers are taken as millimetres",) if unit else ()
    return placed._replace(notes=(*placed.notes, *told))


def _by_sform(name: str, header: Any, qform: bool) -> Placed:
    try:
        affine = _sound(name, header.get_sform)
    except BadFile as bad:
        if not qform:
            raise
        reason = bad.reason.removeprefix("wrong affine: ")
        return Placed(
            _sound(name, header.get_qform), (f"a damaged sform ({reason}): its qform is taken instead",)
        )
    return Placed(affine, _beside_sform(name, header, affine, qform))


def _beside_sform(name: str, header: Any, affine: np.ndarray, qform: bool) -> tuple[str, ...]:
    """What the header holds besides a sound sform, where that is something else."""
    if qform:
        try:
            other = _sound(name, header.get_qform)
        except BadFile:
            return ("a damaged qform: its sform is taken",)
        if distance(affine, other, header.get_data_shape()[:3]) > _APART:
            return ("a qform that differs from its sform: the sform is taken",)
        return ()
    told = header["pixdim"][1:4].astype(np.float64)
    if (told > 0).all() and not np.allclose(told, spacing_of(affine), rtol=_SAME):
        return ("a sform of another spacing than its pixdim: the sform is taken",)
    return ()


def _by_spacing(name: str, header: Any) -> Placed:
    spacing = header["pixdim"][1:4]
    if not (spacing > 0).all():
        raise BadFile(name, f"wrong affine: a spacing of {' x '.join(f'{side:g}' for side in spacing)} mm")
    affine = _sound(name, header.get_base_affine)
    return Placed(
        affine, ("no orientation (no sform and no qform): x is taken to run to the left, y to the front",)
    )


def _sound(name: str, read: Callable[[], Any]) -> np.ndarray:
    errors = require("nibabel.spatialimages", "volumes")
    try:
        affine = np.array(read(), np.float64)
    except (ValueError, errors.HeaderDataError) as error:
        cause = str(error).splitlines()[0]
        raise BadFile(name, f"wrong affine: its qform is damaged ({cause})") from None
    check_affine(name, affine)
    return affine
