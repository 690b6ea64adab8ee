"""Images decoded once into a memory-mapped uint8 array, from which a batch is one read.

Threads decode, because Pillow releases the interpreter lock: 2,000 JPEGs of 256 x 256 px on two cores
took 675/s one by one, 1,234/s with two threads and 1,272/s with two processes.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tacit.batch import Batch
from tacit.data.decoding import FULL_WHITE, Decoded, Form, Header, white_above
from tacit.data.progress import counted
from tacit.data.source import Sample, Skipped, Source, Spec
from tacit.errors import BadFile, TacitError, UsageError
from tacit.files import write_atomically

FORMAT = 1  # raised whenever the same files would give other pixels
LOOKED_AT = 256  # images that decide on size, channels and white
LARGEST_AUTOMATIC = 256  # pixels, by default
_CHUNK = 16
_ABANDONED = 24 * 3600.0  # seconds without a write after which a half-built store is swept away


@dataclass(frozen=True, slots=True)
class Options:
    """How to decode and where to keep: the keyword arguments of `open_source`."""

    size: int | None = None
    channels: int | None = None
    on_bad_file: Literal["stop", "skip"] = "stop"
    cache: Path | None = None
    progress: bool = True
    workers: int | None = None
    max_size: int = LARGEST_AUTOMATIC

    @property
    def threads(self) -> int:
        """Number of decoding threads: `workers`, or the processor cores that this process may use."""
        allowed = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0)
        return self.workers or len(allowed)

    @property
    def stores(self) -> Path:
        """The folder of all stores: below `cache`, or $TACIT_CACHE, or the user's cache folder."""
        user = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        cache = self.cache or os.environ.get("TACIT_CACHE") or Path(user) / "tacit"
        return Path(cache).expanduser().absolute() / "images"

    @property
    def aliases(self) -> Path:
        """The folder of files that are named by wishes (side, channels) and hold the name of a store."""
        return self.stores.with_name("aliases")


class Originals(Protocol):
    """What a store is built from: files of a folder, rows of a data set, arrays of an archive."""

    @property
    def names(self) -> Sequence[str]:
        """(N,) one name each, in order."""

    def identity(self) -> Iterable[bytes]:
        """What changes whenever the originals may have changed; cheap, nothing is decoded for it."""

    def white_from(self) -> Sequence[int]:
        """Positions whose `peak` fixes the white of images with more than 8 bits."""

    def header(self, i: int) -> Header:
        """Size and kind of one image; raises `BadFile`."""

    def peak(self, i: int) -> int:
        """The largest value of one image with more than 8 bits; 0 for any other."""

    def decode(self, i: int, form: Form) -> Decoded:
        """One image in the form of the store; raises `BadFile`."""


class Images(Source):
    """Images of one size in one array, (N, C, S, S) uint8.

    pixels: the array, in memory or mapped from the disk.
    true_size: (N, 2) float32, height and width before the images were made square; in the `extra` of
        samples and batches.
    """

    def __init__(
        self, pixels: np.ndarray, true_size: np.ndarray, names: Sequence[str], fingerprint: str = ""
    ) -> None:
        super().__init__(Spec("image", pixels.shape[1:]), names, fingerprint=fingerprint)
        self.pixels = pixels
        self.true_size = torch.from_numpy(true_size.astype(np.float32))

    def __getitem__(self, i: int) -> Sample:
        i = range(len(self))[i]
        return Sample(
            torch.from_numpy(self.pixels[i].copy()),
            index=i,
            label=int(self.labels[i]),
            name=self.names[i],
            extra={"true_size": self.true_size[i]},
        )

    def batch(self, index: Sequence[int] | np.ndarray | Tensor) -> Batch:
        """The samples at these positions: one read of the array, (B, C, S, S) uint8."""
        positions = torch.as_tensor(index, dtype=torch.int64, device="cpu")
        return Batch(
            unlabelled=torch.from_numpy(self.pixels[positions.numpy()]),
            index=positions,
            extra={"true_size": self.true_size[positions]},
        )


class StoredImages(Images):
    """`Images` mapped from a store on the disk; a pickled copy maps the same file again.

    folder: where the store lies. white: the value of images with more than 8 bits that became 255.
    """

    def __init__(self, folder: Path) -> None:
        meta = json.loads((folder / "store.json").read_text())
        pixels = _mapped(folder)
        if meta["format"] != FORMAT or pixels.shape != tuple(meta["shape"]):
            raise ValueError("not a store of this version")
        names = json.loads((folder / "names.json").read_text())
        super().__init__(pixels, np.load(folder / "true_size.npy"), names, meta["fingerprint"])
        self.skipped = tuple(Skipped(*entry) for entry in meta["skipped"])
        self.folder = folder
        self.white: int = meta["white"]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "pixels": None}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self.pixels = _mapped(self.folder)


