"""Label-efficiency curves: what they compare, what they keep, what they write."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

import tacit
from tacit.battle.curve import _open, curve
from tacit.battle.outcome import CurveOutcome
from tacit.cli.main import main
from tacit.errors import UsageError

FAST = {"encoder": "tacit/convnet?width=4", "steps": 3, "batch_size": 16, "jobs": 1, "quiet": True}


def shared(data, **options):
    names = ("labels", "masks", "values", "column", "groups", "patch", "cache")
    return {"data": str(data), **dict.fromkeys(names), **options}


def test_a_curve_keeps_its_runs_and_writes_all(labelled_folder, tmp_path, monkeypatch):
    options = {"methods": "pi-model", "budgets": "3,6", "seeds": 2, "out": tmp_path / "c", **FAST}
    outcome = curve(labelled_folder, **options)
    assert [(p.budget, p.method) for p in outcome.points] == [
        (3, "supervised"),
        (3, "pi-model"),
        (6, "supervised"),
        (6, "pi-model"),
    ]
    assert [p.labels for p in outcome.points] == [6, 6, 12, 12]
    assert len(list((tmp_path / "c" / "cells").glob("*.json"))) == 2 * 2 * 2
    rows = list(csv.DictReader((tmp_path / "c" / "curve.csv").open()))
    assert len(rows) == 8
    assert {row["method"] for row in rows} == {"supervised", "pi-model"}
    found = json.loads((tmp_path / "c" / "curve.json").read_text())
    assert len(found["points"]) == 4
    assert "| pi-model |" in (tmp_path / "c" / "curve.md").read_text()
    assert Image.open(tmp_path / "c" / "curve.png").size[0] > 400
    # one run was lost: only that one is made again, and the outcome is the same
    lost = next((tmp_path / "c" / "cells").glob("*.json"))
    lost.unlink()
    made = []
    import tacit.claims.cells as cells

    run_one = cells._run_one
    monkeypatch.setattr(cells, "_run_one", lambda *a: made.append(a) or run_one(*a))
    again = curve(labelled_folder, **options)
    assert len(made) == 1
    assert [p.values for p in again.points] == [p.values for p in outcome.points]


def test_gains_are_paired_by_draw():
    grid = [
        {"method": m, "budget": 5, "seed": s, "options": {}, "data": "x"}
        for s in range(3)
        for m in ("supervised", "fixmatch")
    ]
    scores = [0.5, 0.6, 0.7, 0.75, 0.4, 0.6]
    results = [
        {"balanced_accuracy": v, "kappa": v, "mae": 1 - v, "ece": 0.1, "labels": 10, "n": 50} for v in scores
    ]
    outcome = CurveOutcome.of(grid, results, target="class", baseline="supervised")
    base, fix = outcome.points
    assert base.gain is None
    assert base.values == pytest.approx((50, 70, 40))
    assert fix.gain.difference.mean == pytest.approx((10 + 5 + 20) / 3)
    assert fix.gain.wilcoxon == pytest.approx(1 / 8)  # all three gains are positive
    assert fix.others["kappa"] == pytest.approx(0.65)
    assert outcome.settings == {"data": "x"}


def test_the_test_part_is_a_quarter_and_keeps_groups_whole(labelled_folder):
    source = _open(shared(labelled_folder))
    assert np.bincount(source.labels[source.splits["test"]]).tolist() == [10, 10]
    assert len(source.splits["train"]) == 60
    grouped = _open(shared(labelled_folder, groups=r"re:(\w+/\d\d)\d"))  # tens of neighbouring files
    test, train = (grouped.groups[grouped.splits[part]] for part in ("test", "train"))
    assert not np.intersect1d(test, train).size
    assert len(test) == 20


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--methods", "dcl"], "dcl learns no labels"),
        (["--methods", "fixmtach"], "did you mean 'fixmatch'"),
        (["--methods", "tracoco"], "tracoco learns from volumes, and the data are images"),
        (["--budgets", "few"], "whole numbers separated by commas"),
        (["--budgets", "0"], "a budget is at least 1 (labels per class), not 0"),
        (["--seeds", "1"], "2 seeds at least"),
    ],
)
def test_mistakes_are_one_line(words, says, labelled_folder, capsys):
    assert main(["curve", "--data", str(labelled_folder), *words]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_data_without_labels_have_no_curve(jpgs, tmp_path):
    with pytest.raises(UsageError, match="the data have no labels"):
        tacit.curve(jpgs, out=tmp_path / "c", **FAST)


def test_a_method_below_a_floor_is_named_with_it():
    grid = [
        {"method": m, "budget": 5, "seed": s, "options": {}, "data": "x"}
        for s in range(2)
        for m in ("supervised", "fixmatch")
    ]
    common = {"quadratic_kappa": 0.0, "kappa": 0.0, "mae": 1.0, "ece": 0.1, "labels": 10}
    results = [{"balanced_accuracy": score, **common} for score in (0.5, 0.3, 0.5, 0.3)]
    floors = [
        ({"method": name, "budget": 5, "seed": s}, {"balanced_accuracy": score, **common})
        for s in range(2)
        for name, score in (("pixels", 0.4), ("most frequent class", 0.1))
    ]
    outcome = CurveOutcome.of(grid, results, target="class", baseline="supervised", floors=floors)
    assert [point.method for point in outcome.floors] == ["pixels", "most frequent class"]
    (line,) = outcome.warnings
    assert "fixmatch with 5 labels per class (30.0 %) is below 'pixels' (40.0 %)" in line
    assert str(outcome).endswith(line)
    assert "floor: pixels" in str(outcome)
