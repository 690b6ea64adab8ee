"""Cells that are asked to stop: real processes, real signals, nobody left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tacit.claims import run
from tacit.claims.base import Outcome
from tacit.claims.cells import Cells
from tacit.claims.run import claim
from tacit.errors import Interrupted, TacitError, UsageError
from tacit.locks import owning

SLOW = """
import os, sys, tempfile, time
from pathlib import Path
from tacit.claims.cells import Cells
from tacit.errors import TacitError

folder, jobs = Path(sys.argv[1]), int(sys.argv[2])

def cell(p):
    (folder / "pids" / str(os.getpid())).touch()
    with tempfile.TemporaryDirectory(dir=folder / "places"):
        (folder / "begun" / str(p["x"])).touch()
        end = time.monotonic() + (0 if p["x"] < 2 else 60)
        while time.monotonic() < end:
            time.sleep(0.05)
    return {"x": p["x"]}

cells = Cells(folder / "cells", "1", jobs=jobs, say=lambda line: None)
try:
    cells.run(cell, [{"x": x} for x in range(8)])
except TacitError as error:
    print(f"{type(error).__name__}: {error}")
    sys.exit(error.exit_code)
"""


def started(tmp_path, jobs):
    """A process whose first two cells are done and whose next ones are under way."""
    for name in ("pids", "places", "begun", "cells"):
        (tmp_path / name).mkdir()
    (tmp_path / "slow.py").write_text(SLOW)
    command = [sys.executable, str(tmp_path / "slow.py"), str(tmp_path), str(jobs)]
    process = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    while process.poll() is None and len(list((tmp_path / "begun").iterdir())) < 2 + jobs:
        time.sleep(0.02)
    return process


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def left(tmp_path):
    pids = [int(path.name) for path in (tmp_path / "pids").iterdir()]
    end = time.monotonic() + 10
    while any(alive(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.05)
    return [pid for pid in pids if alive(pid)]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    ("number", "jobs", "whole_group"),
    [(signal.SIGTERM, 1, False), (signal.SIGTERM, 2, False), (signal.SIGINT, 2, True)],
)
def test_a_signal_stops_all_cells_and_keeps_what_is_done(number, jobs, whole_group, tmp_path):
    process = started(tmp_path, jobs)
    (os.killpg if whole_group else os.kill)(process.pid, number)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert said == "Interrupted: stopped; what is done is kept: the same command goes on with the rest\n"
    assert len(list((tmp_path / "cells").iterdir())) == 2
    assert left(tmp_path) == []
    assert list((tmp_path / "places").iterdir()) == []  # cells had the time to remove what they wrote
    assert len(list((tmp_path / "begun").iterdir())) == 2 + jobs  # no other cell began


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_the_processes_of_a_killed_experiment_end_too(tmp_path):
    process = started(tmp_path, 2)
    process.kill()
    process.communicate()
    assert left(tmp_path) == []


def shot(parameters):
    if parameters["x"] == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"x": parameters["x"]}


def test_a_process_that_the_system_kills_ends_the_experiment_in_one_line(tmp_path):
    cells = Cells(tmp_path / "cells", "1", jobs=2, say=lambda line: None)
    found = cells.attempt(shot, [{"x": x} for x in range(3)])
    assert "a process was killed while it computed" in str(found.stop)
    assert "pass a smaller --jobs" in str(found.stop)
    assert found.stop.exit_code == 1
    assert found.results[2] is None


def second_bad(parameters):
    if parameters["x"] == 1:
        raise ValueError("x is bad")
    return {"square": parameters["x"] ** 2, "words": ["not a number"]}


def told_to_stop(parameters):
    if parameters["x"] == 2:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    return {"square": parameters["x"] ** 2}


def test_what_is_missing_is_told_apart(tmp_path):
    cells = Cells(tmp_path / "cells", "1", jobs=1, say=lambda line: None)
    grid = [{"x": x, "y": 7} for x in range(4)]
    found = cells.attempt(second_bad, grid)
    assert [result and result["square"] for result in found.results] == [0, None, 4, 9]
    assert (found.failures, found.stop, found.done, found.first) == (
        {1: "x is bad"},
        None,
        3,
        "x=1: x is bad",
    )
    before = signal.getsignal(signal.SIGTERM)
    stopped = cells.attempt(told_to_stop, grid)
    assert [result and result["square"] for result in stopped.results] == [0, 1, None, None]
    assert (stopped.failures, stopped.stop.exit_code) == ({}, 143)
    assert signal.getsignal(signal.SIGTERM) is before


def experiment_of(cell):
    def experiment(setting):
        setting.cells(cell, [{"x": x} for x in range(3)])
        return Outcome("holds", "it does", (), {})

    return experiment


@pytest.fixture
def made_up_claim(monkeypatch):
    """`tacit.claim("made-up")` with the cells of this file."""

    def make(cell):
        from tacit.claims.base import Claim

        made = Claim("made-up", "Squares grow.", "nobody", "three numbers", experiment_of(cell))
        monkeypatch.setattr(run, "load_claim", lambda name: made)

    return make


def test_a_claim_with_a_failed_cell_writes_what_there_is(made_up_claim, tmp_path):
    made_up_claim(second_bad)
    with pytest.raises(TacitError, match=r"1 of 3 cells failed, the first: x=1: x is bad; .*partial\.md has"):
        claim("made-up", out=str(tmp_path), jobs=1, quiet=True)
    page = (tmp_path / "made-up.partial.md").read_text()
    assert "**Partial: 2 of 3 cells" in page
    assert "| x=0 | done | 0 |" in page
    assert "| x=1 | failed: x is bad |" in page
    assert "| x=2 | done | 4 |" in page
    assert not (tmp_path / "made-up.md").exists()


def test_a_claim_that_is_stopped_goes_on(made_up_claim, tmp_path):
    made_up_claim(told_to_stop)
    with pytest.raises(Interrupted, match=r"stopped; what is done is kept.*partial\.md has") as stop:
        claim("made-up", out=str(tmp_path), jobs=1, quiet=True)
    assert stop.value.exit_code == 143
    assert "| x=2 | not run |" in (tmp_path / "made-up.partial.md").read_text()
    told_to_stop.__code__, kept = second_bad.__code__, told_to_stop.__code__
    try:
        claim("made-up", out=str(tmp_path), jobs=1, quiet=True)
    finally:
        told_to_stop.__code__ = kept
    assert not (tmp_path / "made-up.partial.md").exists()
    assert "**Verdict: holds.**" in (tmp_path / "made-up.md").read_text()


def test_a_claim_owns_its_folder(made_up_claim, tmp_path):
    made_up_claim(second_bad)
    import threading

    refused = []

    def second():
        with pytest.raises(UsageError, match=f"'{tmp_path}' is in use by") as error:
            claim("made-up", out=str(tmp_path), jobs=1, quiet=True)
        refused.append(error.value)

    with owning(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert len(refused) == 1
