"""Racing contestants against each other in one run, and writing down who won on which machine.

Every benchmark of this folder is one command, `python benchmarks/NAME.py [--quick]`, and writes
`benchmarks/results/NAME.json`. Ratios are what counts: contestants take turns, so that whatever else
the machine does meets all of them. Peers come with `pip install -e '.[benchmarks]'`. No benchmark runs with
settings that slow numpy (`untuned.py`).
"""

from __future__ import annotations

import gc
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_info

import untuned  # noqa: F401  # importing it is what it is for

RESULTS = Path(__file__).parent / "results"
_PACKAGES = (
    "tacit",
    "torch",
    "torchvision",
    "numpy",
    "scikit-learn",
    "lightning",
    "kornia",
    "lightly",
    "pytorch-metric-learning",
    "monai",
    "medpy",
)


def race(
    contestants: Mapping[str, Callable[[], object]], *, rounds: int = 7, at_least: float = 0.2
) -> dict[str, float]:
    """Median seconds of one call of each contestant.

    They take turns, round after round. In a round each is called as often as takes about `at_least`
    seconds; one call before the first round is not counted.
    """
    calls = {name: _calls_for(run, at_least) for name, run in contestants.items()}
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            times[name].append(_time(run, calls[name]))
    return {name: statistics.median(values) for name, values in times.items()}


def _calls_for(run: Callable[[], object], at_least: float) -> int:
    run()
    return max(1, round(at_least / max(_time(run, 1), 1e-6)))


def _time(run: Callable[[], object], calls: int) -> float:
    gc.collect()
    start = time.perf_counter()
    for _ in range(calls):
        run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / calls


def machine() -> dict[str, Any]:
    """What computed: processor, cores, memory, threads, libraries of linear algebra, versions."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "blas": sorted(
            f"{each['internal_api']} {each['version']} {each.get('architecture', '')}, "
            f"{each['num_threads']} threads"
            for each in threadpool_info()
            if each["user_api"] == "blas"
        ),
        "load_before": os.getloadavg()[0],
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": {name: v for name in _PACKAGES if (v := _version(name))},
        "date": datetime.now(UTC).date().isoformat(),
    }


def save(name: str, description: Mapping[str, Any], rows: list[dict[str, Any]]) -> None:
    """Print the rows and write `results/NAME.json`. `description`: `machine()`, taken before the race."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": dict(description), "rows": rows}, indent=1) + "\n")
    for row in rows:
        print("  ".join(f"{key} {_short(value)}" for key, value in row.items()))
    print(f"written: {path}")


def _short(value: object) -> object:
    return f"{value:.4g}" if isinstance(value, float) else value


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
