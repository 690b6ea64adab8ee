"""An experiment of more than one sitting: what is done is kept, in a work folder and in the result file."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from race import RESULTS, machine, save
from tacit.claims.base import Cell
from tacit.claims.cells import Cells
from tacit.claims.run import as_table

Pairs = list[tuple[dict[str, Any], dict[str, Any]]]
_PLACES = ("path", "folder", "encoder")
"""Parameters of a cell that say where its files are; the result file does without."""


def parser(about: str, work: str, name: str) -> argparse.ArgumentParser:
    """The options that such experiments have in common."""
    made = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", type=Path, required=True)
    made.add_argument("--work", type=Path, default=Path(work), help="what is done is kept here")
    made.add_argument("--seeds", type=int, default=3)
    made.add_argument("--jobs", type=int, default=2)
    made.add_argument("--name", default=name, help="of the result file")
    made.add_argument(
        "--go-on",
        action="store_true",
        help="count the runs of the result file as done, also of other machines",
    )
    made.add_argument("--show", action="store_true", help="run nothing; tabulate and save what is done")
    return made


class Sitting:
    """The cells of one experiment. `asked`: the options of `parser`."""

    def __init__(self, asked: argparse.Namespace, identity: str) -> None:
        self.asked = asked
        asked.work.mkdir(parents=True, exist_ok=True)
        self.machine = machine()
        self.cells = Cells(
            asked.work / "cells", identity, jobs=asked.jobs, say=lambda line: print(line, flush=True)
        )
        self.complete = True

    def run(self, cell: Cell, grid: list[dict[str, Any]], earlier: str = "runs") -> Pairs:
        """Cells and their results. earlier: where the result file has them."""
        if self.asked.go_on:
            for found in self._earlier(earlier):
                self._keep(cell, grid, found)
        if not self.asked.show:
            return list(zip(grid, self.cells.run(cell, grid), strict=True))
        done = ((parameters, self.cells.kept(cell, parameters)) for parameters in grid)
        pairs = [(parameters, result) for parameters, result in done if result is not None]
        self.complete = self.complete and len(pairs) == len(grid)
        return pairs

    def _earlier(self, key: str) -> list[dict[str, Any]]:
        path = RESULTS / f"{self.asked.name}.json"
        return json.loads(path.read_text())["machine"].get(key, []) if path.is_file() else []

    def _keep(self, cell: Cell, grid: list[dict[str, Any]], found: Mapping[str, Any]) -> None:
        for parameters in grid:
            named = public(parameters)
            if named.items() <= found.items() and self.cells.kept(cell, parameters) is None:
                self.cells.keep(cell, parameters, {k: v for k, v in found.items() if k not in named})

    def save(self, table: list[dict[str, str]], **runs: Pairs) -> None:
        """Print the table and write the result file with every run."""
        print(as_table(table))
        kept = {key: [{**result, **public(cell)} for cell, result in pairs] for key, pairs in runs.items()}
        save(self.asked.name, {**self.machine, "complete": self.complete, **kept}, table)


def public(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in parameters.items() if key not in _PLACES}
