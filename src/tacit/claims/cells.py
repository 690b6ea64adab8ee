"""The cells of an experiment: independent runs, in parallel, each kept on disk as soon as it is done."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed, parallel_config

from tacit import __version__
from tacit.checks import check_number, needed
from tacit.claims.base import Cell, Parameters
from tacit.errors import Interrupted, TacitError
from tacit.files import write_atomically
from tacit.untrusted import mapping, read_json


class Cells:
    """Runs cells and remembers them; what was done before a kill is not done again.

    folder: one JSON file per cell, its name made of the function, the parameters and the versions.
    jobs: processes at once, one thread each, so that results do not depend on their number.
    say: takes a line about the progress.
    """

    def __init__(self, folder: Path, identity: str, *, jobs: int, say: Callable[[str], None]) -> None:
        self.folder = folder
        self.identity = f"{identity} {__version__}"
        self.jobs = jobs
        self.say = say
        self.seconds = 0.0  # processor time of all results that were asked for, whenever they were made

    def run(self, cell: Cell, grid: Sequence[Parameters]) -> list[dict[str, Any]]:
        """Results in the order of the grid.

        Raises:
            TacitError: some cells failed; the others are kept, and the first failure is named.
            Interrupted: a cell was asked to stop; those after it are left for another time.
        """
        paths = [self._path(cell, parameters) for parameters in grid]
        missing = [i for i, path in enumerate(paths) if _read(path) is None]
        failures = self._run_missing(cell, [(grid[i], paths[i]) for i in missing], _varying(grid))
        if failures:
            raise TacitError(
                f"{len(failures)} of {len(grid)} cells failed, the first: {failures[0]}; the others are "
                "kept: run the same command again when it is fixed"
            )
        records = [_read(path) for path in paths]
        done = [record for record in records if record is not None]
        self.seconds += sum(record["seconds"] for record in done)
        return [record["result"] for record in done]

    def kept(self, cell: Cell, parameters: Parameters) -> dict[str, Any] | None:
        """The result of one cell; None where it has not run."""
        record = _read(self._path(cell, parameters))
        return None if record is None else record["result"]

    def keep(self, cell: Cell, parameters: Parameters, result: dict[str, Any]) -> None:
        """Take a result that was measured elsewhere."""
        record = {"parameters": dict(parameters), "seconds": 0.0, "result": result}
        write_atomically(self._path(cell, parameters), json.dumps(record))

    def _run_missing(
        self, cell: Cell, todo: Sequence[tuple[Parameters, Path]], shown: Sequence[str]
    ) -> list[str]:
        failures = []
        start = time.monotonic()
        with parallel_config(backend="loky", inner_max_num_threads=1):
            finished = Parallel(n_jobs=self.jobs, return_as="generator_unordered")(
                delayed(_run_one)(cell, dict(parameters), path) for parameters, path in todo
            )
            for count, (parameters, error) in enumerate(_until_stopped(finished), start=1):
                name = " ".join(f"{key}={parameters[key]}" for key in shown)
                minutes = (time.monotonic() - start) / 60 / count * (len(todo) - count)
                said = f" failed: {error}" if error else ""
                self.say(f"{count}/{len(todo)} {name}{said}  (about {minutes:.0f} min left)")
                if error:
                    failures.append(f"{name}: {error}")
        return failures

    def _path(self, cell: Cell, parameters: Parameters) -> Path:
        text = json.dumps([self.identity, cell.__name__, dict(parameters)], sort_keys=True)
        digest = blake2b(text.encode(), digest_size=8).hexdigest()
        return self.folder / f"{cell.__name__.strip('_')}-{digest}.json"


def _until_stopped(finished: Iterable[tuple[Parameters, str]]) -> Iterator[tuple[Parameters, str]]:
    try:
        yield from finished
    except Interrupted as stopped:
        error = Interrupted("stopped; what is done is kept: the same command goes on with the rest")
        error.exit_code = stopped.exit_code
        raise error from None


def _varying(grid: Sequence[Parameters]) -> list[str]:
    """The parameters that tell the cells of a grid apart."""
    return [key for key in grid[0] if len({str(parameters[key]) for parameters in grid}) > 1] if grid else []


def _run_one(cell: Cell, parameters: dict[str, Any], path: Path) -> tuple[dict[str, Any], str]:
    """In a worker: run, keep, and say how it went; an error is a word, so that other cells go on."""
    start = time.process_time()
    try:
        result = cell(parameters)
        record = {"parameters": parameters, "seconds": time.process_time() - start, "result": result}
        write_atomically(path, json.dumps(record))
    except Interrupted:
        raise
    except Exception as error:  # of whatever the experiment calls
        return parameters, (str(error).strip() or type(error).__name__).splitlines()[0]
    return parameters, ""


def _read(path: Path) -> dict[str, Any] | None:
    """A kept cell; None where there is none or it is damaged."""
    try:
        record = mapping(read_json(path), "it")
        check_number("seconds", needed(record, "seconds"), lambda seconds: seconds >= 0, "a duration")
        mapping(needed(record, "result"), "its result")
    except (OSError, ValueError):
        return None
    return record
