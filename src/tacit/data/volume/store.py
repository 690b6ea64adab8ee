"""Volumes that were decoded once, from which a box is one short read.

Of each volume the store keeps `KEY.npy`, (C, X, Y, Z) in the smallest type that loses nothing (float32
where values are fractions), `KEY.mask.npy`, (X, Y, Z) uint8, and `KEY.json` with the rest, which is written
last. The key is made of the files' paths, sizes and times and of the spacing, so that one more file is one
more to decode, and decoding that was stopped goes on where it was.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from tacit.data.limits import ROOM
from tacit.data.options import Options, cache_errors
from tacit.data.progress import counted
from tacit.data.volume.files import check_labels, memory_for
from tacit.data.volume.grid import (
    Resolution,
    canonical_shape,
    check_together,
    spacing_of,
    to_canonical,
)
from tacit.data.volume.windows import Range
from tacit.errors import BadFile, TacitError
from tacit.files import replacing, write_atomically

FORMAT = 2  # raised whenever the same files would give other voxels, or the store another content
_MANY = 100  # values of voxels after which no more are counted
_ABANDONED = 24 * 3600.0  # seconds after which an unfinished file is swept away
_COMPACT = (np.uint8, np.int16, np.uint16, np.int32)


class Loaded(NamedTuple):
    """A volume as its files have it.

    voxels: (X, Y, Z) or (X, Y, Z, C), checked. affine: (4, 4). mask: (X, Y, Z) or None, not checked.
    mask_affine: of a mask that is a file of its own and says where it lies. notes: what is unusual of the
    files.
    """

    voxels: np.ndarray
    affine: np.ndarray
    mask: np.ndarray | None = None
    mask_affine: np.ndarray | None = None
    notes: tuple[str, ...] = ()


class Case(Protocol):
    """What one volume of a store is made from."""

    @property
    def name(self) -> str:
        """What it is called in errors."""

    @property
    def origin(self) -> Path:
        """The file that holds the voxels."""

    def identity(self) -> bytes:
        """What changes whenever the volume may have changed; cheap."""

    def load(self) -> Loaded:
        """The voxels and the mask; raises `BadFile`."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a decoded volume; lists, as JSON keeps them.

    shape: (C, X, Y, Z) on the working grid. affine: 4 x 4 of that grid. factor: see `Resolution`.
    origin_shape, origin_affine: the grid of the file. values: see `Range`, 4 x C. peaks: the largest value
    of each axial slice, C x Z. labels: the values that the mask holds, ascending; None without a mask.
    digest: of the voxels, the grid and the mask before resampling. notes: what is unusual of the file.
    distinct: how many values the voxels have, counted up to about 100; 0 if they are no whole numbers.
    """

    shape: list[int]
    affine: list[list[float]]
    factor: list[float]
    origin_shape: list[int]
    origin_affine: list[list[float]]
    values: list[list[float]]
    peaks: list[list[float]]
    labels: list[int] | None
    digest: str
    notes: list[str]
    distinct: int


class Stored(NamedTuple):
    """A decoded volume on the disk. stem: its path without `.npy`. origin: the file that it comes from."""

    stem: Path
    origin: Path
    facts: Facts

    @property
    def voxels(self) -> Path:
        """The file of its voxels."""
        return self.stem.with_name(f"{self.stem.name}.npy")

    @property
    def mask(self) -> Path:
        """The file of its mask."""
        return self.stem.with_name(f"{self.stem.name}.mask.npy")

    @property
    def values(self) -> Range:
        """The range of its values."""
        return Range(*(np.array(row) for row in self.facts.values))


def store_volumes(
    cases: Sequence[Case], options: Options, spacing: tuple[float, ...] | None
) -> list[Stored | BadFile]:
    """Each volume decoded: found, or decoded now by threads.

    Two processes that want the same volume may both decode it; each writes it whole, and both are the same.

    Raises:
        BadFile: a volume cannot be used and `on_bad_file` is "stop"; the first one in order that is decoded
            now.
        TacitError: the cache cannot be written.
    """
    folder = options.stores.with_name("volumes")
    stems = [folder / _key(case, spacing) for case in cases]
    found: list[Stored | BadFile | None] = [
        _found(stem, case.origin) for stem, case in zip(stems, cases, strict=True)
    ]
    absent = [i for i, stored in enumerate(found) if stored is None]
    if not absent:
        return [stored for stored in found if stored is not None]

    def work(i: int) -> Stored | BadFile:
        try:
            return _write(stems[i], cases[i], spacing)
        except BadFile as bad:
            return bad

    pool = ThreadPoolExecutor(options.threads, thread_name_prefix="decode")
    with cache_errors(folder, "decoded volumes"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _sweep(folder)
            results = counted(
                pool.map(work, absent), len(cases), options.progress, begun=len(cases) - len(absent)
            )
            for i, result in zip(absent, results, strict=True):
                if isinstance(result, BadFile) and options.on_bad_file == "stop":
                    raise result
                found[i] = result
        finally:
            pool.shutdown(cancel_futures=True)
    return [stored for stored in found if stored is not None]


def read_box(path: Path, start: Sequence[int], stop: Sequence[int]) -> np.ndarray:
    """The voxels from `start` to before `stop`, (C, X, Y, Z) or (X, Y, Z), a copy.

    The file is mapped for this read only: pages that were read through a mapping count as memory of the
    process as long as it lives, which with a map per volume would be all volumes.

    Raises:
        TacitError: the file is gone or was cut off.
    """
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        return np.array(mapped[(..., *box)])
    except (OSError, ValueError) as error:
        cause = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise TacitError(
            f"cannot read the decoded volume {path}: {cause}; remove it to have it decoded again"
        ) from None


def _key(case: Case, spacing: tuple[float, ...] | None) -> str:
    key = blake2b(digest_size=16)
    key.update(f"{FORMAT} {None if spacing is None else [float(side) for side in spacing]}\0".encode())
    key.update(case.identity())
    return key.hexdigest()


def _found(stem: Path, origin: Path) -> Stored | None:
    """What is kept there; None if it is absent or damaged."""
    try:
        facts = Facts(**json.loads(stem.with_name(f"{stem.name}.json").read_text()))
        stored = Stored(stem, origin, facts)
        count = int(np.prod(facts.shape))
        whole = stored.voxels.stat().st_size > count
        if facts.labels is not None:
            whole &= stored.mask.stat().st_size > count // facts.shape[0]
        return stored if whole else None
    except (OSError, ValueError, TypeError):
        return None


def _write(stem: Path, case: Case, spacing: tuple[float, ...] | None) -> Stored:
    with ROOM.taken(case.name, memory_for(case.origin)):
        voxels, mask, facts = decode(case, spacing)
        stored = Stored(stem, case.origin, facts)
        _save(stored.voxels, voxels)
        if mask is not None:
            _save(stored.mask, mask)
    write_atomically(stem.with_name(f"{stem.name}.json"), json.dumps(asdict(facts)))
    return stored


def _save(path: Path, array: np.ndarray) -> None:
    with replacing(path) as file:
        np.save(file, _in_order(array), allow_pickle=False)


def _in_order(array: np.ndarray) -> np.ndarray:
    """The array with its last axis next to each other in memory, as boxes are read fastest.

    NIfTI files have the first so. Turned around plane by plane 512 x 512 x 256 voxels take 1.2 s, at once
    (`np.ascontiguousarray`) 3.5 s.
    """
    if array.flags.c_contiguous:
        return array
    turned = np.empty(array.shape, array.dtype)
    for y in range(array.shape[-2]):
        turned[..., y, :] = array[..., y, :]
    return turned


def decode(case: Case, spacing: tuple[float, ...] | None) -> tuple[np.ndarray, np.ndarray | None, Facts]:
    """A volume on its working grid: (C, X, Y, Z) voxels, the (X, Y, Z) uint8 mask or None, and the facts.

    The working grid is the canonical one (see `volume_grid`), at the spacing (mm) if one is given: voxels
    are interpolated linearly, masks take the nearest.

    Raises:
        BadFile: it cannot be used.
    """
    name, loaded = case.name, case.load()
    turned, affine = to_canonical(loaded.voxels, loaded.affine)
    channels = compact(name, turned[None] if turned.ndim == 3 else np.moveaxis(turned, 3, 0))
    mask = _canonical_mask(name, loaded, affine)
    digest = _digest(channels, affine + 0.0, mask)  # no -0.0
    distinct = _distinct(channels)
    resolution = Resolution.between(spacing_of(affine), spacing)
    if resolution.changes:
        channels = np.stack([resolution.linear(channel) for channel in channels])
        affine = resolution.affine(affine)
        mask = None if mask is None else resolution.nearest(mask)
    facts = Facts(
        shape=list(channels.shape),
        affine=affine.tolist(),
        factor=list(resolution.factor),
        origin_shape=list(loaded.voxels.shape[:3]),
        origin_affine=loaded.affine.tolist(),
        values=[part.tolist() for part in Range.of(channels)],
        peaks=channels.max((1, 2)).astype(np.float64).tolist(),
        labels=None if mask is None else np.unique(mask.ravel(order="K")).tolist(),
        digest=digest,
        notes=list(loaded.notes),
        distinct=distinct,
    )
    return channels, mask, facts


def _canonical_mask(name: str, loaded: Loaded, affine: np.ndarray) -> np.ndarray | None:
    if loaded.mask is None:
        return None
    mask_affine = loaded.affine if loaded.mask_affine is None else loaded.mask_affine
    mask = check_labels(name, loaded.mask)
    mask, mask_affine = to_canonical(mask, mask_affine)
    shape = canonical_shape(loaded.voxels.shape[:3], loaded.affine)
    if mask.shape != shape:
        raise BadFile(name, f"its mask has shape {loaded.mask.shape}, the volume {loaded.voxels.shape[:3]}")
    check_together(name, affine, mask_affine, shape)
    return mask


def compact(name: str, voxels: np.ndarray) -> np.ndarray:
    """Voxels in the smallest of uint8, int16, uint16, int32 and float32 that loses nothing of float32.

    Raises:
        BadFile: numbers beyond those of float32, or nearly equal ones that it cannot tell apart.
    """
    low, high = voxels.min(), voxels.max()
    _check_range(name, float(low), float(high))
    if voxels.dtype.kind != "f" or np.array_equal(voxels, np.rint(voxels)):
        for kind in _COMPACT:
            if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
                return voxels.astype(kind, copy=False)
    return voxels.astype(np.float32, copy=False)


def _check_range(name: str, low: float, high: float) -> None:
    """Whether float32 holds such voxels, and at least 256 values between the lowest and the highest."""
    largest = max(abs(low), abs(high))
    if largest > float(np.finfo(np.float32).max):
        raise BadFile(name, f"voxels from {low:g} to {high:g}: they do not fit into 32 bits")
    if high - low < 256 * float(np.spacing(np.float32(largest))):
        raise BadFile(
            name, f"voxels from {low:.9g} to {high:.9g}: 32 bits cannot tell them apart; subtract an offset"
        )


def _distinct(voxels: np.ndarray) -> int:
    """See `Facts`. Slice by slice, because nearly all volumes show many values in the first."""
    if voxels.dtype.kind == "f":
        return 0
    seen = np.empty(0, voxels.dtype)
    for part in np.moveaxis(voxels, -1, 0):
        seen = np.union1d(seen, part)
        if len(seen) > _MANY:
            break
    return len(seen)


def _digest(voxels: np.ndarray, affine: np.ndarray, mask: np.ndarray | None) -> str:
    """Of the values in the order in which the file has them, which is the quickest to go through."""
    digest = blake2b(f"{voxels.shape} {voxels.dtype.name}".encode(), digest_size=16)
    for part in (voxels, affine, *(() if mask is None else (mask,))):
        digest.update(part.ravel(order="K").view(np.uint8).data)
    return digest.hexdigest()


def _sweep(folder: Path) -> None:
    """Remove what processes have left that were killed long ago."""
    for left in folder.glob(".*"):
        try:
            if time.time() - left.stat().st_mtime > _ABANDONED:
                left.unlink()
        except OSError:  # just finished, or just removed, by another process
            continue
