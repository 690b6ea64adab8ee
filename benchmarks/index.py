"""Listing an image folder: the first start and the second, from 10,000 to 1,000,000 paths.

    python benchmarks/index.py [--quick] [--folder EMPTY_FOLDER]

Makes trees of empty files. A start is what `tacit.data.image.folder.open_folder` does before it decodes
anything: list the files (or take the kept listing, after looking for changes), the key of the store,
classes and labels. The public `open_source` is timed as well, up to the error that it must give for
empty files (`public_s`): listing, key, and the plan for the store. `stat_s` is what the system alone
takes to read all folders and to look at all files, which bounds `first_s`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from race import machine, save
from tacit.data.image.folder import read_folders
from tacit.data.image.index import indexed
from tacit.data.open import open_source
from tacit.data.options import Options
from tacit.errors import TacitError

_FOLDERS = 1000
_SETTLED = 3.0  # seconds: a folder that changed in the last two is not trusted


def make_tree(root: Path, paths: int, folders: int = _FOLDERS) -> None:
    """Empty files `0000/000000.png`, ... in so many folders."""
    for k in range(folders):
        place = root / f"{k:04}"
        place.mkdir(parents=True)
        handle = os.open(place, os.O_RDONLY)
        for i in range(paths // folders):
            os.close(os.open(f"{i:06}.png", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=handle))
        os.close(handle)


def start(root: Path, options: Options) -> int:
    """What a start does with the names of the files; the number of classes."""
    listing = indexed(root, options)
    assert b"".join(listing.identity())
    return len(read_folders(listing, options, root)[0].classes)


def measure(root: Path, cache: Path) -> dict[str, float]:
    """One start in this process, which has imported everything: seconds and MiB of its own memory."""
    options = Options(cache=cache, progress=False)
    before, began = _own_mib(), time.perf_counter()
    classes = start(root, options)
    seconds, used = time.perf_counter() - began, _own_mib() - before
    began = time.perf_counter()
    with suppress(TacitError):  # empty files
        open_source(root, cache=cache, progress=False)
    return {"s": seconds, "own_mib": used, "public_s": time.perf_counter() - began, "classes": classes}


def _own_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def _stat_all(root: Path) -> float:
    began = time.perf_counter()
    for folder in os.scandir(os.fsencode(root)):
        with os.scandir(folder.path) as entries:
            for entry in entries:
                entry.stat()
    return time.perf_counter() - began


def _child(root: Path, cache: Path) -> dict[str, float]:
    code = (
        "import index, json, sys, pathlib; print(json.dumps(index.measure(*map(pathlib.Path, sys.argv[1:]))))"
    )
    command = [sys.executable, "-c", code, str(root), str(cache)]
    run = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


def row(paths: int, below: Path) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=below) as place:
        root, cache = Path(place, "tree"), Path(place, "cache")
        began = time.perf_counter()
        make_tree(root, paths)
        made = time.perf_counter() - began
        time.sleep(_SETTLED)
        first, second = _child(root, cache), _child(root, cache)
        kept = sum(file.stat().st_size for file in (cache / "indices").iterdir())
        return {
            "paths": paths,
            "folders": _FOLDERS,
            "first_s": first["s"],
            "second_s": second["s"],
            "second_public_s": second["public_s"],
            "first_own_mib": first["own_mib"],
            "second_own_mib": second["own_mib"],
            "index_mib": kept / 2**20,
            "stat_s": _stat_all(root),
            "make_tree_s": made,
        }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="up to 100,000 paths")
    parser.add_argument("--folder", type=Path, help="where the trees are made; default: the system's own")
    arguments = parser.parse_args()
    description = machine()
    rows = [
        row(paths, arguments.folder) for paths in (10_000, 100_000, 1_000_000)[: 2 if arguments.quick else 3]
    ]
    save("index", description, rows)
    last = rows[-1]
    print(
        f"{last['paths']:,} paths: first {last['first_s']:.1f} s (at most 20 are wanted of a million), "
        f"second {last['second_s']:.2f} s (at most 1); to read the folders and look at every file takes "
        f"the system and Python alone {last['stat_s']:.1f} s"
    )


if __name__ == "__main__":
    main()
