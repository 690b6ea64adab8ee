"""Files of strangers: 10,000 mutated ones over every reader, none of which may do anything but be refused.

Each reader of a run folder, a configuration or a file of data gets a sound file with seeded mutations
(`tests/mutations.py`; the readers are in `tests/run_readers.py` and `tests/data_readers.py`). Counted are

    other errors   anything that is raised and is not a `TacitError` of one line
    hangs          more than 10 s for one file
    memory         a process that takes more than 1 GiB above what it had before the file
    executed       a module imported, a file opened or a program started that only the file names
    crashes        a process that ended

and all of them must be 0. Processes are independent of each other, and of this one.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

DEADLINE = 10  # seconds for one file
ABOVE = 2**30  # bytes that a process may take for one file
CEILING = 8 * 2**30  # bytes of address space beyond what it has at the start, so that this machine survives
SILENCE = 60  # seconds without a word, after which a process is ended
CHUNK = 250  # files per process


class Slow(BaseException):
    """Longer than the deadline; not an `Exception`, so that no reader takes it for damage."""


def _readers() -> dict[str, Any]:
    from data_readers import DATA_READERS
    from run_readers import READERS

    return {**READERS, **DATA_READERS}


def _too_slow(number: int, frame: object) -> None:
    raise Slow


def _peak() -> int:
    """Most bytes of memory that this process has had since `_forget`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def _forget() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def work(name: str, first: int, last: int) -> None:
    """In a process of its own: print a line for each file before it is read, and one after."""
    import torch

    from mutations import mutate, watch_for_strangers, write_module

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    reader = _readers()[name]
    with tempfile.TemporaryDirectory() as place:
        folder, strange = Path(place, "run"), Path(place, "strange")
        folder.mkdir(), strange.mkdir()
        write_module(strange)
        sys.path.insert(0, str(strange))
        reader.make(folder)
        sound = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        reader.read(folder)
        signal.signal(signal.SIGALRM, _too_slow)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + CEILING
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        seen = watch_for_strangers()
        for seed in range(first, last):
            for file, content in sound.items():
                file.write_bytes(content)
            (folder / reader.file).write_bytes(mutate(reader.kind, sound[folder / reader.file], seed))
            print(json.dumps({"seed": seed}), flush=True)
            seen.clear()
            found = _one(reader, folder)
            if seen or (strange / "executed").exists():
                found["executed"] = seen[:3] or ["the module"]
            print(json.dumps({"seed": seed, **found}), flush=True)


def _one(reader: Any, folder: Path) -> dict[str, Any]:
    from tacit.errors import TacitError

    _forget()
    before, start = _peak(), time.monotonic()
    signal.alarm(DEADLINE)
    try:
        reader.read(folder)
        found: dict[str, Any] = {"outcome": "read"}
    except Slow:
        found = {"outcome": "hang"}
    except TacitError as error:
        lines = str(error).count("\n")
        found = {"outcome": "refused"} if not lines else {"outcome": "other", "error": "more than one line"}
    except BaseException as error:
        found = {"outcome": "other", "error": f"{type(error).__name__}: {error}"[:300]}
    finally:
        signal.alarm(0)
    return {**found, "bytes": _peak() - before, "seconds": time.monotonic() - start}


def run(name: str, first: int, last: int) -> list[dict[str, Any]]:
    """What became of some files; a process that ends or falls silent is followed by another."""
    results: list[dict[str, Any]] = []
    while first < last:
        words = [sys.executable, __file__, "--worker", name, str(first), str(min(last, first + CHUNK))]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        with subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
        ) as child:
            try:
                out, err = child.communicate(timeout=SILENCE + CHUNK * DEADLINE)
            except subprocess.TimeoutExpired:
                child.kill()
                out, err = child.communicate()
        lines = [json.loads(line) for line in out.decode().splitlines() if line.startswith('{"seed"')]
        done = [line for line in lines if "outcome" in line]
        results += [{"reader": name, **line} for line in done]
        begun = [line["seed"] for line in lines]
        if not begun:
            raise SystemExit(f"{name} does not start:\n{err.decode()[-2000:]}")
        if len(done) < len(set(begun)):
            results.append({"reader": name, "seed": begun[-1], "outcome": "crash", "code": child.returncode})
        first = begun[-1] + 1
    return results


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts, and all that went wrong."""
    outcomes = Counter(result["outcome"] for result in results)
    large = [r for r in results if r.get("bytes", 0) > ABOVE]
    executed = [r for r in results if "executed" in r]
    wrong = [r for r in results if r["outcome"] in ("other", "hang", "crash")]
    return {
        "files": len(results),
        "read": outcomes["read"],
        "refused": outcomes["refused"],
        "other errors": outcomes["other"],
        "hangs": outcomes["hang"],
        "crashes": outcomes["crash"],
        "memory": len(large),
        "executed": len(executed),
        "slowest": max((r.get("seconds", 0.0) for r in results), default=0.0),
        "largest": max((r.get("bytes", 0) for r in results), default=0),
        "wrong": [*wrong, *large, *executed],
    }


def main() -> None:
    from tacit.training.run import versions

    readers = list(_readers())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000, help="mutated files in all")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--only", default="", help="readers whose name has this in it")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "fuzz.json")
    asked = parser.parse_args()
    chosen = [name for name in readers if asked.only in name]
    each = -(-asked.files // len(chosen))
    parts, by_reader = [], {}
    with ThreadPoolExecutor(asked.jobs) as pool:
        for name, part in zip(
            chosen, pool.map(lambda n: run(n, asked.first, asked.first + each), chosen), strict=True
        ):
            parts.append(part)
            found = by_reader[name] = summary(part)
            bad = {key: found[key] for key in ("other errors", "hangs", "crashes", "memory", "executed")}
            print(f"{name:32} {found['files']:5} read {found['read']:5} refused {found['refused']:5} {bad}")
            for one in found["wrong"][:5]:
                print("   ", one, flush=True)
    everything = summary([result for part in parts for result in part])
    wrong = everything.pop("wrong")
    print(everything)
    record = {"all": everything, "readers": by_reader, "versions": versions(), "first seed": asked.first}
    asked.out.write_text(json.dumps(record, indent=1) + "\n")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
