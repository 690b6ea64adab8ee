"""From one file to the voxels of a volume or a mask: NIfTI, HDF5 and `.npz`.

The rules, each our choice:

- A volume has three axes; a fourth of at most 8 entries are its channels, as the modalities of the Medical
  Segmentation Decathlon are. Longer fourth axes are time points and have no single right reading. Axes of
  one entry beyond the third are dropped.
- The affine of a NIfTI file is its sform, else its qform, else its spacings (see `placement`); its numbers
  are taken as millimetres. HDF5 and `.npz` files have no orientation: their axes are x, y, z as
  they are, with the spacing of the attribute (or array) `spacing`, else 1 mm.
- What a file is called does not matter: NIfTI may be compressed or not.
- Shapes are checked against what the file can hold before anything is decoded (`tacit.data.limits`). Arrays
  of an HDF5 file that lie in other files are refused.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from math import prod
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import numpy as np

from tacit.data.limits import MASK_RATIO, RATIO, check_memory, check_unpacked
from tacit.data.numpy_files import load_member, member_header
from tacit.data.reading import damage_named, open_file, read_bytes, size_of
from tacit.data.volume.grid import check_affine
from tacit.data.volume.hdf5 import dataset, open_hdf5
from tacit.data.volume.placement import place
from tacit.errors import BadFile, require

NIFTI = (".nii", ".nii.gz")
ARRAYS = (".h5", ".hdf5", ".npz")
EXTENSIONS = (*NIFTI, *ARRAYS)
MOST_CHANNELS = 8
LARGEST_LABEL = 255
_IMAGE, _MASK = ("image", "volume", "data"), ("label", "mask", "seg")
_HEADER = 540  # bytes of NIfTI-2's; NIfTI-1's are 348
_ANALYZE = ((348).to_bytes(4, "little"), (348).to_bytes(4, "big"))  # how an Analyze header begins
_CHUNK = 1 << 20  # bytes that are unpacked at a time
_AFTER = 16 * _CHUNK  # bytes behind the voxels that are read, for the checksum at the end
_SPACINGS = 64  # numbers of a spacing that are read
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
    name = path.name
    with open_file(path, name) as file, damage_named(name), _unpacking(name), ExitStack() as stack:
        return _header(name, _unzipped(file, stack).read(_HEADER))


def memory_for(path: Path) -> int:
    """Bytes of memory that decoding a volume takes, with its working copies, by its header; 0 if not known.

    Of each voxel: itself, a copy in another order of axes and one for percentiles, and two numbers of 8 bytes
    where values are scaled or fractions.
    """
    try:
        shape, dtype, scaled = _declared(path)
        check_unpacked(path.name, prod(shape) * dtype.itemsize, path.stat().st_size)
    except (BadFile, OSError):  # reading it will say what is wrong
        return 0
    wide = 16 if scaled or dtype.kind == "f" else 0
    return prod(shape) * (3 * dtype.itemsize + wide)


def _declared(path: Path) -> tuple[tuple[int, ...], np.dtype, bool]:
    """Shape and dtype of the voxels, and whether they are scaled, by the header.

    Raises:
        BadFile: they cannot be told.
    """
    name, extension = path.name, extension_of(path.name)
    if extension in NIFTI:
        header = nifti_header(path)
        with damage_named(name):
            scaled = header.get_slope_inter() not in ((None, None), (1.0, 0.0))
            return header.get_data_shape(), header.get_data_dtype(), scaled
    with damage_named(name), ExitStack() as stack:
        if extension == ".npz":
            file = stack.enter_context(open_file(path, name))
            archive = stack.enter_context(np.load(file, allow_pickle=False))
            for key in _IMAGE:
                if key in archive.files:
                    return *member_header(archive, key)[:2], False
        else:
            opened = stack.enter_context(open_hdf5(path, name))
            for key in _IMAGE:
                if (array := dataset(name, opened, key)) is not None:
                    return array.shape, array.dtype, False
    raise BadFile(name, "no voxels")


def _read(path: Path, name: str, *, masks: bool) -> Content:
    extension = extension_of(path.name)
    if extension in NIFTI:
        require("nibabel", "volumes")  # here, where its absence is not taken for damage
        return _read_nifti(path, name, masks)
    ratio = MASK_RATIO if masks else RATIO
    if extension == ".npz":
        return _read_npz(name, read_bytes(path, name), ratio)
    return _read_hdf5(path, name, ratio)


def _read_nifti(path: Path, name: str, masks: bool) -> Content:
    scaling = require("nibabel.volumeutils", "volumes").apply_read_scaling
    with open_file(path, name) as file, damage_named(name), _unpacking(name), ExitStack() as stack:
        if not (held := size_of(file)):
            raise BadFile(name, "empty file (0 bytes)")
        unzipped = _unzipped(file, stack)
        start = unzipped.read(_HEADER)
        header = _header(name, start)
        shape, dtype = header.get_data_shape(), header.get_data_dtype()
        if not masks or min(shape, default=0) < 1:
            _check_shape(name, shape)
        _check_dtype(name, dtype)
        begin, needed = int(header.get_data_offset()), prod(shape) * dtype.itemsize
        if begin < header.sizeof_hdr:
            raise BadFile(name, f"damaged: its voxels begin at byte {begin}, within the header")
        if unzipped is file and held < begin + needed:
            raise _truncated(name, held - begin, needed)
        check_unpacked(name, needed, held, MASK_RATIO if masks else RATIO)
        check_memory(name, needed)
        voxels = _voxels(name, unzipped, start, begin, needed).view(dtype).reshape(shape, order="F")
        found = zip(header.get_slope_inter(), (1.0, 0.0), strict=True)
        slope, inter = (default if value is None else value for value, default in found)
        if len(shape) < 3:  # of a mask, which the volume's shape will refuse
            return Content(scaling(voxels, slope, inter), None, None)
        affine, notes = place(name, header)
        return Content(scaling(voxels, slope, inter), None, affine, notes)


def _voxels(name: str, file: IO[bytes], start: bytes, begin: int, needed: int) -> np.ndarray:
    """(needed,) uint8, the bytes from `begin` on; what follows is read too, up to the checksum at the end.

    start: what was read of the file already.
    """
    voxels = np.empty(needed, np.uint8)
    first = np.frombuffer(start[begin : begin + needed], np.uint8)
    voxels[: len(first)] = first
    _skip(file, begin - len(start))
    into, at = voxels.data, len(first)
    while at < needed:
        got = file.readinto(into[at : at + _CHUNK])  # type: ignore[attr-defined]
        if not got:
            raise _truncated(name, at, needed)
        at += got
    _skip(file, _AFTER)
    return voxels


def _skip(file: IO[bytes], count: int) -> None:
    """Read this many bytes, or as many as there are."""
    while count > 0 and (got := len(file.read(min(count, _CHUNK)))):
        count -= got


@contextmanager
def _unpacking(name: str) -> Iterator[None]:
    """What is wrong with compressed data becomes a `BadFile`."""
    try:
        yield
    except EOFError:
        raise BadFile(name, "truncated: its compressed data end too early") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise BadFile(name, f"damaged: {error}") from None


def _truncated(name: str, there: int, needed: int) -> BadFile:
    return BadFile(name, f"truncated: {max(there, 0)} of {needed} bytes of voxels")


def _unzipped(file: IO[bytes], stack: ExitStack) -> IO[bytes]:
    """The file's content, whether it is compressed or not. stack: closes what is opened for it."""
    compressed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    return cast(IO[bytes], stack.enter_context(gzip.GzipFile(fileobj=file))) if compressed else file