def store_images(originals: Originals, options: Options) -> StoredImages:
    """The store of these originals: found, or decoded now.

    Two processes may build the same store at once; the one that ends later takes the other's. A build
    that is interrupted leaves nothing that could be taken for a store.

    Raises:
        BadFile: a file cannot be used and `on_bad_file` is "stop"; the first one in the order of names.
        TacitError: no file can be used, or the cache cannot be written.
    """
    alias = options.aliases / _key(originals, options.size, options.max_size, options.channels)
    store = _aliased(alias, options.stores) or _built(alias, originals, options)
    if store.skipped and options.on_bad_file == "stop":
        raise BadFile(*store.skipped[0])
    return store


def evenly(positions: Sequence[int], most: int = LOOKED_AT) -> list[int]:
    """At most `most` of the positions, evenly spaced, the first and the last among them."""
    chosen = np.linspace(0, len(positions) - 1, min(len(positions), most)).round().astype(int)
    return [positions[i] for i in chosen]


def fingerprint_of(names: Iterable[str], digests: Iterable[bytes]) -> str:
    """Hex digest of (name, digest) pairs: of the content, wherever it lies."""
    whole = blake2b(digest_size=16)
    for name, digest in zip(names, digests, strict=True):
        whole.update(os.fsencode(name) + b"\0" + digest)
    return whole.hexdigest()


def plan(originals: Originals, options: Options, pool: ThreadPoolExecutor) -> Form:
    """Channels, side and white of the store, from the headers of evenly spaced images.

    The side is the median of sqrt(height x width), at most `max_size`. One channel if all are grey, three if
    some are coloured; arrays with other numbers of channels keep theirs.
    """
    chosen = evenly(range(len(originals.names)))
    headers = [h for h in pool.map(lambda i: _header_or_none(originals, i), chosen) if h]
    channels, size = options.channels, options.size
    if channels is None:
        counts = Counter(h.channels for h in headers) or Counter([3])
        common = counts.most_common(1)[0][0]
        channels = common if len(counts) == 1 else 3 if set(counts) <= {1, 3} else common
    elif channels not in (1, 3, 4) and all(h.channels != channels for h in headers):
        raise UsageError(f"channels must be 1, 3 or 4 for these images, not {channels}")
    if size is None:
        sides = [np.sqrt(h.height * h.width) for h in headers] or [options.max_size]
        size = min(round(float(np.median(sides))), options.max_size)
    highest = max(pool.map(originals.peak, originals.white_from()), default=0)
    return Form(channels, size, white_above(highest) if highest else FULL_WHITE)


def _header_or_none(originals: Originals, i: int) -> Header | None:
    try:
        return originals.header(i)
    except BadFile:
        return None


def _mapped(folder: Path) -> np.ndarray:
    return np.load(folder / "pixels.npy", mmap_mode="r").view(np.ndarray)


def _key(originals: Originals, *form: int | None) -> str:
    key = blake2b(digest_size=16)
    key.update(f"{FORMAT} {form}".encode())
    for part in originals.identity():
        key.update(len(part).to_bytes(8, "little") + part)
    return key.hexdigest()


def _found(folder: Path) -> StoredImages | None:
    try:
        return StoredImages(folder)
    except (OSError, ValueError, KeyError, TypeError):  # absent, or damaged from outside
        return None


def _aliased(alias: Path, stores: Path) -> StoredImages | None:
    """The store that was chosen for these wishes before, so that no header needs to be read again."""
    try:
        return _found(stores / alias.read_text())
    except OSError:
        return None


def _built(alias: Path, originals: Originals, options: Options) -> StoredImages:
    """The store of the planned form; other wishes that lead to the same form share it."""
    stores = options.stores
    with _cache_errors(stores), _quiet():
        stores.mkdir(parents=True, exist_ok=True)
        _sweep(stores)
        pool = ThreadPoolExecutor(options.threads, thread_name_prefix="decode")
        try:
            form = plan(originals, options, pool)
            folder = stores / _key(originals, form.channels, form.size, form.white)
            if _found(folder) is None:
                _build(folder, originals, form, options, pool)
        finally:
            pool.shutdown(cancel_futures=True)
        write_atomically(alias, folder.name)
    return StoredImages(folder)


