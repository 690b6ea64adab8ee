"""From originals to a store: found, or decoded now by threads.

Threads decode, because Pillow releases the interpreter lock: 2,000 JPEGs of 256 x 256 px on two cores
took 675/s one by one, 1,234/s with two threads and 1,272/s with two processes.
"""

from __future__ import annotations

import shutil
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

from filelock import FileLock, Timeout
from PIL import Image

from tacit.data.image.decoding import Decoded, Form
from tacit.data.image.originals import Originals, plan
from tacit.data.image.store import FORMAT, StoredImages, find_store
from tacit.data.image.unfinished import UnfinishedStore
from tacit.data.names import Names
from tacit.data.options import Options, cache_errors
from tacit.data.progress import counted
from tacit.errors import BadFile, TacitError, Unreadable
from tacit.files import write_atomically

_CHUNK = 16
_RECORDED = 1024  # images after which what was decoded is flushed and recorded: a second's work
_ABANDONED = 24 * 3600.0  # seconds without a write after which a half-built store is swept away


def store_images(originals: Originals, options: Options) -> StoredImages:
    """The store of these originals: found, or decoded now.

    A build that is stopped, in whatever way, is gone on with by the next one: at most the last 1,024
    images are decoded again. Two processes that want the same store decode it once; one waits for the
    other, and takes over if that is killed. What is unfinished has another name than a store.

    Originals that could not be read (`Unreadable`) are tried again each time that the store is asked for, and
    once one can be read the store is built again: only damage of content is kept in mind.

    Raises:
        BadFile: a file cannot be used and `on_bad_file` is "stop"; the first one in the order of names.
        TacitError: no file can be used, or the cache cannot be written.
    """
    alias = options.aliases / _key(originals, options.size, options.max_size, options.channels, options.white)
    store = _aliased(alias, options.stores)
    if store is None or _can_be_read(originals, store.unreadable, store.form):
        store = _built(alias, originals, options)
    if store.skipped and options.on_bad_file == "stop":
        raise BadFile(*store.skipped[0])
    if store.brightest > store.white and options.progress:
        print(
            f"warning: values up to {store.brightest} are cut off at {store.white}, the white that the "
            "encoder knows: bright parts look alike",
            file=sys.stderr,
        )
    return store


def _key(originals: Originals, *form: int | None) -> str:
    key = blake2b(digest_size=16)
    key.update(f"{FORMAT} {form}".encode())
    for part in originals.identity():
        key.update(len(part).to_bytes(8, "little") + part)
    return key.hexdigest()


def _aliased(alias: Path, stores: Path) -> StoredImages | None:
    """The store that was chosen for these wishes before, so that no header needs to be read again."""
    try:
        return find_store(stores / alias.read_text())
    except OSError:
        return None


def _can_be_read(originals: Originals, positions: Iterable[int], form: Form) -> bool:
    """Whether one of these, which could not be read, can be read now."""
    for i in positions:
        with quiet():
            if not isinstance(_decoded_or_bad(originals.decode, i, form), Unreadable):
                return True
    return False


def _built(alias: Path, originals: Originals, options: Options) -> StoredImages:
    """The store of the planned form; other wishes that lead to the same form share it."""
    with cache_errors(options.stores, "decoded images"), quiet():
        options.stores.mkdir(parents=True, exist_ok=True)
        pool = ThreadPoolExecutor(options.threads, thread_name_prefix="decode")
        try:
            form = plan(originals, options, pool)
            folder = options.stores / _key(originals, form.channels, form.size, form.white)
            with _alone(folder, options):
                _sweep(options, folder)
                if find_store(folder) is None:
                    folder = _build(folder, originals, form, options, pool)
        finally:
            pool.shutdown(cancel_futures=True)
        write_atomically(alias, folder.name)
    return StoredImages(folder)


def _build(
    folder: Path, originals: Originals, form: Form, options: Options, pool: ThreadPoolExecutor
) -> Path:
    """The folder that the store has got, which has another name where originals could not be read."""
    unfinished = UnfinishedStore(_unfinished(folder), form)
    try:
        for each in unfinished.left_out:
            if each.passing and _can_be_read(originals, [each.position], form):
                unfinished.go_back(each.position)
                break
        row = form.channels * form.size**2
        _check_room(folder.parent, (len(originals.names) - unfinished.done) * row)
        _decode_all(unfinished, originals, form, options, pool)
        unfinished.finish(Names.of(originals.names), form.white)
        named = folder.with_name(folder.name + unfinished.suffix)
        unfinished.publish(named)
        return named
    finally:
        unfinished.close()


def _decode_all(
    unfinished: UnfinishedStore, originals: Originals, form: Form, options: Options, pool: ThreadPoolExecutor
) -> None:
    if unfinished.left_out and options.on_bad_file == "stop":
        raise BadFile(unfinished.left_out[0].name, unfinished.left_out[0].reason)
    count, begun = len(originals.names), unfinished.done
    results = _decoded(originals, form, pool, 4 * options.threads, begun)
    for result in counted(results, count, options.progress, begun=begun):
        if isinstance(result, BadFile) and options.on_bad_file == "stop":
            raise result
        unfinished.add(result)
        if unfinished.done % _RECORDED == 0:
            unfinished.record()
    if not unfinished.kept:
        first = unfinished.left_out[0]
        raise TacitError(f"none of the {count} images can be used; {first.name}: {first.reason}")


def _decoded(
    originals: Originals, form: Form, pool: ThreadPoolExecutor, ahead: int, begin: int = 0
) -> Iterator[Decoded | BadFile]:
    """The images from `begin` on, in order, decoded in chunks by the pool, at most `ahead` chunks early."""

    def work(start: int) -> list[Decoded | BadFile]:
        positions = range(start, min(start + _CHUNK, count))
        return [_decoded_or_bad(originals.decode, i, form) for i in positions]

    count = len(originals.names)
    waiting: deque[Future[list[Decoded | BadFile]]] = deque()
    for start in range(begin, count, _CHUNK):
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


def _unfinished(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}")


def _lock(options: Options, store: str) -> FileLock:
    return FileLock(options.locks / f"{store}.lock")


@contextmanager
def _alone(folder: Path, options: Options) -> Iterator[None]:
    """Within the block no other process builds this store.

    The system gives the lock back when its owner dies, however it dies. The lock's file stays: to
    remove it would let two processes lock two files of one name.
    """
    options.locks.mkdir(parents=True, exist_ok=True)
    lock = _lock(options, folder.name)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        if options.progress:
            print("another run is decoding these images; waiting for it", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _sweep(options: Options, folder: Path) -> None:
    """Remove what builds of other stores have left that were killed long ago."""
    for left in options.stores.glob(".*"):
        if left == _unfinished(folder):
            continue
        try:
            written = max(part.stat().st_mtime for part in (left, *left.glob("*")))
            if time.time() - written > _ABANDONED:
                with _lock(options, left.name.removeprefix(".")).acquire(blocking=False):
                    shutil.rmtree(left, ignore_errors=True)
        except (FileNotFoundError, Timeout):  # just finished, or just gone on with, by another process
            continue


def _check_room(stores: Path, needed: int) -> None:
    free = shutil.disk_usage(stores).free
    if free < needed:
        raise TacitError(
            f"the decoded images need {needed / 1e9:.1f} GB, but {stores} has {free / 1e9:.1f} GB left: "
            "choose another folder with --cache or TACIT_CACHE, or a smaller --size"
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Within the block: no warnings of Pillow on the terminal: each file is read or named as bad."""
    Image.init()  # here, because the first threads would do it at the same time
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
