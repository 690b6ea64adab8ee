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
from tacit.claims.cells import Cells
from tacit.errors import UsageError, unknown
from tacit.files import without_nan, write_atomically
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
        UsageError: no such claim, or its data are absent.
        TacitError: a cell failed; the others are kept.
    """
    chosen = load_claim(name)
    jobs = joblib.cpu_count() if jobs is None else jobs
    if jobs < 1:
        raise UsageError(f"jobs must be at least 1, not {jobs}")
    folder = Path(out) if out is not None else Path("claims") / (f"{name}-quick" if quick else name)
    where = data or os.environ.get("TACIT_TEST_DATA")
    cells = Cells(
        folder / "cells",
        f"{name} {chosen.version}{' quick' if quick else ''}",
        jobs=jobs,
        say=(lambda line: None) if quiet else (lambda line: print(line, flush=True)),
    )
    outcome = chosen.experiment(Setting(cells.run, folder, Path(where) if where else None, quick))
    _write(folder, chosen, outcome, quick, cells)
    return outcome


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


def as_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows as a Markdown table; columns in the order in which they first occur."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, ["---"] * len(columns), *([row.get(key, "") for key in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
