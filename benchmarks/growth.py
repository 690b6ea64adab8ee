"""The figure of how time and memory grow with N, from the result files of the other benchmarks.

    python benchmarks/growth.py

Reads `results/` of views, losses, probe and index, and writes `docs/growth.png`. Both axes are logarithmic; a
grey line is what grows with N, a dashed one with its square.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from race import RESULTS

FIGURE = Path(__file__).parents[1] / "docs" / "growth.png"
Curve = list[tuple[float, float]]


def rows(name: str) -> list[dict[str, Any]]:
    return json.loads((RESULTS / f"{name}.json").read_text())["rows"]


def curves(found: list[dict[str, Any]], by: str, value: str = "seconds") -> dict[str, Curve]:
    """A curve of (n, value) for each value of the key `by`."""
    out: dict[str, Curve] = {}
    for row in found:
        out.setdefault(row[by], []).append((row["n"], row[value]))
    return out


def panels() -> dict[tuple[str, str, str], dict[str, Curve]]:
    """Curves by (title, unit of N, unit of the value)."""
    losses = [row for row in rows("losses") if row["what"] == "growth"]
    probe = [row for row in rows("probe") if "growth" in row]
    index = rows("index")
    views = [row for row in rows("views") if "growth" in row]
    return {
        ("Views at 32 px", "images", "s"): curves(views, "who"),
        ("Losses, forward and backward", "images", "s"): curves(losses, "loss"),
        ("Losses, extra memory", "images", "GiB"): curves(losses, "loss", "gib"),
        ("Linear probe", "samples", "s"): curves([r for r in probe if r["growth"] == "linear"], "who"),
        ("kNN probe, 1,000 queries", "samples", "s"): curves(
            [r for r in probe if r["growth"] == "knn"], "who"
        ),
        ("Index of a folder", "files", "s"): {
            "first start": [(row["paths"], row["first_s"]) for row in index],
            "second start": [(row["paths"], row["second_s"]) for row in index],
        },
    }


def draw(axes: Axes, title: tuple[str, str, str], found: dict[str, Curve]) -> None:
    name, count, unit = title
    for label, curve in found.items():
        axes.loglog(*zip(*curve, strict=True), marker="o", markersize=3, label=label)
    n, value = next(iter(found.values()))[-1]  # the guides pass through the first curve's last point
    least = min(point[0] for curve in found.values() for point in curve)
    axes.loglog([least, n], [value * least / n, value], color="0.8", zorder=0)
    if "Loss" in name:
        axes.loglog([least, n], [value * (least / n) ** 2, value], color="0.8", linestyle="--", zorder=0)
    axes.set(title=name, xlabel=count, ylabel=unit)
    lows = [point[1] for curve in found.values() for point in curve]
    axes.set_ylim(min(lows) / 3, max(lows) * 3)
    axes.legend(fontsize="small")


def main() -> None:
    found = panels()
    figure, grid = plt.subplots(2, 3, figsize=(11, 6), layout="constrained")
    for axes, (title, values) in zip(grid.flat, found.items(), strict=True):
        draw(axes, title, values)
    figure.savefig(FIGURE, dpi=110)
    print(f"written: {FIGURE}")


if __name__ == "__main__":
    main()
