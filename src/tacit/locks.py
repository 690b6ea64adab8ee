"""One process at a time in a folder that is being written."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from tacit.errors import TacitError, UsageError

LOCK = ".lock"
"""Name of the file in a folder that its owner has locked."""

_owned: ContextVar[frozenset[str]] = ContextVar("owned", default=frozenset())
_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}


@contextmanager
def owning(folder: Path) -> Iterator[None]:
    """Within the block no other process or thread owns `folder`; it is created if it does not exist.

    The system frees the lock when its owner ends, however it ends. On NFS the server keeps the lock, unless
    the mount options turn locks off; where the file system has no locks, a note says so. Blocks for one
    folder can be nested in one thread. A folder that was created and is empty at the end is removed.

    The lock's file is removed, too, which no version of `filelock` does safely on POSIX: one process could
    lock the removed file, another its successor. Hence `flock` here, and a look whether the name still leads
    to the locked file.

    Raises:
        UsageError: another process or thread owns the folder, or it is a file.
        TacitError: it cannot be written.
    """
    key = os.path.realpath(folder)
    if key in _owned.get():
        yield
        return
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"'{folder}' is a file; choose another --out")
    made: list[Path] = []
    try:
        release = _acquired(folder, made)
        token = _owned.set(_owned.get() | {key})
        try:
            yield
        finally:
            _owned.reset(token)
            release()
    finally:
        for path in reversed(made):
            with suppress(OSError):  # not empty, or removed already
                path.rmdir()


def _acquired(folder: Path, made: list[Path]) -> Callable[[], None]:
    """Takes the lock; the function that gives it back. made: gets the folders that were created."""
    path = folder / LOCK
    try:
        while True:
            _make(folder, made)
            with suppress(FileNotFoundError):  # an owner that ended has removed the folder meanwhile
                return _lock_natively(path) if sys.platform != "win32" else _lock_with_filelock(path)
    except BlockingIOError:
        raise UsageError(
            f"'{folder}' is in use by {_owner(path)}: wait until it has ended, or choose another --out"
        ) from None
    except OSError as error:
        raise TacitError(f"cannot write {folder}: {error.strerror or error}") from error


def _make(folder: Path, made: list[Path]) -> None:
    """Create the folder and those above it, one by one, and note which did not exist."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        with suppress(FileExistsError):
            path.mkdir()
            made.append(path)


def _lock_natively(path: Path) -> Callable[[], None]:
    """By `flock`, which the system ties to the open file: a second lock in one process waits, too.

    Raises:
        BlockingIOError: it is locked.
    """
    import fcntl

    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            if error.errno in _UNSUPPORTED:
                return _unlocked(path)
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise BlockingIOError(*error.args) from None
            raise
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(path, follow_symlinks=False)):
                break
        os.close(handle)  # its last owner has just removed it
    with suppress(OSError):  # of a full disk; the lock holds without it
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())

    def release() -> None:
        with suppress(OSError):
            path.unlink()
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)  # also of processes that were forked meanwhile
        os.close(handle)

    return release


def _lock_with_filelock(path: Path) -> Callable[[], None]:
    """Where there is no `flock`: Windows, which does not remove a file that another process has open."""
    from filelock import FileLock, Timeout

    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None

    def release() -> None:
        lock.release()
        with suppress(OSError):
            path.unlink(missing_ok=True)

    return release


def _unlocked(path: Path) -> Callable[[], None]:
    print(
        f"note: the file system of '{path.parent}' has no locks: start no second run in this folder",
        file=sys.stderr,
    )
    with suppress(OSError):
        path.unlink()
    return lambda: None


def _owner(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")[:200] or "another process"
    except OSError:
        return "another process"