def _header(name: str, raw: bytes) -> Any:
    """Unchecked, because `nibabel` mends what it checks, and a spacing of 0 would become 1."""
    nifti1, nifti2 = require("nibabel.nifti1", "volumes"), require("nibabel.nifti2", "volumes")
    kinds = {b"n+1\0": (nifti1.Nifti1Header, 348), b"n+2\0": (nifti2.Nifti2Header, _HEADER)}
    magic = raw[344:348] if raw[344:348] in (b"n+1\0", b"ni1\0") else raw[4:8]
    if magic in (b"ni1\0", b"ni2\0") or (magic not in kinds and raw[:4] in _ANALYZE):
        raise BadFile(name, "the header of a .hdr and .img pair: save it as one .nii file")
    if magic not in kinds:
        raise BadFile(name, f"not a NIfTI file: it starts with {raw[:8]!r}")
    kind, length = kinds[magic]
    return kind(raw[:length], check=False)


def _read_npz(name: str, data: bytes, ratio: int) -> Content:
    if not data.startswith(b"PK"):
        raise BadFile(name, f"not an .npz file: it starts with {data[:8]!r}")
    with damage_named(name), np.load(BytesIO(data), allow_pickle=False) as archive:

        def read(key: str, ratio: int) -> np.ndarray:
            return load_member(name, archive, key, ratio=ratio)

        spacing = None
        if "spacing" in archive.files:
            _check_spacing(name, member_header(archive, "spacing").shape)
            spacing = read("spacing", RATIO)
        return _content(name, archive.files, read, spacing, ratio)


def _read_hdf5(path: Path, name: str, ratio: int) -> Content:
    with damage_named(name), open_hdf5(path, name) as file:
        held = path.stat().st_size

        def read(key: str, ratio: int) -> np.ndarray:
            array = known[key]
            _check_dtype(name, array.dtype)
            check_unpacked(name, array.size * array.dtype.itemsize, held, ratio)
            check_memory(name, array.size * array.dtype.itemsize)
            return np.asarray(array[...])

        names = list(file)
        known = {key: dataset(name, file, key) for key in (*_IMAGE, *_MASK, "spacing") if key in names}
        names = [key for key in names if known.get(key, key) is not None]  # a group is no array
        places = [file, *(found for key, found in known.items() if found is not None and key != "spacing")]
        spacing = next((place.attrs["spacing"] for place in places if "spacing" in place.attrs), None)
        if spacing is None and "spacing" in names:
            _check_spacing(name, known["spacing"].shape)
            spacing = read("spacing", RATIO)
        return _content(name, names, read, spacing, ratio)


def _content(
    name: str, names: Collection[str], read: Callable[[str, int], np.ndarray], spacing: Any, ratio: int
) -> Content:
    """What an archive holds. read: an array by its name, and how many times its size it may unpack to."""
    image, mask = (next((key for key in keys if key in names), None) for keys in (_IMAGE, _MASK))
    if image is None and mask is None:
        held = ", ".join(sorted(names)[:8]) or "nothing"
        raise BadFile(name, f"no array called {', '.join(_IMAGE)}: it holds {held}")
    affine = None if spacing is None else _placed(name, np.asarray(spacing))
    voxels = None if image is None else read(image, ratio)
    return Content(voxels, None if mask is None else read(mask, MASK_RATIO), affine)


def _check_spacing(name: str, shape: tuple[int, ...]) -> None:
    """Before it is read, because it can be of any size."""
    if prod(shape) > _SPACINGS:
        raise BadFile(name, f"its spacing has shape {shape}: three numbers in mm are needed")


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
