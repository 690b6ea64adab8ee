"""Processes that work through many calls side by side, and that stop together."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import active_children
from types import FrameType
from typing import Any, TypeVar

from joblib.externals.loky import ProcessPoolExecutor

from tacit.errors import Interrupted, TacitError
from tacit.stopping import Terminated, hearing, interrupted, terminate

T = TypeVar("T")
Call = Callable[..., T]

_ONE_THREAD = dict.fromkeys(
    (
        *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS"),
        *("VECLIB_MAXIMUM_THREADS", "NUMBA_NUM_THREADS", "NUMEXPR_NUM_THREADS"),
    ),
    "1",
)
_LOOK = 0.2  # seconds between looks whether a signal has come
_GRACE = 15.0  # seconds that a process has to stop by itself: a step, and removing what it has written


def work_through(
    call: Call[T], todo: Sequence[tuple[Any, ...]], done: Callable[[int, T], None], *, jobs: int
) -> None:
    """Call `call(*todo[i])` for each i, `jobs` at once, and `done(i, result)` here as each is finished.

    jobs: processes, each with one thread; 1 computes in this process. At SIGINT or SIGTERM (if this is the
    main thread) calls under way are asked to stop and get 15 seconds, others do not begin, and no process
    is left. At a second signal they are killed at once. They also end if this process is killed.

    Raises:
        Interrupted: a signal came, here or to a call under way.
        TacitError: a process was killed, most likely by the system for memory.
    """
    if not todo:
        return
    if jobs == 1:
        _one_by_one(call, todo, done)
    else:
        _side_by_side(call, todo, done, jobs)


def _one_by_one(call: Call[T], todo: Sequence[tuple[Any, ...]], done: Callable[[int, T], None]) -> None:
    try:
        with hearing(terminate):
            for i, arguments in enumerate(todo):
                done(i, call(*arguments))
    except KeyboardInterrupt as stop:
        raise interrupted(stop, "stopped") from None


class _Heard:
    """The first signal that came, 0 before; the second one kills the processes."""

    def __init__(self, processes: Callable[[], list[int]]) -> None:
        self.number = 0
        self.processes = processes

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            _send(self.processes(), getattr(signal, "SIGKILL", signal.SIGTERM))
        else:
            self.number = number


def _side_by_side(
    call: Call[T], todo: Sequence[tuple[Any, ...]], done: Callable[[int, T], None], jobs: int
) -> None:
    others = {process.pid for process in active_children()}

    def processes() -> list[int]:
        return [process.pid for process in active_children() if process.pid and process.pid not in others]

    heard, at = _Heard(processes), dict[Future[T], int]()
    pool = ProcessPoolExecutor(
        min(jobs, len(todo)), initializer=_begin, initargs=(os.getpid(),), env=_ONE_THREAD
    )
    with hearing(heard):
        try:
            at.update((pool.submit(_in_worker, call, arguments), i) for i, arguments in enumerate(todo))
            _collect(at, done, heard)
        except BrokenProcessPool:
            if not heard.number:
                raise TacitError(
                    "a process was killed while it computed, most likely by the system because memory ran "
                    "out: pass a smaller --jobs"
                ) from None
        finally:
            left = [future for future in at if not future.done() and not future.cancel()]
            if left:
                _send(processes(), signal.SIGTERM)
                wait(left, timeout=_GRACE)
            pool.shutdown(wait=True, kill_workers=bool(left) or heard.number > 0)
    if heard.number:
        raise interrupted(heard.number, "stopped")


def _collect(at: dict[Future[T], int], done: Callable[[int, T], None], heard: _Heard) -> None:
    """Hand on results until all are there, or a signal has come."""
    waiting = set(at)
    while waiting and not heard.number:
        ready, waiting = wait(waiting, timeout=_LOOK, return_when=FIRST_COMPLETED)
        for future in sorted(ready, key=at.__getitem__):
            done(at[future], future.result())


def _send(processes: Sequence[int], number: int) -> None:
    for process in processes:
        with suppress(OSError):  # it has just ended
            os.kill(process, number)


_worker = {"stopping": False, "busy": False}
"""What this process does, where it is one of the workers."""


def _begin(parent: int) -> None:
    """First in each worker. A terminal sends SIGINT to all processes, and the parent decides what follows."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _asked_to_stop)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _asked_to_stop(number: int, frame: FrameType | None) -> None:
    """Leave the call under way, so that it removes what it has written, and begin no other."""
    _worker["stopping"] = True
    if _worker["busy"]:
        raise Terminated


def _end_with(parent: int) -> None:
    """End this process if its parent was killed."""
    while os.getppid() == parent:
        time.sleep(1)
    _send([os.getpid()], signal.SIGTERM)
    end = time.monotonic() + _GRACE
    while _worker["busy"] and time.monotonic() < end:
        time.sleep(0.1)
    os._exit(128 + signal.SIGTERM)


def _in_worker(call: Call[T], arguments: tuple[Any, ...]) -> T:
    if _worker["stopping"]:
        raise interrupted(signal.SIGTERM, "stopped")
    _worker["busy"] = True
    try:
        return call(*arguments)
    except (KeyboardInterrupt, Interrupted) as stop:
        _worker["stopping"] = True
        raise interrupted(stop, "stopped") from None
    finally:
        _worker["busy"] = False
