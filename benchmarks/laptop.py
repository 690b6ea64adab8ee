"""What `--preset laptop` learns without labels: linear probe and kNN beside untrained twin and raw pixels.

    python benchmarks/laptop.py --data ../shared/data [--methods dcl,deepcluster] [--seeds 3] [--validation]

Three kinds of pictures: CIFAR-10 (5,000 to learn from, 2,000 to grade), solar cells in four grades (48 px;
blocks of 41 neighbouring cells on one side of the split) and fields of nuclei (64 px, grey; the classes are
the quarters of their number of nuclei). A method learns from the training part without its labels; the probe
learns from all of them and is graded on the test part, by which nothing was chosen. `--validation` grades on
a part of the training part instead. Every run is kept in `--work`; the same command goes on where it was
stopped.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import defaults
import sittings
import tacit
from defaults import Parts, archive, opened, parts
from sittings import Pairs
from tacit.evaluation.statistics import mean_interval

SETS = ("cifar10_jpeg", "elpv_solar", "dsb2018_nuclei")
LEARNED, TWIN, PIXELS = "learned", "random twin", "raw pixels"
KINDS = ("linear", "knn", "balanced linear", "balanced knn")


def nuclei(data: Path, validation: bool) -> Parts:
    """64 x 64 pixels, the file's last fifth to grade; quarters of the whole file's numbers of nuclei."""
    with np.load(data / "dsb2018_nuclei" / "dsb2018_nuclei.npz", allow_pickle=False) as stored:
        pictures, count = stored["image"], stored["n_nuclei"]
    quarter = np.digitize(count, np.quantile(count, [0.25, 0.5, 0.75])).astype(np.int64)
    small = np.stack(
        [np.asarray(Image.fromarray(i).resize((64, 64), Image.Resampling.BOX)) for i in pictures]
    )
    begin, end = (400, 532) if validation else (532, len(small))
    return parts(small, quarter, np.arange(begin), np.arange(begin, end))


defaults.MAKERS["dsb2018_nuclei"] = nuclei


def run(cell: Mapping[str, Any]) -> dict[str, Any]:
    source = opened(cell)
    began = time.process_time()  # others may use the machine
    with tempfile.TemporaryDirectory() as place:
        done = tacit.fit(
            cell["method"],
            source.subset(source.splits["train"]),
            out=Path(place) / "run",
            labels="none",
            preset="laptop",
            seed=cell["seed"],
            quiet=True,
            device="cpu",
        )
        minutes = (time.process_time() - began) / 60
        report = tacit.probe(str(done.folder), source, seed=cell["seed"], device="cpu")
        recipe = done.settings()
    found = {
        result.representation: {
            "linear": result.linear.accuracy,
            "knn": result.knn.accuracy,
            "balanced linear": result.linear.balanced_accuracy,
            "balanced knn": result.knn.balanced_accuracy,
        }
        for result in report.results
    }
    asked = {name: recipe[name] for name in ("encoder", "batch_size", "epochs")}
    return {"probe": found, "said": report.warnings, "minutes": minutes, "recipe": asked}


def percent(values: list[float]) -> str:
    return f"{100 * np.mean(values):.1f}"


def rows(found: Pairs) -> list[dict[str, str]]:
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for cell, result in found:
        groups.setdefault((cell["set"], cell["method"]), []).append(result)
    table = []
    for ((name, method), results), kind in product(groups.items(), KINDS):
        values = {
            who: np.array([result["probe"][who][kind] for result in results])
            for who in (LEARNED, TWIN, PIXELS)
        }
        row = {"data": name, "method": method, "probe": kind}
        row |= {who: percent(list(value)) for who, value in values.items()}
        for who in (TWIN, PIXELS):
            if len(results) > 1:
                row[f"minus {who}"] = str(mean_interval(100 * (values[LEARNED] - values[who])))
        row["said so"] = f"{sum(bool(result['said']) for result in results)} of {len(results)}"
        row["minutes"] = f"{np.mean([result['minutes'] for result in results]):.0f}"
        table.append(row)
    return table


def main() -> None:
    options = sittings.parser(__doc__, "runs/laptop", "laptop")
    options.add_argument("--methods", default="dcl,deepcluster")
    options.add_argument("--sets", default=",".join(SETS))
    options.add_argument("--validation", action="store_true")
    asked = options.parse_args()
    sitting = sittings.Sitting(asked, "laptop 1")
    paths = {
        name: str(archive(name, asked.data, asked.work, asked.validation)) for name in asked.sets.split(",")
    }
    grid = [
        {"set": name, "path": path, "method": method, "seed": seed}
        for seed, (name, path), method in product(range(asked.seeds), paths.items(), asked.methods.split(","))
    ]
    found = sitting.run(run, grid)
    sitting.save(rows(found), runs=found)


if __name__ == "__main__":
    main()
