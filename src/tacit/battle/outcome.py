"""What a label-efficiency curve found: a row per method and budget, its tests, a table and a figure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tacit.claims.run import as_table
from tacit.evaluation.statistics import Interval, Paired, compare_paired, mean_interval
from tacit.files import csv_line, replacing, without_nan, write_atomically
from tacit.tasks.base import Task
from tacit.tasks.registry import task_of
from tacit.training.run import versions


@dataclass(frozen=True, slots=True)
class Point:
    """One method at one budget, over seeds, in units of the table's score (percent, where it is a share).

    labels: mean number of labels that were learned from. gain: over the baseline with the same labels,
    paired by seed; its p values are one-sided (greater). None for the baseline itself and for floors.
    others: means of the further measures, by name.
    """

    method: str
    budget: int
    labels: float
    values: tuple[float, ...]
    score: Interval
    gain: Paired | None
    others: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class CurveOutcome:
    """All points, what the runs had in common, and floors: what the same labels give without learning.

    target: kind of the labels. baseline: the method that learns from the labels alone.
    """

    target: str
    baseline: str
    points: tuple[Point, ...]
    settings: Mapping[str, Any]
    floors: tuple[Point, ...] = ()

    @classmethod
    def of(
        cls,
        grid: Sequence[Mapping[str, Any]],
        results: Sequence[Mapping[str, Any]],
        *,
        target: str,
        baseline: str,
        floors: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]] = (),
    ) -> CurveOutcome:
        """From the runs' parameters and grades, in the same order; floors as pairs of both."""
        cells: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
        for parameters, result in zip(grid, results, strict=True):
            cells.setdefault((parameters["method"], parameters["budget"]), []).append(result)
        task = task_of(target)
        points = tuple(
            _point(task, method, budget, found, cells[baseline, budget] if method != baseline else None)
            for (method, budget), found in sorted(cells.items(), key=lambda item: item[0][1])
        )
        below: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
        for parameters, result in floors:
            below.setdefault((parameters["method"], parameters["budget"]), []).append(result)
        own = ("method", "budget", "seed", "options")
        return cls(
            target,
            baseline,
            points,
            {key: value for key, value in grid[0].items() if key not in own},
            tuple(_point(task, *key, found, None) for key, found in below.items()),
        )

    def rows(self) -> list[dict[str, str]]:
        """The table, for people, without measures that are never defined."""
        task = task_of(self.target)
        title = task.measures[task.score]
        defined = {
            name: of
            for name, of in task.measures.items()
            if any(not np.isnan(p.others.get(name, np.nan)) for p in (*self.points, *self.floors))
        }
        return [
            {
                task.counted: str(p.budget),
                "method": f"floor: {p.method}" if p in self.floors else p.method,
                f"{title} [95 %]": _interval(p.score),
                f"gain over {self.baseline} [95 %]": "" if p.gain is None else str(p.gain.difference),
                "Wilcoxon p": "" if p.gain is None else f"{p.gain.wilcoxon:.3f}",
                **{of: _number(p.others[name]) for name, of in defined.items()},
            }
            for p in sorted((*self.points, *self.floors), key=lambda point: point.budget)
        ]

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
        return "\n".join([as_table(self.rows()), *self.warnings])


def _interval(interval: Interval) -> str:
    return f"{interval.mean:.1f} [{interval.low:.1f}, {interval.high:.1f}]"


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.3f}"


def _point(
    task: Task,
    method: str,
    budget: int,
    found: Sequence[Mapping[str, Any]],
    base: Sequence[Mapping[str, Any]] | None,
) -> Point:
    score, *others = task.measures
    values = [task.scale * result[score] for result in found]
    gain = None
    if base is not None:
        gain = compare_paired(values, [task.scale * result[score] for result in base], alternative="greater")
    labels = float(np.mean([result["labels"] for result in found]))
    beside = {name: float(np.mean([result.get(name, np.nan) for result in found])) for name in others}
    return Point(method, budget, labels, tuple(values), mean_interval(values), gain, beside)


def write_outcome(folder: Path, outcome: CurveOutcome) -> None:
    """Write curve.json, curve.csv, curve.md and curve.png; each appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {"settings": dict(outcome.settings), "versions": versions()}
    points = [asdict(point) for point in outcome.points]
    floors = [asdict(floor) for floor in outcome.floors]
    kind = {"target": outcome.target, "baseline": outcome.baseline}
    whole = without_nan({**found, **kind, "points": points, "floors": floors})
    write_atomically(folder / "curve.json", json.dumps(whole, indent=1) + "\n")
    task = task_of(outcome.target)
    rows: list[Sequence[object]] = [("method", task.amount, "seed", task.score)]
    for point in outcome.points:
        rows += [(point.method, point.budget, s, v / task.scale) for s, v in enumerate(point.values)]
    write_atomically(folder / "curve.csv", "".join(map(csv_line, rows)))
    write_atomically(
        folder / "curve.md",
        "# Label-efficiency curve\n\n"
        f"{as_table(outcome.rows())}\n\n"
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
    figure.savefig(file, format="png", dpi=120)
