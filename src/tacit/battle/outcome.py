"""What a label-efficiency curve found: a row per method and budget, its tests, a table and a figure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tacit.claims.run import as_table
from tacit.errors import TacitError
from tacit.evaluation.statistics import Interval, Paired, compare_paired, mean_interval
from tacit.files import csv_line, replacing, without_nan, write_atomically
from tacit.tasks.base import Task
from tacit.tasks.registry import task_of
from tacit.training.run import versions


@dataclass(frozen=True, slots=True)
class Point:
    """One method at one budget, over seeds, in units of the table's score (percent, where it is a share).

    labels: mean number of labels that were learned from. seeds: of the values. score: of one value without an
    interval. gain: over the baseline with the same labels, paired by seed; its p values are one-sided
    (greater). None for the baseline itself, for floors, and with fewer than two pairs. others: means of the
    further measures, by name.
    """

    method: str
    budget: int
    labels: float
    values: tuple[float, ...]
    seeds: tuple[int, ...]
    score: Interval
    gain: Paired | None
    others: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Gap:
    """A run without a result. reason: why it failed; "" where it was not run."""

    method: str
    budget: int
    seed: int
    reason: str


class Unfinished(TacitError):
    """Some runs of a curve failed, or it was stopped; the exit code is 1, 130 or 143.

    outcome: of the runs that are done; None where there are none.
    """

    def __init__(self, message: str, exit_code: int, outcome: CurveOutcome | None) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.outcome = outcome


@dataclass(frozen=True, slots=True)
class CurveOutcome:
    """All points, what the runs had in common, and floors: what the same labels give without learning.

    target: kind of the labels. baseline: the method that learns from the labels alone. gaps: runs without a
    result, for which the outcome is partial. planned: the number of runs with them.
    """

    target: str
    baseline: str
    points: tuple[Point, ...]
    settings: Mapping[str, Any]
    floors: tuple[Point, ...] = ()
    gaps: tuple[Gap, ...] = ()
    planned: int = 0

    @classmethod
    def of(
        cls,
        grid: Sequence[Mapping[str, Any]],
        results: Sequence[Mapping[str, Any] | None],
        *,
        target: str,
        baseline: str,
        floors: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]] = (),
        failures: Mapping[int, str] | None = None,
    ) -> CurveOutcome:
        """From the runs' parameters and grades, in the same order; floors as pairs of both.

        results: None for a run without a result. failures: why, by position in the grid.
        """
        pairs = list(zip(grid, results, strict=True))
        cells = _by_point((parameters, result) for parameters, result in pairs if result is not None)
        task = task_of(target)
        points = tuple(
            _point(task, method, budget, found, cells.get((baseline, budget)) if method != baseline else None)
            for (method, budget), found in sorted(cells.items(), key=lambda item: item[0][1])
        )
        gaps = tuple(
            Gap(p["method"], p["budget"], p["seed"], (failures or {}).get(i, ""))
            for i, (p, result) in enumerate(pairs)
            if result is None
        )
        below = _by_point(floors)
        own = ("method", "budget", "seed", "options")
        return cls(
            target,
            baseline,
            points,
            {key: value for key, value in grid[0].items() if key not in own},
            tuple(_point(task, *key, found, None) for key, found in below.items()),
            gaps,
            len(grid),
        )

    def rows(self) -> list[dict[str, str]]:
        """The table, for people, without measures that are never defined; of a partial one with the runs."""
        task = task_of(self.target)
        title = task.measures[task.score]
        defined = {
            name: of
            for name, of in task.measures.items()
            if any(not np.isnan(p.others.get(name, np.nan)) for p in (*self.points, *self.floors))
        }
        there = {(point.budget, point.method) for point in self.points}
        empty = dict.fromkeys((gap.budget, gap.method) for gap in self.gaps)
        rows = [
            {
                task.counted: str(p.budget),
                "method": f"floor: {p.method}" if p in self.floors else p.method,
                f"{title} [95 %]": _interval(p.score),
                f"gain over {self.baseline} [95 %]": "" if p.gain is None else str(p.gain.difference),
                "Wilcoxon p": "" if p.gain is None else f"{p.gain.wilcoxon:.3f}",
                **{of: _number(p.others[name]) for name, of in defined.items()},
                **self._runs(p.method, p.budget, () if p in self.floors else p.seeds),
            }
            for p in sorted((*self.points, *self.floors), key=lambda point: point.budget)
        ]
        rows += [
            {task.counted: str(budget), "method": method, **self._runs(method, budget, ())}
            for budget, method in empty
            if (budget, method) not in there
        ]
        return sorted(rows, key=lambda row: int(row[task.counted]))

    def _runs(self, method: str, budget: int, seeds: Sequence[int]) -> dict[str, str]:
        """How many of a point's runs there are, and why others failed; only where some are missing."""
        if not self.gaps:
            return {}
        gaps = [gap for gap in self.gaps if (gap.method, gap.budget) == (method, budget)]
        if not gaps and not seeds:
            return {"runs": ""}
        reasons = {gap.seed: gap.reason.replace("|", "/") for gap in gaps if gap.reason}
        failed = "; ".join(f"seed {seed} failed: {reason}" for seed, reason in reasons.items())
        return {"runs": f"{len(seeds)} of {len(seeds) + len(gaps)}" + (f" ({failed})" if failed else "")}

    @property
    def partial(self) -> str:
        """What is missing, in words; "" where nothing is."""
        if not self.gaps:
            return ""
        failed = sum(bool(gap.reason) for gap in self.gaps)
        counts = {"failed": failed, "not run": len(self.gaps) - failed}
        said = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        return f"partial: {self.planned - len(self.gaps)} of {self.planned} runs ({said})"

    @property
    def warnings(self) -> list[str]:
        """A line for each method that lies below a floor, in the mean over label draws."""
        lines, task = [], task_of(self.target)
        unit = " %" if task.scale == 100 else ""
        for point in self.points:
            floors = [p for p in self.floors if p.budget == point.budget]
            best = max(floors, key=lambda p: p.score.mean, default=None)
            if best is not None and point.score.mean < best.score.mean:
                own, floor = point.score.mean, best.score.mean
                lines.append(
                    f"warning: {point.method} with {point.budget} {task.counted} ({own:.1f}{unit}) is below "
                    f"'{best.method}' ({floor:.1f}{unit}), which needs no learning: more --steps, or an "
                    "--encoder that has learned, is most likely to help"
                )
        return lines

    def __str__(self) -> str:
        partial = [self.partial] if self.gaps else []
        return "\n".join([as_table(self.rows()), *partial, *self.warnings])


