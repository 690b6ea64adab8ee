"""`tacit.claim`: run the experiment of a claim, and write down what came out."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import joblib

from tacit.claims.base import Claim, Outcome, Setting
from tacit.claims.cells import Attempt, Cells
from tacit.errors import TacitError, UsageError, unknown
from tacit.files import without_nan, write_atomically
from tacit.locks import owning
from tacit.training.run import versions

# name: its module, what it says, minutes of a full run on two cores
CLAIMS = {
    "dcl": ("tacit.claims.dcl", "DCL beats InfoNCE at small batches; the gap shrinks as the batch grows", 40),
    "semixup": ("tacit.claims.semixup", "Semixup with n labels is as good as supervision with 6 n", 15),
    "alice": ("tacit.claims.alice", "Places mined in other patients show the same anatomy; it pays", 15),
    "tracoco": ("tacit.claims.tracoco", "TraCoCo segments better than supervision, CPS and itself alone", 40),
    "joint-image-volume": (
        "tacit.claims.joint_image_volume",
        "slices and volumes together teach more of volumes than slices alone",
        20,
    ),
}


def claim(
    name: str,
    *,
    quick: bool = False,
    data: str | None = None,
    out: str | None = None,
    jobs: int | None = None,
    quiet: bool = False,
) -> Outcome:
    """Test a paper's claim on real data: fixed arms and seeds, selection on validation data, a verdict.

    The cells of the experiment run in parallel, and each is kept as soon as it is done: the same
    command goes on where an earlier one was stopped.

    Args:
        name: of the claim; `tacit claim` lists them.
        quick: a small version of a minute or two, which shows the machinery and decides nothing.
        data: folder with the real data sets; default TACIT_TEST_DATA.
        out: folder for cells and results; default claims/NAME, or claims/NAME-quick.
        jobs: cells at once, one thread each; default one per core.
        quiet: print no progress.

    Returns:
        What was found; NAME.json and NAME.md in `out` say it, too.

    Raises:
        UsageError: no such claim, its data are absent, or another process works in `out`.
        TacitError: a cell failed; the others are kept, and NAME.partial.md in `out` has their results.
        Interrupted: SIGINT or SIGTERM came; what is done is kept, as above.
    """
    chosen = load_claim(name)
    jobs = joblib.cpu_count() if jobs is None else jobs
    if jobs < 1:
        raise UsageError(f"jobs must be at least 1, not {jobs}")
    folder = Path(out) if out is not None else Path("claims") / (f"{name}-quick" if quick else name)
    with owning(folder):
        return _run(chosen, folder, quick, data, jobs, quiet)


def _run(chosen: Claim, folder: Path, quick: bool, data: str | None, jobs: int, quiet: bool) -> Outcome:
    """The experiment, in a folder that nothing else writes to."""
    where = data or os.environ.get("TACIT_TEST_DATA")
    cells = Cells(
        folder / "cells",
        f"{chosen.name} {chosen.version}{' quick' if quick else ''}",
        jobs=jobs,
        say=(lambda line: None) if quiet else (lambda line: print(line, flush=True)),
    )
    try:
        outcome = chosen.experiment(Setting(cells.run, folder, Path(where) if where else None, quick))
    except TacitError as error:
        if any(attempt.done for attempt in cells.attempts):
            page = _partial(folder, chosen)
            write_atomically(page, as_partial(chosen, cells.attempts))
            error.args = (f"{error}; {page} has the results until now",)
        raise
    _write(folder, chosen, outcome, quick, cells)
    _partial(folder, chosen).unlink(missing_ok=True)
    return outcome


def _partial(folder: Path, chosen: Claim) -> Path:
    return folder / f"{chosen.name}.partial.md"


def load_claim(name: str) -> Claim:
    """The claim of this name.

    Raises:
        UsageError: there is none.
    """
    if name not in CLAIMS:
        raise unknown("claim", name, CLAIMS)
    return import_module(CLAIMS[name][0]).CLAIM


def _write(folder: Path, claim: Claim, outcome: Outcome, quick: bool, cells: Cells) -> None:
    made = {
        "quick": quick,
        "date": datetime.now(UTC).date().isoformat(),
        "processor_hours": round(cells.seconds / 3600, 2),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions(),
    }
    about = {name: getattr(claim, name) for name in ("name", "statement", "source", "design", "version")}
    found = {**about, **without_nan(asdict(outcome)), **made}
    write_atomically(folder / f"{claim.name}.json", json.dumps(found, indent=1) + "\n")
    write_atomically(folder / f"{claim.name}.md", as_markdown(claim, outcome, made))


def as_markdown(claim: Claim, outcome: Outcome, made: Mapping[str, Any]) -> str:
    """A page about a claim: statement, verdict, numbers, design, and what computed it."""
    verdict = f"**Verdict: {outcome.verdict}.** {outcome.because}."
    if made["quick"]:
        verdict = f"A quick run, which decides nothing. ({outcome.because}.)"
    parts = [
        {"question": p.question, f"effect in {p.unit} [95 %]": str(p.effect), "verdict": p.verdict}
        for p in outcome.parts
    ]
    sections = [
        f"# Claim `{claim.name}`",
        claim.statement,
        f"Source: {claim.source}.",
        verdict,
        *([] if made["quick"] else [as_table(parts)]),
        *(f"## {title}\n\n{as_table(rows)}" for title, rows in outcome.tables.items()),
        f"## Design, fixed before the run\n\n{claim.design}",
        f"## Computed\n\n{made['date']}, {made['processor_hours']} processor hours, tacit "
        f"{made['versions']['tacit']}, torch {made['versions']['torch']}, {made['system']}, {made['cores']} "
        f"cores. Again: `tacit claim {claim.name}{' --quick' if made['quick'] else ''}`.",
    ]
    return "\n\n".join(sections) + "\n"


def as_partial(claim: Claim, attempts: Sequence[Attempt]) -> str:
    """A page about a claim whose cells are not all done: their results, and why the others have none."""
    count, done = sum(len(found.names) for found in attempts), sum(found.done for found in attempts)
    head = f"**Partial: {done} of {count} cells (without those of later stages) are done: no verdict yet.**"
    sections = [f"# Claim `{claim.name}`", claim.statement, head]
    for found in attempts:
        rows = [
            {"cell": name, **_shown(result, found.failures.get(i))}
            for i, (name, result) in enumerate(zip(found.names, found.results, strict=True))
        ]
        sections.append(f"## {found.cell}\n\n{as_table(rows)}")
    return "\n\n".join(sections) + "\n"


def _shown(result: Mapping[str, Any] | None, failure: str | None) -> dict[str, str]:
    """The numbers of a result by name, or why there are none."""
    if result is None:
        return {"state": f"failed: {failure}" if failure else "not run"}
    numbers = {name: value for name, value in result.items() if isinstance(value, int | float)}
    return {"state": "done", **{name: f"{value:.6g}" for name, value in numbers.items()}}


def as_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows as a Markdown table; columns in the order in which they first occur."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, ["---"] * len(columns), *([row.get(key, "") for key in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
