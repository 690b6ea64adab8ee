"""Images that were decoded once, from which a batch is a few reads.

A store is a folder: `pixels.npy` (N, C, S, S) uint8, `true_size.npy` (N, 2) int32, `names.safetensors`,
and `store.json` with the rest. `build.py` writes it; it is never changed afterwards.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tacit.batch import Samples
from tacit.data.image.decoding import Form
from tacit.data.names import Names
from tacit.data.source import Sample, Skipped, Source, Spec
from tacit.errors import TacitError

FORMAT = 3  # raised whenever the same files would give other pixels, or the folder another content


class Images(Source):
    """Images of one size in one array, (N, C, S, S) uint8.

    pixels: the array, in memory or mapped from the disk.
    true_size: (N, 2) float32, height and width before the images were made square; in the `extra` of
        samples and batches.
    root: the folder below which the images' names are paths; None where images are not files.
    """

    def __init__(
        self, pixels: np.ndarray, true_size: np.ndarray, names: Sequence[str], fingerprint: str = ""
    ) -> None:
        super().__init__(Spec("image", pixels.shape[1:]), names, fingerprint=fingerprint)
        self.pixels = pixels
        self.root: Path | None = None
        self.true_size = torch.from_numpy(true_size.astype(np.float32))

    def __getitem__(self, i: int) -> Sample:
        i = range(len(self))[i]
        return Sample(
            torch.from_numpy(self._read(np.array([i]))[0]),
            index=i,
            label=int(self.labels[i]),
            name=self.names[i],
            extra={"true_size": self.true_size[i]},
        )

    def batch(self, index: Sequence[int] | np.ndarray | Tensor) -> Samples:
        """The samples at these positions, (B, C, S, S) uint8."""
        positions = torch.as_tensor(index, dtype=torch.int64, device="cpu")
        return Samples(
            torch.from_numpy(self._read(positions.numpy())),
            index=positions,
            extra={"true_size": self.true_size[positions]},
        )

    def _read(self, positions: np.ndarray) -> np.ndarray:
        """(B, C, S, S) uint8, a copy."""
        return self.pixels[positions]


class StoredImages(Images):
    """`Images` from a store on the disk; a pickled copy opens the same files again.

    pixels: mapped, for those who want the whole array. Batches do not go through it, because every page
    that was read through a mapping counts as memory of the process (978 MB after one pass over as many
    of pixels, against 18 MB), and because a disk that fails would kill the process by a signal. A batch
    of 256 costs 0.5 ms more so at 8 x 8 px and the same at 256 x 256 (on one core).

    folder: where the store is. white: the value of images with more than 8 bits that became 255.
    brightest: the largest value that was seen in them; 0 without any. unreadable: positions of originals that
    are left out because they could not be read when the store was built, and perhaps can be now.
    """

    def __init__(self, folder: Path) -> None:
        meta = json.loads((folder / "store.json").read_text())
        if meta["format"] != FORMAT:
            raise ValueError(f"{folder} has another format")
        self.folder = folder
        self._open()
        names = Names.load(folder / "names.safetensors")
        true_size = np.load(folder / "true_size.npy", mmap_mode="r")
        count, *_ = shape = list(self.pixels.shape)
        if shape != meta["shape"] or not count == len(names) == len(true_size):
            raise ValueError(f"{folder} is damaged")
        super().__init__(self.pixels, true_size, names, meta["fingerprint"])
        self.skipped = tuple(Skipped(*entry) for entry in meta["skipped"])
        self.white: int = meta["white"]
        self.brightest: int = meta["brightest"]
        if self.brightest:
            self.spec = replace(self.spec, white=self.white)
        self._left_out: list[int] = meta["left_out"]
        self.unreadable: tuple[int, ...] = tuple(meta["unreadable"])

    @property
    def form(self) -> Form:
        """What its images were brought to."""
        channels, size, _ = self.spec.shape
        return Form(channels, size, self.white, self.brightest)

    def kept(self, values: np.ndarray) -> np.ndarray:
        """Those rows of what is known of each original, (originals, ...), that belong to a stored image."""
        return np.delete(values, self._left_out, axis=0) if self._left_out else values

    def _read(self, positions: np.ndarray) -> np.ndarray:
        if not len(positions):
            return np.empty((0, *self.spec.shape), np.uint8)
        if not -len(self) <= positions.min() <= positions.max() < len(self):
            raise IndexError(f"positions must be below {len(self)}")
        positions = positions % len(self)
        pixels = np.empty((len(positions), *self.spec.shape), np.uint8)
        into, row = pixels.data.cast("B"), int(np.prod(self.spec.shape))
        runs = [0, *(np.flatnonzero(np.diff(positions) != 1) + 1).tolist(), len(positions)]
        try:
            for first, end in pairwise(runs):
                self._file.read(int(positions[first]) * row, into[first * row : end * row])
        except OSError as error:
            raise TacitError(
                f"cannot read the decoded images: {error.strerror or error}; "
                f"remove {self.folder} to have them decoded again"
            ) from None
        return pixels

    def _open(self) -> None:
        mapped = np.load(self.folder / "pixels.npy", mmap_mode="r")
        self.pixels = mapped.view(np.ndarray)
        self._file = _Bytes(self.folder / "pixels.npy", mapped.offset)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "pixels": None, "_file": None}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._open()


class _Bytes:
    """A file from `begin` on. It has no position, so processes that were forked can share it."""

    def __init__(self, path: Path, begin: int) -> None:
        self.begin = begin
        self.handle = os.open(path, os.O_RDONLY)

    def read(self, begin: int, into: memoryview) -> None:
        done = 0
        while done < len(into):  # one read gives at most 2 GiB
            got = os.preadv(self.handle, [into[done:]], self.begin + begin + done)
            if not got:
                raise OSError("pixels.npy has become shorter")
            done += got

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        if hasattr(self, "handle"):  # at the interpreter's end `os` may be gone already
            close(self.handle)


def find_store(folder: Path) -> StoredImages | None:
    """The store in this folder; None if it is absent, damaged or of another version."""
    try:
        return StoredImages(folder)
    except (OSError, ValueError, KeyError, TypeError):
        return None
