"""Curves of which some runs failed or were stopped: what there is is written, and said to be partial."""

import csv
import json
import os
import re
import signal
import time

import numpy as np
import pytest
from PIL import Image

from tacit.battle import curve as module
from tacit.battle.curve import curve
from tacit.battle.outcome import CurveOutcome, Unfinished, write_outcome
from tacit.cli.main import main
from tacit.errors import UsageError
from tacit.locks import owning

REST = {"quadratic_kappa": 0.0, "kappa": 0.0, "mae": 1.0, "ece": 0.1, "labels": 6}


def graded(parameters):
    """Grades that tell runs apart: 0.5 and more by seed, and 0.1 for another method than the baseline."""
    gain = 0.1 * (parameters["method"] != "supervised")
    return {"balanced_accuracy": 0.5 + gain + 0.02 * parameters["seed"], **REST}


@pytest.fixture
def runs(monkeypatch):
    """What the curve's runs do, in place of learning."""

    def use(act):
        def _cell(parameters):
            return act(parameters) or graded(parameters)

        def _floors(parameters):
            return {"pixels": {"balanced_accuracy": 0.4, **REST}}

        monkeypatch.setattr(module, "_cell", _cell)
        monkeypatch.setattr(module, "_floors", _floors)

    return use


def words(data, out):
    options = [
        "--methods",
        "pi-model",
        "--budgets",
        "3,6",
        "--seeds",
        "2",
        "--jobs",
        "1",
        "--views",
        "photos",
    ]
    return ["curve", "--data", str(data), *options, "--out", str(out)]


def failing(parameters):
    if (parameters["method"], parameters["budget"], parameters["seed"]) == ("pi-model", 6, 1):
        raise ValueError("no memory | for it")


def test_one_failed_run_does_not_cost_the_figure(runs, labelled_folder, tmp_path, capsys):
    runs(failing)
    assert main(words(labelled_folder, tmp_path / "c")) == 1
    said, page = capsys.readouterr(), tmp_path / "c" / "curve.md"
    assert said.err.splitlines()[1:] == [  # after what was understood of the data
        "tacit: 1 of 8 runs failed, the first: method=pi-model budget=6 seed=1: no memory | for it; partial: "
        f"7 of 8 runs (1 failed) in {page}; run the same command again when it is fixed"
    ]
    assert "| 6 | pi-model | 60.0 |" in said.out  # one run has no interval
    assert "1 of 2 (seed 1 failed: no memory / for it) |" in said.out
    assert "| 3 | pi-model | 61.0 [" in said.out
    assert "**Partial: 7 of 8 runs (1 failed).**" in (tmp_path / "c" / "curve.md").read_text()
    assert Image.open(tmp_path / "c" / "curve.png").size[0] > 400
    rows = list(csv.DictReader((tmp_path / "c" / "curve.csv").open()))
    assert len(rows) == 7
    found = json.loads((tmp_path / "c" / "curve.json").read_text(), parse_constant=pytest.fail)
    assert found["missing"] == [
        {"method": "pi-model", "budget": 6, "seed": 1, "reason": "no memory | for it"}
    ]
    runs(lambda parameters: None)  # the fix
    assert main(words(labelled_folder, tmp_path / "c")) == 0
    again = capsys.readouterr().out
    assert "1/1 " in again  # no other run is made again
    assert "partial" not in again
    assert "artial" not in (tmp_path / "c" / "curve.md").read_text()
    assert json.loads((tmp_path / "c" / "curve.json").read_text())["missing"] == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_a_partial_curve_and_the_same_command_goes_on(
    number, code, runs, labelled_folder, tmp_path, capsys
):
    def stopped(parameters):
        if parameters["budget"] == 6:
            os.kill(os.getpid(), number)
            time.sleep(10)

    runs(stopped)
    assert main(words(labelled_folder, tmp_path / "c")) == code
    said = capsys.readouterr()
    assert said.err.splitlines()[1:] == [  # after what was understood of the data
        f"tacit: partial: 4 of 8 runs (4 not run) in {tmp_path / 'c' / 'curve.md'}; stopped; what is done is "
        "kept: the same command goes on with the rest"
    ]
    assert "| 3 | pi-model | 61.0 [" in said.out
    assert re.search(r"\| 6 \| supervised \|( +\|)+ 0 of 2 \|", said.out)
    assert "floor" not in said.out  # the floors were not begun
    assert (tmp_path / "c" / "curve.png").is_file()
    runs(lambda parameters: None)
    assert main(words(labelled_folder, tmp_path / "c")) == 0
    said = capsys.readouterr().out
    assert "4/4 " in said
    assert "floor: pixels" in said


def test_nothing_is_written_where_nothing_is_done(runs, labelled_folder, tmp_path):
    def never(parameters):
        raise ValueError("never")

    runs(never)
    with pytest.raises(
        Unfinished, match=r"8 of 8 runs failed, the first: .*: never; no run is done yet"
    ) as e:
        curve(labelled_folder, methods="pi-model", budgets=[3, 6], seeds=2, jobs=1, out=tmp_path, quiet=True)
    assert (e.value.exit_code, e.value.outcome) == (1, None)
    assert not (tmp_path / "curve.png").exists()


def test_gains_pair_the_draws_that_both_have():
    grid = [
        {"method": m, "budget": 5, "seed": s, "options": {}}
        for s in range(4)
        for m in ("supervised", "fixmatch")
    ]
    scores = [0.5, None, 0.6, 0.7, None, 0.9, 0.4, 0.7]  # pairs of seeds 1 and 3: 0.1 and 0.3
    results = [None if s is None else {"balanced_accuracy": s, **REST} for s in scores]
    outcome = CurveOutcome.of(grid, results, target="class", baseline="supervised")
    base, fix = outcome.points
    assert (base.seeds, fix.seeds) == ((0, 1, 3), (1, 2, 3))
    assert fix.gain.difference.n == 2
    assert fix.gain.difference.mean == pytest.approx(20)
    assert outcome.partial == "partial: 6 of 8 runs (2 not run)"


def test_a_budget_without_its_baseline_has_no_gain(tmp_path):
    grid = [{"method": m, "budget": 5, "seed": s} for s in range(2) for m in ("supervised", "fixmatch")]
    results = [None, {"balanced_accuracy": 0.5, **REST}] * 2
    outcome = CurveOutcome.of(grid, results, target="class", baseline="supervised", failures={0: "a", 2: "b"})
    (point,) = outcome.points
    assert (point.method, point.gain) == ("fixmatch", None)
    assert [row["method"] for row in outcome.rows()] == ["fixmatch", "supervised"]
    assert outcome.rows()[1]["runs"] == "0 of 2 (seed 0 failed: a; seed 1 failed: b)"
    write_outcome(tmp_path, outcome)
    assert np.asarray(Image.open(tmp_path / "curve.png")).std() > 0


def test_a_curve_owns_its_folder_and_checks_its_jobs(labelled_folder, tmp_path):
    import threading

    refused = []

    def second():
        with pytest.raises(UsageError, match="is in use by") as error:
            curve(labelled_folder, out=tmp_path, quiet=True)
        refused.append(error.value)

    with owning(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert len(refused) == 1
    with pytest.raises(UsageError, match="jobs must be at least 1, not 0"):
        curve(labelled_folder, out=tmp_path, jobs=0)
