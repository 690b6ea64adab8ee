"""The cells of an experiment: independent runs, in parallel, each kept on disk as soon as it is done."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from tacit import __version__
from tacit.checks import check_number, needed
from tacit.claims.base import Cell, Parameters
from tacit.claims.workers import work_through
from tacit.errors import Interrupted, TacitError
from tacit.files import write_atomically
from tacit.stopping import interrupted
from tacit.untrusted import mapping, read_json

_REST = "what is done is kept: the same command goes on with the rest"


@dataclass(frozen=True, slots=True)
class Attempt:
    """What became of a grid of cells.

    cell: name of the function. names: of the cells, by the parameters that vary. results: None where a cell
    has failed or has not run. failures: reasons by position. stop: why the other cells have not run.
    """

    cell: str
    names: tuple[str, ...]
    results: tuple[dict[str, Any] | None, ...]
    failures: Mapping[int, str]
    stop: TacitError | None

    @property
    def first(self) -> str:
        """The first failure, with the cell's parameters."""
        i = min(self.failures)
        return f"{self.names[i]}: {self.failures[i]}"

    @property
    def done(self) -> int:
        """The number of cells with a result."""
        return sum(result is not None for result in self.results)


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
        self.attempts: list[Attempt] = []
        self.seconds = 0.0  # processor time of all results that were asked for, whenever they were made

    def run(self, cell: Cell, grid: Sequence[Parameters]) -> list[dict[str, Any]]:
        """Results in the order of the grid.

        Raises:
            TacitError: some cells failed; the others are kept, and the first failure is named.
            Interrupted: SIGINT or SIGTERM came, or a cell was asked to stop; the cells that are left were not
                run.
        """
        found = self.attempt(cell, grid)
        if found.stop is not None:
            raise found.stop
        if found.failures:
            raise TacitError(
                f"{len(found.failures)} of {len(grid)} cells failed, the first: {found.first}; the others "
                "are kept: run the same command again when it is fixed"
            )
        return [result for result in found.results if result is not None]

    def attempt(self, cell: Cell, grid: Sequence[Parameters]) -> Attempt:
        """Run what is missing; results in the order of the grid, also where some are missing at the end."""
        paths = [self._path(cell, parameters) for parameters in grid]
        missing = [i for i, path in enumerate(paths) if _read(path) is None]
        shown = _varying(grid)
        names = [" ".join(f"{key}={parameters[key]}" for key in shown) for parameters in grid]
        failures, stop = self._run_missing(cell, grid, paths, missing, names)
        records = [_read(path) for path in paths]
        self.seconds += sum(record["seconds"] for record in records if record is not None)
        results = [None if record is None else record["result"] for record in records]
        found = Attempt(cell.__name__.strip("_"), tuple(names), tuple(results), failures, stop)
        self.attempts.append(found)
        return found

    def kept(self, cell: Cell, parameters: Parameters) -> dict[str, Any] | None:
        """The result of one cell; None where it has not run."""
        record = _read(self._path(cell, parameters))
        return None if record is None else record["result"]

    def keep(self, cell: Cell, parameters: Parameters, result: dict[str, Any]) -> None:
        """Take a result that was measured elsewhere."""
        record = {"parameters": dict(parameters), "seconds": 0.0, "result": result}
        write_atomically(self._path(cell, parameters), json.dumps(record))

    def _run_missing(
        self,
        cell: Cell,
        grid: Sequence[Parameters],
        paths: Sequence[Path],
        missing: Sequence[int],
        names: Sequence[str],
    ) -> tuple[dict[int, str], TacitError | None]:
        """Failures by position, and what stopped the others if they were stopped."""
        failures: dict[int, str] = {}
        finished, start = 0, time.monotonic()

        def done(number: int, error: str) -> None:
            nonlocal finished
            finished, i = finished + 1, missing[number]
            left = (time.monotonic() - start) / finished * (len(missing) - finished)
            said = f" failed: {error}" if error else ""
            self.say(f"{finished}/{len(missing)} {names[i]}{said}  (about {left / 60:.0f} min left)")
            if error:
                failures[i] = error

        todo = [(cell, dict(grid[i]), paths[i]) for i in missing]
        try:
            work_through(_run_one, todo, done, jobs=self.jobs)
        except Interrupted as stop:
            return failures, interrupted(stop, f"stopped; {_REST}")
        except TacitError as error:  # a process was killed, and with it unknown cells
            return failures, TacitError(f"{error}; {_REST}")
        return failures, None

    def _path(self, cell: Cell, parameters: Parameters) -> Path:
        text = json.dumps([self.identity, cell.__name__, dict(parameters)], sort_keys=True)
        digest = blake2b(text.encode(), digest_size=8).hexdigest()
        return self.folder / f"{cell.__name__.strip('_')}-{digest}.json"


def _varying(grid: Sequence[Parameters]) -> list[str]:
    """The parameters that tell the cells of a grid apart."""
    return [key for key in grid[0] if len({str(parameters[key]) for parameters in grid}) > 1] if grid else []


def _run_one(cell: Cell, parameters: dict[str, Any], path: Path) -> str:
    """Run a cell and keep its result; why it failed, so that other cells go on, or ""."""
    start = time.process_time()
    try:
        result = cell(parameters)
        record = {"parameters": parameters, "seconds": time.process_time() - start, "result": result}
        write_atomically(path, json.dumps(record))
    except Interrupted:
        raise
    except Exception as error:  # of whatever the experiment calls
        return (str(error).strip() or type(error).__name__).splitlines()[0]
    return ""


def _read(path: Path) -> dict[str, Any] | None:
    """A kept cell; None where there is none or it is damaged."""
    try:
        record = mapping(read_json(path), "it")
        check_number("seconds", needed(record, "seconds"), lambda seconds: seconds >= 0, "a duration")
        mapping(needed(record, "result"), "its result")
    except (OSError, ValueError):
        return None
    return record