def _build(
    folder: Path, originals: Originals, form: Form, options: Options, pool: ThreadPoolExecutor
) -> None:
    _check_room(folder.parent, len(originals.names) * form.channels * form.size**2)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _write(temporary, originals, form, options, pool)
        _publish(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(
    folder: Path, originals: Originals, form: Form, options: Options, pool: ThreadPoolExecutor
) -> None:
    kept: list[str] = []
    true_size: list[tuple[int, int]] = []
    digests: list[bytes] = []
    skipped: list[Skipped] = []
    names = originals.names
    with open(folder / "pixels.npy", "wb") as file:
        _write_npy_header(file, 0, form)
        results = _decoded(originals, form, pool, 4 * options.threads)
        for name, result in zip(names, counted(results, len(names), options.progress), strict=True):
            if isinstance(result, BadFile):
                if options.on_bad_file == "stop":
                    raise result
                skipped.append(Skipped(result.name, result.reason))
                continue
            file.write(result.pixels.data)
            kept.append(name)
            true_size.append(result.true_size)
            digests.append(result.digest)
        if not kept:
            raise TacitError(
                f"none of the {len(names)} images can be used; {skipped[0].name}: {skipped[0].reason}"
            )
        _write_npy_header(file, len(kept), form)
        _flush(file)
    meta = {
        "format": FORMAT,
        "shape": [len(kept), form.channels, form.size, form.size],
        "white": form.white,
        "fingerprint": fingerprint_of(kept, digests),
        "skipped": skipped,
    }
    with open(folder / "true_size.npy", "wb") as file:
        np.save(file, np.array(true_size, np.int32))
        _flush(file)
    for part, content in (("names.json", kept), ("store.json", meta)):
        with open(folder / part, "wb") as file:
            file.write(json.dumps(content).encode())
            _flush(file)


def _write_npy_header(file: BinaryIO, count: int, form: Form) -> None:
    """The header of `pixels.npy`; numpy pads it so that its length does not depend on the count."""
    shape = (count, form.channels, form.size, form.size)
    file.seek(0)
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _decoded(
    originals: Originals, form: Form, pool: ThreadPoolExecutor, ahead: int
) -> Iterator[Decoded | BadFile]:
    """All images in order, decoded in chunks by the pool, at most `ahead` chunks before they are taken."""

    def work(start: int) -> list[Decoded | BadFile]:
        positions = range(start, min(start + _CHUNK, count))
        return [_decoded_or_bad(originals.decode, i, form) for i in positions]

    count = len(originals.names)
    waiting: deque[Future[list[Decoded | BadFile]]] = deque()
    for start in range(0, count, _CHUNK):
        waiting.append(pool.submit(work, start))
        if len(waiting) > ahead:
            yield from waiting.popleft().result()
    while waiting:
        yield from waiting.popleft().result()


def _decoded_or_bad(decode: Callable[[int, Form], Decoded], i: int, form: Form) -> Decoded | BadFile:
    try:
        return decode(i, form)
    except BadFile as bad:
        return bad


def _publish(temporary: Path, folder: Path) -> None:
    """Give the finished store its name. A store that another process finished first is left in place."""
    if folder.exists() and _found(folder) is None:  # damaged from outside
        os.rename(folder, temporary / "damaged")
    try:
        os.rename(temporary, folder)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
    shutil.rmtree(folder / "damaged", ignore_errors=True)
    handle = os.open(folder.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sweep(stores: Path) -> None:
    """Remove what builds that were killed have left."""
    for left in stores.glob(".*"):
        try:
            written = max(part.stat().st_mtime for part in (left, *left.glob("*")))
        except FileNotFoundError:  # just finished by another process
            continue
        if time.time() - written > _ABANDONED:
            shutil.rmtree(left, ignore_errors=True)


def _check_room(stores: Path, needed: int) -> None:
    free = shutil.disk_usage(stores).free
    if free < needed:
        raise TacitError(
            f"the decoded images need {needed / 1e9:.1f} GB, but {stores} has {free / 1e9:.1f} GB left: "
            "choose another folder with --cache or TACIT_CACHE, or a smaller --size"
        )


@contextmanager
def _cache_errors(stores: Path) -> Iterator[None]:
    """Failing to write becomes one line; files that cannot be read are `BadFile` already."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        cause = "the disk is full" if full else error.strerror or str(error)
        raise TacitError(
            f"cannot write the decoded images to {stores}: {cause}; "
            "choose another folder with --cache or TACIT_CACHE"
        ) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings of Pillow on the terminal: each file is read or named as bad."""
    Image.init()  # here, because the first threads would do it at the same time
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