Runs = list[tuple[Mapping[str, Any], Mapping[str, Any]]]
"""Parameters and grades of runs."""


def _by_point(runs: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> dict[tuple[str, int], Runs]:
    """The runs of each method and budget."""
    found: dict[tuple[str, int], Runs] = {}
    for parameters, result in runs:
        found.setdefault((parameters["method"], parameters["budget"]), []).append((parameters, result))
    return found


def _interval(interval: Interval) -> str:
    if np.isnan(interval.low):
        return f"{interval.mean:.1f}"
    return f"{interval.mean:.1f} [{interval.low:.1f}, {interval.high:.1f}]"


def _mean(values: Sequence[float]) -> Interval:
    """The mean with its interval; of one value, as in a partial outcome, without."""
    if len(values) > 1:
        return mean_interval(values)
    return Interval(values[0], np.nan, np.nan, 0.95, "none", 1)


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.3f}"


def _point(
    task: Task,
    method: str,
    budget: int,
    found: Runs,
    base: Runs | None,
) -> Point:
    score, *others = task.measures
    values = {p["seed"]: task.scale * result[score] for p, result in found}
    without = {p["seed"]: task.scale * result[score] for p, result in base or ()}
    both = [seed for seed in values if seed in without]
    gain = None
    if len(both) > 1:
        paired = ([of[seed] for seed in both] for of in (values, without))
        gain = compare_paired(*paired, alternative="greater")
    labels = float(np.mean([result["labels"] for _, result in found]))
    beside = {name: float(np.mean([result.get(name, np.nan) for _, result in found])) for name in others}
    measured = list(values.values())
    return Point(method, budget, labels, tuple(measured), tuple(values), _mean(measured), gain, beside)


def write_outcome(folder: Path, outcome: CurveOutcome) -> None:
    """Write curve.json, curve.csv, curve.md and curve.png; each appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {"settings": dict(outcome.settings), "versions": versions()}
    points = [asdict(point) for point in outcome.points]
    floors = [asdict(floor) for floor in outcome.floors]
    kind = {"target": outcome.target, "baseline": outcome.baseline}
    gaps = [asdict(gap) for gap in outcome.gaps]
    whole = without_nan({**found, **kind, "points": points, "floors": floors, "missing": gaps})
    write_atomically(folder / "curve.json", json.dumps(whole, indent=1) + "\n")
    task = task_of(outcome.target)
    rows: list[Sequence[object]] = [("method", task.amount, "seed", task.score)]
    for point in outcome.points:
        seeds = zip(point.seeds, point.values, strict=True)
        rows += [(point.method, point.budget, s, v / task.scale) for s, v in seeds]
    write_atomically(folder / "curve.csv", "".join(map(csv_line, rows)))
    write_atomically(
        folder / "curve.md",
        "# Label-efficiency curve\n\n"
        + (f"**{outcome.partial[0].upper()}{outcome.partial[1:]}.**\n\n" if outcome.gaps else "")
        + f"{as_table(outcome.rows())}\n\n"
        + "".join(f"{line}\n\n" for line in outcome.warnings)
        + "Means over label draws; gains are paired by draw, in points of the score, with one-sided "
        "p values (greater).\n\n![curve](curve.png)\n",
    )
    with replacing(folder / "curve.png") as file:
        _draw(outcome, file)


def _draw(outcome: CurveOutcome, file: Any) -> None:
    """The score over the number of labels, with intervals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    everything = (*outcome.points, *outcome.floors)
    methods = list(dict.fromkeys(point.method for point in everything))
    for i, method in enumerate(methods):
        points = [point for point in everything if point.method == method]
        mean = np.array([p.score.mean for p in points])
        reach = np.array(
            [
                [p.score.mean - p.score.low for p in points],
                [p.score.high - p.score.mean for p in points],
            ]
        )
        beside = 1 + 0.03 * (i - len(methods) / 2)  # so that intervals do not hide each other
        style: dict[str, Any] = {"marker": "o"}
        if points[0] in outcome.floors:
            style = {"marker": "_", "linestyle": ":", "color": "grey"}
        label = f"floor: {method}" if points[0] in outcome.floors else method
        axes.errorbar([p.budget * beside for p in points], mean, reach, capsize=3, label=label, **style)
    budgets = sorted({point.budget for point in outcome.points})
    axes.set_xscale("log")
    axes.set_xticks(budgets, labels=[str(b) for b in budgets])
    axes.minorticks_off()
    task = task_of(outcome.target)
    axes.set(xlabel=task.counted, ylabel=task.measures[task.score])
    axes.legend()
    if outcome.gaps:
        axes.set_title(outcome.partial)
    figure.savefig(file, format="png", dpi=120)
