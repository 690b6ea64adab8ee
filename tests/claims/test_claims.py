"""Claims: cells survive kills, selection sees validation data only, verdicts follow the fixed rule."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tacit.claims import dcl, run
from tacit.claims.base import Setting, combined, verdict_on
from tacit.claims.cells import Cells
from tacit.claims.run import CLAIMS, as_table, claim, load_claim
from tacit.cli.main import main
from tacit.errors import Interrupted, TacitError, UsageError
from tacit.evaluation.statistics import Interval


def noted(parameters):
    """A cell that leaves a trace of each time it really ran."""
    Path(parameters["trace"], f"{parameters['x']}-{time.time_ns()}").touch()
    if parameters["x"] == parameters.get("bad"):
        raise ValueError("x is bad\nand more")
    return {"square": parameters["x"] ** 2}


def grid(folder: Path, count: int, **more):
    (folder / "trace").mkdir(exist_ok=True)
    return [{"x": x, "trace": str(folder / "trace"), **more} for x in range(count)]


def cells(folder: Path, identity="1", jobs=1):
    said = []
    return Cells(folder / "cells", identity, jobs=jobs, say=said.append), said


def test_results_come_in_order_and_are_made_once(tmp_path):
    first, said = cells(tmp_path)
    assert [r["square"] for r in first.run(noted, grid(tmp_path, 4))] == [0, 1, 4, 9]
    assert len(said) == 4
    assert "x=" in said[0]
    assert "trace" not in said[0]
    again, said = cells(tmp_path)
    assert [r["square"] for r in again.run(noted, grid(tmp_path, 5))] == [0, 1, 4, 9, 16]
    assert len(said) == 1
    assert len(list((tmp_path / "trace").iterdir())) == 5
    assert again.seconds > 0


def test_another_version_or_parameter_is_another_cell(tmp_path):
    cells(tmp_path)[0].run(noted, grid(tmp_path, 1))
    cells(tmp_path, identity="2")[0].run(noted, grid(tmp_path, 1))
    cells(tmp_path)[0].run(noted, grid(tmp_path, 1, more=1))
    assert len(list((tmp_path / "trace").iterdir())) == 3


def test_a_damaged_cell_is_made_again(tmp_path):
    cells(tmp_path)[0].run(noted, grid(tmp_path, 1))
    next((tmp_path / "cells").iterdir()).write_text('{"seconds": 1')
    assert cells(tmp_path)[0].run(noted, grid(tmp_path, 1)) == [{"square": 0}]


def test_a_result_from_elsewhere_is_kept_and_not_measured_again(tmp_path):
    runner, said = cells(tmp_path)
    first, second = grid(tmp_path, 2)
    assert runner.kept(noted, first) is None
    runner.keep(noted, first, {"square": 7})
    assert runner.kept(noted, first) == {"square": 7}
    assert runner.run(noted, [first, second]) == [{"square": 7}, {"square": 1}]
    assert len(said) == 1


def test_a_failed_cell_keeps_the_others(tmp_path):
    runner, _ = cells(tmp_path)
    with pytest.raises(
        TacitError, match=r"1 of 3 cells failed, the first: x=1: x is bad; the others are kept"
    ):
        runner.run(noted, grid(tmp_path, 3, bad=1))
    assert len(list((tmp_path / "cells").iterdir())) == 2


def stopping(parameters):
    if parameters["x"] == 1:
        error = Interrupted("stopped; go on with: tacit fit --resume --out somewhere")
        error.exit_code = 143
        raise error
    return noted(parameters)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_cell_that_is_asked_to_stop_ends_the_experiment(tmp_path, jobs):
    runner, _ = cells(tmp_path, jobs=jobs)
    with pytest.raises(Interrupted, match="the same command goes on with the rest") as stopped:
        runner.run(stopping, grid(tmp_path, 40))
    assert stopped.value.exit_code == 143
    if jobs == 1:  # others may be done by then
        assert len(list((tmp_path / "cells").iterdir())) == 1


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.1, 9, "holds"),
        (0.1, 0.5, "holds"),
        (0.0, 2, "inconclusive"),
        (-3, 1.0, "inconclusive"),
        (-3, 0.9, "does not hold"),
    ],
)
def test_the_rule(low, high, verdict):
    assert verdict_on(Interval((low + high) / 2, low, high, 0.95, "t", 5), relevant=1.0) == verdict


def test_all_parts_must_hold():
    assert combined(["holds", "holds"]) == "holds"
    assert combined(["holds", "inconclusive"]) == "inconclusive"
    assert combined(["inconclusive", "does not hold"]) == "does not hold"


def made_up(parameters, gain):
    noise = np.random.default_rng(parameters["seed"]).normal(0, 0.1)
    return {"linear": 50 + noise + gain(parameters), "knn": 40.0, "q": 0.5}


def judged(tmp_path, gain, seen=None):
    """The experiment of `dcl` with a made-up world instead of training."""

    def answer(cell, grid):
        if seen is not None:
            seen.append((cell.__name__, list(grid)))
        if cell is dcl._baseline:
            return [{k: {"linear": 10.0, "knn": 10.0} for k in ("random", "pixels")} for _ in grid]
        return [made_up(p, gain) for p in grid]

    setting = Setting(answer, tmp_path, None, quick=False)
    return dcl._experiment(setting)


@pytest.fixture(autouse=True)
def _no_images(monkeypatch):
    monkeypatch.setattr(dcl, "_data", lambda setting, plan: Path("none.npz"))


def test_a_gain_at_small_batches_that_shrinks_holds(tmp_path):
    jitter = {1: 0.1, 2: -0.2, 3: 0.3, 4: 0.0, 5: 0.1}
    outcome = judged(
        tmp_path,
        lambda p: (3 + jitter.get(p["seed"], 0)) * (p["loss"] == "DCL") * (p["batch"] < 128),
    )
    assert outcome.verdict == "holds"
    assert outcome.parts[0].effect.mean == pytest.approx(3.06)
    assert outcome.parts[1].effect.mean == pytest.approx(3.06)


def test_the_same_gain_at_every_batch_does_not_shrink(tmp_path):
    outcome = judged(tmp_path, lambda p: 3 * (p["loss"] == "DCL") + 0.1 * (p["loss"] == "DCL") * p["seed"])
    assert [part.verdict for part in outcome.parts] == ["holds", "does not hold"]
    assert outcome.verdict == "does not hold"


def test_a_loss_is_not_a_gain(tmp_path):
    assert judged(tmp_path, lambda p: -2.0 * (p["loss"] == "DCL")).verdict == "does not hold"


def test_rates_are_chosen_per_arm_on_validation_and_used_for_the_test(tmp_path):
    best = {"InfoNCE": 1e-3, "DCL": 3e-4, "DCLW": 3e-3}
    seen = []
    outcome = judged(tmp_path, lambda p: 5.0 * (p["lr"] == best[p["loss"]]), seen)
    (first, sweep), (second, final), (third, _) = seen
    assert (first, second, third) == ("_validate", "_test", "_baseline")
    assert {p["seed"] for p in sweep} == {0}
    assert {p["seed"] for p in final} == {1, 2, 3, 4, 5}
    assert len(sweep) == 27
    assert len(final) == 45
    assert all(p["lr"] == best[p["loss"]] for p in final)
    assert outcome.details["learning_rates"][0] == {"loss": "InfoNCE", "batch": 16, "lr": 1e-3}


def test_the_sweep_never_opens_the_test_part(monkeypatch):
    rows = {"train": np.arange(0, 50), "val": np.arange(50, 60), "test": np.arange(60, 70)}

    class Fake:
        splits = rows
        labels = np.arange(70) % 5

    used = {}
    monkeypatch.setattr(dcl, "_learn", lambda *a: type("R", (), {"encoder": lambda self: None})())
    monkeypatch.setattr(dcl, "_open", lambda p: Fake())
    monkeypatch.setattr(dcl, "encoder_features", lambda *a: None)
    monkeypatch.setattr(dcl, "_scores", lambda named, source, split: used.update(split) or {"learned": {}})
    dcl._validate({})
    assert set(used["test"]) == set(rows["val"])
    assert set(used["train"]) | set(used["validation"]) == set(rows["train"])
    assert not set(used["train"]) & set(used["validation"])
    assert np.bincount(Fake.labels[used["validation"]]).tolist() == [2, 2, 2, 2, 2]


def test_q_is_the_mean_over_the_last_hundred_steps():
    class Rows:
        def metrics(self):
            return [
                {"step": "40", "npc": "9"},  # before the last hundred
                {"step": "120", "npc": "0.8"},  # steps 51 to 120 of them count: 70
                {"step": "150", "npc": "0.3"},  # 30
            ]

    assert dcl._last_q(Rows()) == pytest.approx(0.7 * 0.8 + 0.3 * 0.3)


def test_markdown_table():
    assert as_table([{"a": "1"}, {"a": "2", "b": "3"}]) == "| a | b |\n| --- | --- |\n| 1 |  |\n| 2 | 3 |"


def test_every_claim_can_be_loaded():
    for name in CLAIMS:
        assert load_claim(name).name == name


def test_mistakes(tmp_path, monkeypatch):
    monkeypatch.delenv("TACIT_TEST_DATA", raising=False)
    with pytest.raises(UsageError, match="did you mean 'dcl'"):
        claim("dlc", out=str(tmp_path))
    with pytest.raises(UsageError, match="jobs must be at least 1, not 0"):
        claim("dcl", jobs=0, out=str(tmp_path))


def test_absent_data_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.undo()
    monkeypatch.delenv("TACIT_TEST_DATA", raising=False)
    assert main(["claim", "dcl", "--out", str(tmp_path)]) == 2
    assert "needs the data set cifar10_jpeg" in capsys.readouterr().err


def test_the_list_names_every_claim(capsys):
    assert main(["claim"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in CLAIMS)


def test_the_cells_on_real_digits(tmp_path, monkeypatch):
    monkeypatch.undo()
    plan = replace(dcl._QUICK, train=200, validation=100, test=100)
    where = dcl._data(Setting(None, tmp_path, None, quick=True), plan)
    shared = {"data": str(where), "epochs": 2, "loss": "DCLW", "batch": 64, "lr": 1e-3, "seed": 1}
    assert 20 < dcl._validate(shared)["linear"] <= 100
    tested = dcl._test(shared)
    assert 20 < tested["linear"] <= 100
    assert 0 < tested["q"] < 1
    baseline = dcl._baseline(shared)
    assert baseline["pixels"]["knn"] > 80  # digits are easy
    assert baseline["random"] != baseline["pixels"]


def test_killed_and_continued(tmp_path):
    """SIGKILL in the middle, then on: what was made is not made again."""
    (tmp_path / "slow.py").write_text(
        "import sys, time; from pathlib import Path; from tacit.claims.cells import Cells\n"
        "def cell(p): time.sleep(0.1); return {'x': p['x']}\n"
        "cells = Cells(Path(sys.argv[1]), '1', jobs=1, say=lambda line: None)\n"
        "print(sum(r['x'] for r in cells.run(cell, [{'x': x} for x in range(20)])))\n"
    )
    command = [sys.executable, str(tmp_path / "slow.py"), str(tmp_path / "cells")]
    kept = tmp_path / "cells"
    process = subprocess.Popen(command, start_new_session=True)
    while len(list(kept.glob("[!.]*"))) < 3 and process.poll() is None:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = {path: path.stat().st_mtime_ns for path in kept.glob("[!.]*")}
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 3 <= len(before) < 20
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in before.items())
    assert done.stdout == "190\n"


def test_files_of_an_outcome(tmp_path):
    outcome = judged(tmp_path, lambda p: 0.1 * p["seed"] * (p["loss"] == "DCL"))
    runner, _ = cells(tmp_path)
    outcome.details["unknown"] = [float("nan"), 1.0]
    run._write(tmp_path, dcl.CLAIM, outcome, False, runner)
    found = json.loads((tmp_path / "dcl.json").read_text(), parse_constant=pytest.fail)
    assert found["details"]["unknown"] == [None, 1.0]
    assert found["verdict"] == outcome.verdict == "does not hold"
    assert len(found["details"]["runs"]) == 45
    page = (tmp_path / "dcl.md").read_text()
    assert "**Verdict: does not hold.** DCL gains +0.30" in page
    run._write(tmp_path, dcl.CLAIM, outcome, True, runner)
    quick = (tmp_path / "dcl.md").read_text()
    assert "A quick run, which decides nothing" in quick
    assert "Verdict" not in quick
