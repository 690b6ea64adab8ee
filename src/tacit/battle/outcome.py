"""What a label-efficiency curve found: a row per method and budget, its tests, a table and a figure."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tacit.claims.run import as_table
from tacit.evaluation.statistics import Interval, Paired, compare_paired, mean_interval
from tacit.files import replacing, write_atomically
from tacit.training.run import versions

METRIC = "balanced_accuracy"


@dataclass(frozen=True, slots=True)
class Point:
    """One method at one budget, over seeds, in percent and points of balanced accuracy.

    labels: mean number of labels that were learned from. gain: over the baseline with the same labels,
    paired by seed; its p values are one-sided (greater). None for the baseline itself and for floors.
    kappa, mae, ece: means of the quadratic kappa, the error in grades and the calibration error.
    """

    method: str
    budget: int
    labels: float
    values: tuple[float, ...]
    accuracy: Interval
    gain: Paired | None
    kappa: float
    mae: float
    ece: float


@dataclass(frozen=True, slots=True)
class CurveOutcome:
    """All points, what the runs had in common, and floors: what the same labels give without learning."""

    points: tuple[Point, ...]
    settings: Mapping[str, Any]
    floors: tuple[Point, ...] = ()

    @classmethod
    def of(
        cls,
        grid: Sequence[Mapping[str, Any]],
        results: Sequence[Mapping[str, Any]],
        *,
        baseline: str,
        floors: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]] = (),
    ) -> CurveOutcome:
        """From the runs' parameters and grades, in the same order; floors as pairs of both."""
        cells: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
        for parameters, result in zip(grid, results, strict=True):
            cells.setdefault((parameters["method"], parameters["budget"]), []).append(result)
        points = tuple(
            _point(method, budget, found, cells[baseline, budget] if method != baseline else None)
            for (method, budget), found in sorted(cells.items(), key=lambda item: item[0][1])
        )
        below: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
        for parameters, result in floors:
            below.setdefault((parameters["method"], parameters["budget"]), []).append(result)
        own = ("method", "budget", "seed", "options")
        return cls(
            points,
            {key: value for key, value in grid[0].items() if key not in own},
            tuple(_point(*key, found, None) for key, found in below.items()),
        )

    def rows(self) -> list[dict[str, str]]:
        """The table, for people."""
        return [
            {
                "labels per class": str(p.budget),
                "method": f"floor: {p.method}" if p in self.floors else p.method,
                "balanced accuracy in % [95 %]": _percent(p.accuracy),
                "gain over supervised [95 %]": "" if p.gain is None else str(p.gain.difference),
                "Wilcoxon p": "" if p.gain is None else f"{p.gain.wilcoxon:.3f}",
                "kappa": f"{p.kappa:.3f}",
                "MAE": f"{p.mae:.3f}",
                "ECE": f"{p.ece:.3f}",
            }
            for p in sorted((*self.points, *self.floors), key=lambda point: point.budget)
        ]

    @property
    def warnings(self) -> list[str]:
        """A line for each method that lies below a floor, in the mean over label draws."""
        lines = []
        for point in self.points:
            floors = [p for p in self.floors if p.budget == point.budget]
            best = max(floors, key=lambda p: p.accuracy.mean, default=None)
            if best is not None and point.accuracy.mean < best.accuracy.mean:
                own, floor = point.accuracy.mean, best.accuracy.mean
                lines.append(
                    f"warning: {point.method} with {point.budget} labels per class ({own:.1f} %) is below "
                    f"'{best.method}' ({floor:.1f} %), which needs no learning: more --steps, or an "
                    "--encoder that has learned, is most likely to help"
                )
        return lines

    def __str__(self) -> str:
        return "\n".join([as_table(self.rows()), *self.warnings])


def _percent(interval: Interval) -> str:
    return f"{interval.mean:.1f} [{interval.low:.1f}, {interval.high:.1f}]"


def _point(
    method: str, budget: int, found: Sequence[Mapping[str, Any]], base: Sequence[Mapping[str, Any]] | None
) -> Point:
    values = [100 * result[METRIC] for result in found]
    gain = None
    if base is not None:
        gain = compare_paired(values, [100 * result[METRIC] for result in base], alternative="greater")
    kappa, mae, ece, labels = (
        float(np.mean([result[key] for result in found])) for key in ("kappa", "mae", "ece", "labels")
    )
    return Point(method, budget, labels, tuple(values), mean_interval(values), gain, kappa, mae, ece)


def write_outcome(folder: Path, outcome: CurveOutcome) -> None:
    """Write curve.json, curve.csv, curve.md and curve.png; each appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {"settings": dict(outcome.settings), "versions": versions()}
    points = [asdict(point) for point in outcome.points]
    floors = [asdict(floor) for floor in outcome.floors]
    whole = {**found, "points": points, "floors": floors}
    write_atomically(folder / "curve.json", json.dumps(whole, indent=1) + "\n")
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["method", "labels_per_class", "seed", METRIC])
    for point in outcome.points:
        writer.writerows([point.method, point.budget, s, v / 100] for s, v in enumerate(point.values))
    write_atomically(folder / "curve.csv", text.getvalue())
    write_atomically(
        folder / "curve.md",
        "# Label-efficiency curve\n\n"
        f"{as_table(outcome.rows())}\n\n"
        + "".join(f"{line}\n\n" for line in outcome.warnings)
        + "Means over label draws; gains are paired by draw, in points of balanced accuracy, with one-sided "
        "p values (greater).\n\n![curve](curve.png)\n",
    )
    with replacing(folder / "curve.png") as file:
        _draw(outcome, file)


def _draw(outcome: CurveOutcome, file: Any) -> None:
    """Balanced accuracy over labels per class, with intervals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    everything = (*outcome.points, *outcome.floors)
    methods = list(dict.fromkeys(point.method for point in everything))
    for i, method in enumerate(methods):
        points = [point for point in everything if point.method == method]
        mean = np.array([p.accuracy.mean for p in points])
        reach = np.array(
            [
                [p.accuracy.mean - p.accuracy.low for p in points],
                [p.accuracy.high - p.accuracy.mean for p in points],
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
    axes.set(xlabel="labels per class", ylabel="balanced accuracy in %")
    axes.legend()
    figure.savefig(file, format="png", dpi=120)
