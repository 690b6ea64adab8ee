"""Masks at the side of the stored images, kept in the cache: decoded once, mapped from the disk."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np
from filelock import FileLock

from tacit.data.image.build import quiet
from tacit.data.image.decoding import orientation_of
from tacit.data.image.mask_files import VALUES, Seen, read_mask
from tacit.data.options import Options, cache_errors
from tacit.data.progress import counted
from tacit.errors import BadFile, TacitError, Unreadable
from tacit.files import replacing, write_atomically

FORMAT = 3  # raised whenever the same files would give other masks
_AT_ONCE = 64  # masks that are decoded before they are written


class MaskFile(NamedTuple):
    """A mask and its image. image_size: the height and width of the image, upright.

    state, image_state: size and time of either file, in bytes and ns.
    """

    name: str
    path: Path
    image: Path
    image_size: tuple[int, int]
    state: tuple[int, int]
    image_state: tuple[int, int]


@dataclass(frozen=True, slots=True)
class StoredMasks:
    """M masks as one array of the files' values, (M, S, S) uint8, and what is known of the files.

    seen: the values that occur. bad: why masks could not be used, by number; they are 0 in the array.
    digests: (M,) hex, of the files' bytes. orientations: (M,) of the images, as EXIF numbers them.
    """

    path: Path
    seen: dict[int, Seen]
    bad: dict[int, str]
    digests: tuple[str, ...]
    orientations: tuple[int, ...]

    def open(self) -> np.ndarray:
        """The array, mapped.

        Raises:
            TacitError: it is gone or damaged.
        """
        try:
            return np.load(self.path, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise TacitError(
                f"cannot read the decoded masks {self.path}: {error}; open the data again"
            ) from None


def store_masks(files: Sequence[MaskFile], side: int, options: Options) -> StoredMasks:
    """These masks, found in the cache or decoded now.

    Each pixel of the stored square takes the value of the mask's pixel that its centre lies in.

    Raises:
        TacitError: the cache cannot be written.
    """
    folder = options.stores.with_name("masks")
    path = folder / f"{_key(files, side)}.npy"
    shape = (len(files), side, side)
    if (found := _found(path, shape, files)) is not None:
        return found
    with cache_errors(folder, "decoded masks"), _alone(options, path):
        for left in folder.glob(f".{path.stem}*"):  # of a process that was killed
            left.unlink(missing_ok=True)
        return _found(path, shape, files) or _built(path, files, side, options)


@contextmanager
def _alone(options: Options, path: Path) -> Iterator[None]:
    """Within the block no other process decodes these masks."""
    options.locks.mkdir(parents=True, exist_ok=True)
    with FileLock(options.locks / f"masks-{path.stem}.lock"):
        yield


def nearest(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """(..., H, W) brought to (..., height, width): each pixel takes the value at its centre."""
    rows, columns = _at_centres(values.shape[-2], height), _at_centres(values.shape[-1], width)
    return values[..., rows[:, None], columns]


def _at_centres(inputs: int, outputs: int) -> np.ndarray:
    return (2 * np.arange(outputs) + 1) * inputs // (2 * outputs)


def _key(files: Sequence[MaskFile], side: int) -> str:
    key = blake2b(f"{FORMAT} {side}".encode(), digest_size=16)
    for file in files:
        key.update(os.fsencode(file.path) + b"\0" + os.fsencode(file.image) + b"\0")
        key.update(f"{file.image_size} {file.state} {file.image_state}\0".encode())
    return key.hexdigest()


def _found(path: Path, shape: tuple[int, ...], files: Sequence[MaskFile]) -> StoredMasks | None:
    """What was stored completely; None if it is absent or damaged, or lacks a mask that can be read now."""
    try:
        notes = json.loads(path.with_suffix(".json").read_text())
        if np.load(path, mmap_mode="r").shape != shape or len(notes["digests"]) != shape[0]:
            return None
        if not all(_decoded(files[row], 1).passing for row in notes["unreadable"]):
            return None
        return StoredMasks(
            path,
            {int(value): Seen(*each) for value, each in notes["seen"].items()},
            {int(row): reason for row, reason in notes["bad"].items()},
            tuple(notes["digests"]),
            tuple(notes["orientations"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _built(path: Path, files: Sequence[MaskFile], side: int, options: Options) -> StoredMasks:
    path.with_suffix(".json").unlink(missing_ok=True)
    seen: dict[int, Seen] = {}
    bad: dict[int, str] = {}
    unreadable: list[int] = []
    digests, orientations = [], []
    with quiet(), ThreadPoolExecutor(options.threads, "masks") as pool, replacing(path) as out:
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(files), side, side)}
        np.lib.format.write_array_header_1_0(out, header)
        results = counted(_all_decoded(files, side, pool), len(files), options.progress, "decoding masks")
        for row, (file, result) in enumerate(zip(files, results, strict=True)):
            out.write(result.pixels.tobytes())
            digests.append(result.digest)
            orientations.append(result.orientation)
            if result.reason:
                bad[row] = result.reason
            if result.passing:
                unreadable.append(row)
            for value in np.flatnonzero(result.counts).tolist():
                pixels, first = seen.get(value, (0, file.name))
                seen[value] = Seen(pixels + int(result.counts[value]), first)
    notes = {
        "seen": seen,
        "bad": bad,
        "unreadable": unreadable,
        "digests": digests,
        "orientations": orientations,
    }
    write_atomically(path.with_suffix(".json"), json.dumps(notes))
    return StoredMasks(path, seen, bad, tuple(digests), tuple(orientations))


class _Decoded(NamedTuple):
    """passing: whether it could not be read, and perhaps can be another time."""

    pixels: np.ndarray
    counts: np.ndarray
    digest: str
    orientation: int
    reason: str = ""
    passing: bool = False


def _decoded(file: MaskFile, side: int) -> _Decoded:
    try:
        orientation = orientation_of(file.image)
        values, data = read_mask(file.path, file.name, file.image_size, orientation)
    except BadFile as bad:
        nothing = np.zeros((side, side), np.uint8), np.zeros(VALUES, np.int64)
        return _Decoded(*nothing, "", 1, bad.reason, isinstance(bad, Unreadable))
    counts = np.bincount(values.ravel(), minlength=VALUES)
    digest = blake2b(data, digest_size=16).hexdigest()
    return _Decoded(nearest(values, side, side), counts, digest, orientation)


def _all_decoded(files: Sequence[MaskFile], side: int, pool: ThreadPoolExecutor) -> Iterator[_Decoded]:
    """The masks in order, some at a time."""
    for begin in range(0, len(files), _AT_ONCE):
        yield from pool.map(lambda file: _decoded(file, side), files[begin : begin + _AT_ONCE])
