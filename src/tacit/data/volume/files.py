"""From one file to the voxels of a volume or a mask: NIfTI, HDF5 and `.npz`.

The rules, each our choice:

- A volume has three axes; a fourth of at most 8 entries are its channels, as the modalities of the Medical
  Segmentation Decathlon are. Longer fourth axes are time points and have no single right reading. Axes of
  one entry beyond the third are dropped.
- The affine of a NIfTI file is its sform, else its qform, else its spacings (see `placement`); its numbers
  are taken as millimetres. HDF5 and `.npz` files have no orientation: their axes are x, y, z as
  they are, with the spacing of the attribute (or array) `spacing`, else 1 mm.
- What a file is called does not matter: NIfTI may be compressed or not.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Collection, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tacit.data.reading import damage_named, read_bytes
from tacit.data.volume.grid import check_affine
from tacit.data.volume.placement import place
from tacit.errors import BadFile, require

NIFTI = (".nii", ".nii.gz")
ARRAYS = (".h5", ".hdf5", ".npz")
EXTENSIONS = (*NIFTI, *ARRAYS)
MOST_CHANNELS = 8
LARGEST_LABEL = 255
_IMAGE, _MASK = ("image", "volume", "data"), ("label", "mask", "seg")
_HEADER = 540  # bytes of NIfTI-2's; NIfTI-1's are 348
_WHOLE = 1e-3  # what scaled labels may lie off a whole number


class Content(NamedTuple):
    """What a file holds.

    voxels: (X, Y, Z) or (X, Y, Z, C), or None. mask: (X, Y, Z) that came with it, or None; both of any
    number type, and as the file has them. affine: (4, 4), None if the file does not place its voxels.
    notes: what is unusual of that, see `Placed`.
    """

    voxels: np.ndarray | None
    mask: np.ndarray | None
    affine: np.ndarray | None
    notes: tuple[str, ...] = ()


def extension_of(name: str) -> str:
    """The extension of a volume, `.nii.gz` as a whole, in lower case; "" if it is none that is read."""
    lower = name.lower()
    found = [e for e in EXTENSIONS if lower.endswith(e) and len(lower) > len(e)]
    return max(found, key=len, default="")


def read_volume(path: Path, name: str) -> Content:
    """A volume, checked: three axes and perhaps channels, numbers, a sound affine. The mask is not checked.

    Raises:
        BadFile: it cannot be read, or has no single right reading.
        UsageError: the package that reads such files is not installed.
    """
    content = _read(path, name, masks=False)
    if content.voxels is None:
        raise BadFile(name, f"no array called {' or '.join(_IMAGE)}")
    if content.affine is not None:
        check_affine(name, content.affine)
    return content._replace(voxels=_drop_axes(check_voxels(name, content.voxels)))


def read_mask(path: Path, name: str) -> Content:
    """A file that is a mask as a whole; its `mask` is the mask, not checked."""
    content = _read(path, name, masks=True)
    mask = content.voxels if content.mask is None else content.mask
    if mask is None:
        raise BadFile(name, f"no array called {' or '.join(_MASK)}")
    return Content(None, mask, content.affine, content.notes)


def check_labels(name: str, mask: np.ndarray) -> np.ndarray:
    """A mask's classes, (X, Y, Z) uint8.

    Raises:
        BadFile: not three axes, or values that are no whole numbers from 0 to 255.
    """
    mask = _drop_axes(mask)
    if mask.ndim != 3 or not mask.size:
        raise BadFile(name, f"its mask has shape {mask.shape}: three axes are needed")
    if mask.dtype.kind not in "biuf":
        raise BadFile(name, f"its mask has dtype {mask.dtype}: whole numbers are needed")
    if mask.dtype.kind == "f":
        rounded = np.rint(mask)
        off = ~(np.abs(mask - rounded) <= _WHOLE)
        if off.any():
            raise BadFile(name, f"its mask holds {mask[off][0]:g}: classes are whole numbers")
        mask = rounded
    low, high = mask.min(), mask.max()
    if low < 0 or high > LARGEST_LABEL:
        wrong = low if low < 0 else high
        raise BadFile(name, f"its mask holds {wrong:g}: classes are whole numbers from 0 to {LARGEST_LABEL}")
    return mask.astype(np.uint8)


def nifti_header(path: Path) -> Any:
    """The header of a NIfTI file, unchecked.

    Raises:
        BadFile: it cannot be read.
    """
    with damage_named(path.name), open(path, "rb") as file:
        begin = file.read(_HEADER)
        if begin.startswith(b"\x1f\x8b"):
            file.seek(0)
            with gzip.GzipFile(fileobj=file) as unzipped:
                begin = unzipped.read(_HEADER)
        return _header(path.name, begin)


def _read(path: Path, name: str, *, masks: bool) -> Content:
    extension = extension_of(path.name)
    if extension in NIFTI:
        require("nibabel", "volumes")  # here, where its absence is not taken for damage
        return _read_nifti(name, read_bytes(path, name), masks)
    if extension == ".npz":
        return _read_npz(name, read_bytes(path, name))
    return _read_hdf5(path, name)


def _read_nifti(name: str, data: bytes, masks: bool) -> Content:
    with damage_named(name):
        raw = _unzipped(name, data)
        header = _header(name, raw)
        shape, dtype = header.get_data_shape(), header.get_data_dtype()
        if not masks:
            _check_shape(name, shape)
        _check_dtype(name, dtype)
        begin, needed = int(header.get_data_offset()), int(np.prod(shape, dtype=object)) * dtype.itemsize
        if len(raw) < begin + needed:
            raise BadFile(name, f"truncated: {max(len(raw) - begin, 0)} of {needed} bytes of voxels")
        if len(shape) < 3:  # of a mask, which the volume's shape will refuse
            return Content(header.data_from_fileobj(BytesIO(raw)), None, None)
        affine, notes = place(name, header)
        return Content(header.data_from_fileobj(BytesIO(raw)), None, affine, notes)


def _unzipped(name: str, data: bytes) -> bytes:
    """All of it, so that the checksum at the end is looked at."""
    if not data.startswith(b"\x1f\x8b"):
        return data
    try:
        return gzip.decompress(data)
    except EOFError:
        raise BadFile(name, "truncated: its compressed data end too early") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise BadFile(name, f"damaged: {error}") from None


def _header(name: str, raw: bytes) -> Any:
    """Unchecked, because `nibabel` mends what it checks, and a spacing of 0 would become 1."""
    nifti1, nifti2 = require("nibabel.nifti1", "volumes"), require("nibabel.nifti2", "volumes")
    kinds = {b"n+1\0": (nifti1.Nifti1Header, 348), b"n+2\0": (nifti2.Nifti2Header, _HEADER)}
    magic = raw[344:348] if raw[344:348] in (b"n+1\0", b"ni1\0") else raw[4:8]
    if magic in (b"ni1\0", b"ni2\0"):
        raise BadFile(name, "the header of a .hdr and .img pair: save it as one .nii file")
    if magic not in kinds:
        raise BadFile(name, f"not a NIfTI file: it starts with {raw[:8]!r}")
    kind, length = kinds[magic]
    return kind(raw[:length], check=False)


def _read_npz(name: str, data: bytes) -> Content:
    if not data.startswith(b"PK"):
        raise BadFile(name, f"not an .npz file: it starts with {data[:8]!r}")
    with damage_named(name), np.load(BytesIO(data), allow_pickle=False) as archive:
        return _content(name, archive, archive.files, None)


def _read_hdf5(path: Path, name: str) -> Content:
    h5py = require("h5py", "volumes")
    with damage_named(name), open(path, "rb") as opened:
        if not opened.read(1):
            raise BadFile(name, "empty file (0 bytes)")
    with damage_named(name), h5py.File(path, "r") as file:
        arrays = {key: file[key] for key in file if isinstance(file[key], h5py.Dataset)}
        places = [file, *(arrays[key] for key in (*_IMAGE, *_MASK) if key in arrays)]
        spacing = next((place.attrs["spacing"] for place in places if "spacing" in place.attrs), None)
        return _content(name, arrays, arrays, spacing)


def _content(name: str, arrays: Mapping[str, Any], names: Collection[str], spacing: Any) -> Content:
    image, mask = (next((key for key in keys if key in names), None) for keys in (_IMAGE, _MASK))
    if image is None and mask is None:
        held = ", ".join(sorted(names)[:8]) or "nothing"
        raise BadFile(name, f"no array called {', '.join(_IMAGE)}: it holds {held}")
    if spacing is None and "spacing" in names:
        spacing = arrays["spacing"][...]
    affine = None if spacing is None else _placed(name, np.asarray(spacing))
    found = [None if key is None else np.asarray(arrays[key][...]) for key in (image, mask)]
    return Content(found[0], found[1], affine)


def _placed(name: str, spacing: np.ndarray) -> np.ndarray:
    if spacing.shape != (3,) or spacing.dtype.kind not in "iuf":
        raise BadFile(name, f"its spacing is {spacing.tolist()}: three numbers in mm are needed")
    if not (np.isfinite(spacing).all() and (spacing > 0).all()):
        raise BadFile(name, f"its spacing is {' x '.join(f'{side:g}' for side in spacing)} mm")
    return np.diag([*spacing.astype(np.float64), 1.0])


def check_voxels(name: str, voxels: np.ndarray) -> np.ndarray:
    """The voxels, (X, Y, Z) or (X, Y, Z, C), as they are.

    Raises:
        BadFile: other axes, no numbers, NaN or infinite ones, or all voxels equal.
    """
    _check_shape(name, voxels.shape)
    _check_dtype(name, voxels.dtype)
    if voxels.dtype.kind == "f":
        spoilt = int(voxels.size - np.isfinite(voxels).sum())
        if spoilt:
            raise BadFile(name, f"{spoilt} of {voxels.size} voxels are NaN or infinite")
    if voxels.min() == voxels.max():
        raise BadFile(name, "all voxels are equal")
    return voxels


def _check_shape(name: str, shape: tuple[int, ...]) -> None:
    if len(shape) < 3 or min(shape) < 1:
        raise BadFile(name, f"shape {tuple(shape)}: a volume has three axes")
    more = [side for side in shape[3:] if side > 1]
    if len(more) > 1:
        raise BadFile(name, f"shape {tuple(shape)}: a volume has three axes, and perhaps channels")
    if more and more[0] > MOST_CHANNELS:
        raise BadFile(
            name, f"4D ({more[0]} time points, or channels): choose one volume, e.g. save it on its own"
        )


def _check_dtype(name: str, dtype: np.dtype) -> None:
    if dtype.fields is not None:
        raise BadFile(name, "coloured voxels: save it with one number a voxel")
    if dtype.kind not in "biuf":
        raise BadFile(name, f"dtype {dtype}: real numbers are needed")


def _drop_axes(voxels: np.ndarray) -> np.ndarray:
    """Without the axes of one entry beyond the third."""
    return voxels.reshape(*voxels.shape[:3], *(side for side in voxels.shape[3:] if side > 1))
