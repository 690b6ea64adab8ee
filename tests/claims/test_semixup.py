"""The claim of Semixup: its rule of decision, its data, one of its cells."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tacit.claims import semixup
from tacit.claims.base import Setting
from tacit.errors import UsageError
from tacit.evaluation.statistics import Interval

PLAN = replace(semixup._FULL, sets=(("digits", 2, "tacit/convnet", 8),))


def judge(**scores):
    """The outcome where each arm has these balanced accuracies, one per draw; 0.5 for all others."""
    grid = [
        {"set": "digits", "arm": arm, "seed": seed, "data": "x"} for seed in PLAN.seeds for arm in PLAN.arms
    ]
    wiggle = dict(zip(PLAN.seeds, (0.001, -0.001, 0, 0.002, -0.002), strict=True))
    results = [
        {"balanced_accuracy": scores.get(p["arm"].replace(" ", "_"), 0.5) + wiggle[p["seed"]] * (i % 3)}
        for i, p in enumerate(grid)
    ]
    return semixup._judge(PLAN, grid, results)


@pytest.mark.parametrize(
    ("scores", "verdicts"),
    [
        ({"semixup": 0.6, "supervised,_6_times_the_labels": 0.6}, ["holds", "holds"]),
        ({"semixup": 0.6, "supervised,_6_times_the_labels": 0.9}, ["does not hold", "holds"]),
        ({"semixup": 0.4}, ["does not hold", "does not hold"]),
        ({"semixup": 0.7}, ["holds", "holds"]),
    ],
)
def test_verdicts_follow_the_fixed_rule(scores, verdicts):
    outcome = judge(**scores)
    assert [part.verdict for part in outcome.parts] == verdicts
    assert outcome.verdict == ("does not hold" if "does not hold" in verdicts else "holds")
    rows = next(iter(outcome.tables.values()))
    assert [row["arm"] for row in rows] == list(PLAN.arms)
    assert "gain over supervised [95 %]" not in rows[0]


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(-1.9, 5, "holds"), (-2.1, 5, "inconclusive"), (-9, -2.1, "does not hold"), (-9, -1.9, "inconclusive")],
)
def test_as_good_is_a_margin_of_two_points(low, high, verdict):
    assert semixup._as_good(Interval((low + high) / 2, low, high, 0.95, "t", 5)) == verdict


def test_a_cell_grades_the_test_part(tmp_path, monkeypatch):
    monkeypatch.undo()
    where = semixup._data(Setting(None, tmp_path, None, quick=True), "digits")
    source = semixup._open(where)
    assert {name: len(part) for name, part in source.splits.items()} == {"train": 1198, "test": 599}
    shared = {"data": str(where), "set": "digits", "encoder": "tacit/convnet?width=8", "size": 8}
    found = semixup._grades({**shared, "arm": "supervised", "labels": 6, "steps": 120, "seed": 0})
    assert found["labels"] == 60
    assert found["n"] == 599
    assert found["balanced_accuracy"] > 0.3


def test_the_sets_are_what_the_design_says(tmp_path):
    data = Path(os.environ.get("TACIT_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
    if not (data / "elpv_solar").is_dir():
        pytest.skip("the real data sets are not here: set TACIT_TEST_DATA")
    solar = semixup._solar(data)
    assert solar["train_images"].shape[1:] == (64, 64)
    assert len(solar["train_labels"]) + len(solar["test_labels"]) == 2624
    shares = np.bincount(solar["test_labels"]) / np.array([1508, 295, 106, 715])
    assert shares == pytest.approx([0.25] * 4, abs=0.06)
    assert np.bincount(solar["train_labels"]).min() >= 60  # six times ten labels of the rarest grade
    cifar = semixup._cifar(data)
    assert np.bincount(cifar["train_labels"]).tolist() == [500] * 10
    with pytest.raises(UsageError, match="needs the data set elpv_solar"):
        semixup._solar(tmp_path)
