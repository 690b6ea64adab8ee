"""The claim of joint image-volume learning: its rule of decision, its readings, the quick version."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tacit.claims import joint_image_volume as joint
from tacit.claims.base import Setting
from tacit.claims.frozen_volumes import (
    OUTSIDE,
    Truth,
    labelled_draws,
    read_slices,
    size_scores,
    slice_score,
    truth_of,
)
from tacit.claims.hippocampus import open_hippocampus, write_hippocampus
from tacit.data.volume.volumes import volumes_of
from tacit.encoders.zoo import build_encoder
from tacit.errors import UsageError

FULL = joint._FULL
SIMPLE = [{"sides": {"few": 0.1, "all": 0.2}, "boxes": {"few": 0.0, "all": 0.3}}] * 3


def judge(joint_few=0.2, joint_slices=0.7, wiggle=0.001, clustering="swav"):
    """The outcome where `joint` of one clustering has these scores, and everything else 0.2 and 0.7."""
    grid = [{"clustering": c, "arm": a, "seed": s, "data": "x"} for s in FULL.seeds for c, a in FULL.runs]
    results = []
    for p in grid:
        special = p["arm"] == "joint" and p["clustering"] == clustering
        noise = wiggle * (p["seed"] - 1) if p["arm"] == "joint" else 0
        results.append(
            {
                # only the reading of the arm may count: the other one is absurd
                "joined_few": (joint_few if special else 0.2) + noise if p["arm"] == "joint" else 9.0,
                "mean_few": 9.0 if p["arm"] == "joint" else 0.2,
                "joined_all": 0.5,
                "mean_all": 0.5,
                "slices": (joint_slices if special else 0.7) + noise,
                "effective_rank": 12.0,
                "losses": {"intra": 3.0, "inter": 1.5} if "joint" in p["arm"] else {},
            }
        )
    return joint._judge(FULL, grid, results, SIMPLE)


@pytest.mark.parametrize(
    ("scores", "verdicts"),
    [
        ({"joint_few": 0.3}, ["holds", "holds"]),
        ({"joint_few": 0.3, "joint_slices": 0.69}, ["holds", "holds"]),  # a point less: within the margin
        ({"joint_few": 0.3, "joint_slices": 0.6}, ["holds", "does not hold"]),
        ({"joint_few": 0.2}, ["does not hold", "holds"]),
        ({"joint_few": 0.1}, ["does not hold", "holds"]),
        ({"joint_few": 0.22, "wiggle": 0.02}, ["inconclusive", "inconclusive"]),
    ],
)
def test_verdicts_follow_the_fixed_rule(scores, verdicts):
    outcome = judge(**scores)
    assert [part.verdict for part in outcome.parts][:2] == verdicts


def test_the_effects_are_in_points_and_both_clusterings_must_hold():
    outcome = judge(joint_few=0.3)
    assert outcome.parts[0].effect.mean == pytest.approx(10)
    # Student's t with 2 degrees of freedom: 4.303 standard errors of -0.1, 0, 0.1
    assert outcome.parts[0].effect.low == pytest.approx(10 - 4.303 * 0.1 / 3**0.5, abs=1e-3)
    assert outcome.parts[1].effect.mean == pytest.approx(0)
    assert [part.verdict for part in outcome.parts] == ["holds", "holds", "does not hold", "holds"]
    assert outcome.verdict == "does not hold"
    other = judge(joint_few=0.3, clustering="deepcluster")
    assert [part.verdict for part in other.parts] == ["does not hold", "holds", "holds", "holds"]


def test_the_table_shows_every_arm_and_what_needs_no_encoder():
    (rows,) = judge().tables.values()
    assert len(rows) == len(FULL.runs) + 2
    assert [row["volumes are"] for row in rows[:3]] == ["Z", "mean of slices", "mean of slices"]
    assert rows[1]["sizes, 20 labels"] == "20.0 ± 0.0"
    assert rows[1]["the other reading, 20 labels"] == "900.0 ± 0.0"
    assert rows[-2]["sizes, all labels"] == "20.0 ± 0.0"
    assert "loss of volumes (a guess)" not in rows[1]
    assert rows[4]["loss of volumes (a guess)"] == "1.50 (2.08)"  # ln 8
    assert rows[-3]["loss of volumes (a guess)"] == "1.50 (2.30)"  # ln 10


def test_the_quick_version_never_opens_the_test_volumes():
    quick = joint._QUICK
    assert not set(FULL.test) & set(FULL.learn)
    assert set(quick.learn) | set(quick.test) <= set(FULL.learn)
    assert not set(quick.learn) & set(quick.test)
    assert len(FULL.test) == 60


def test_draws_are_the_same_for_all_arms_and_of_training_volumes_alone():
    train = np.arange(100, 140)
    draws = labelled_draws(train, 20, seed=1)
    assert [len(set(draw)) for draw in draws] == [20] * 10
    assert all(set(draw) <= set(train) for draw in draws)
    assert len({tuple(sorted(draw)) for draw in draws}) == 10
    assert (np.stack(draws) == np.stack(labelled_draws(train, 20, seed=1))).all()
    assert not (np.stack(draws) == np.stack(labelled_draws(train, 20, seed=2))).all()


def made_up(volumes=60, slices=6, width=5):
    """Truth that is a linear function of the features; the last slice of each volume lies outside."""
    draw = np.random.default_rng(0)
    features = draw.normal(size=(volumes, width)).astype(np.float32)
    millilitres = features @ draw.normal(size=(width, 2)) + 3
    shown = draw.integers(4, size=(volumes, slices))
    per_slice = np.eye(4, width, dtype=np.float32)[shown] + 0.01
    shown[:, -1] = OUTSIDE
    return features, per_slice, Truth(millilitres, shown)


def test_what_features_say_outright_is_read():
    features, slices, truth = made_up()
    splits = {"train": np.arange(40), "test": np.arange(40, 60)}
    draws = labelled_draws(splits["train"], 20, 0)
    found = size_scores(features, truth, splits, draws)
    assert found["all"] > 0.99
    assert found["few"] > 0.99
    assert slice_score(slices, truth, splits["test"], draws[:2]) == 1
    noise = np.random.default_rng(1).normal(size=slices.shape).astype(np.float32)
    assert slice_score(noise, truth, splits["test"], draws[:2]) < 0.5


def test_nothing_is_learned_from_test_volumes():
    features, slices, truth = made_up()
    splits = {"train": np.arange(40), "test": np.arange(40, 60)}
    draws = labelled_draws(splits["train"], 20, 0)
    lost = Truth(truth.millilitres.copy(), truth.shown.copy())
    lost.millilitres[40:] = lost.millilitres[40:][::-1]
    lost.shown[40:] = np.where(lost.shown[40:] == OUTSIDE, OUTSIDE, 3 - lost.shown[40:])
    assert size_scores(features, lost, splits, draws)["all"] < 0.5
    assert slice_score(slices, lost, splits["test"], draws[:1]) == 0


def test_a_feature_that_hardly_varies_among_few_volumes_is_not_blown_up():
    features, _, truth = made_up()
    splits = {"train": np.arange(40), "test": np.arange(40, 60)}
    draws = labelled_draws(splits["train"], 20, 0)
    rare = np.zeros((60, 1), np.float32)
    unlabelled = next(i for i in range(40) if i not in draws[0])
    rare[draws[0][0]], rare[50], rare[unlabelled] = 1e-4, 1.0, 1.0
    found = size_scores(np.hstack([features, rare]), truth, splits, draws[:1])
    assert found["few"] > 0.9


def data_folder():
    data = Path(os.environ.get("TACIT_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
    if not (data / "msd_hippocampus").is_dir():
        pytest.skip("the real data sets are not here: set TACIT_TEST_DATA")
    pytest.importorskip("nibabel")
    return data


def test_absent_data_are_named(tmp_path):
    with pytest.raises(UsageError, match="the claim 'x' needs the data set msd_hippocampus"):
        write_hippocampus(Setting(None, tmp_path, tmp_path, quick=True), "x", range(1), range(1))


def test_the_truth_is_that_of_the_masks_and_readings_are_the_encoders(tmp_path):
    folder = write_hippocampus(
        Setting(None, tmp_path, data_folder(), quick=True), "joint-image-volume", range(3), range(3, 4)
    )
    volumes = volumes_of(open_hippocampus(folder)).with_patch((40, 64, 48))
    assert {name: len(part) for name, part in volumes.splits.items()} == {"train": 3, "test": 1}
    truth = truth_of(volumes)
    for i in range(4):
        mask = volumes.volume(i).read_mask((0, 0, 0), volumes.volume(i).shape).numpy()
        assert truth.millilitres[i] == pytest.approx([(mask == k).sum() / 1000 for k in (1, 2)])
        assert (truth.shown[i] != OUTSIDE).sum() == mask.shape[2]
        both = ((mask == 1).any((0, 1)) & (mask == 2).any((0, 1))).sum()
        assert (truth.shown[i] == 3).sum() == both > 0
        first = (48 - mask.shape[2] + 1) // 2  # the first level that is not padding
        assert truth.shown[i][first - 1] == OUTSIDE != truth.shown[i][first]
    encoder = build_encoder(joint._ENCODER, channels=1, patch=volumes.patch)
    readings = read_slices(encoder.train(), volumes)
    patches = volumes.batch([2]).data
    with torch.inference_mode():
        assert torch.from_numpy(readings.joined[2]) == pytest.approx(encoder.eval()(patches)[0], abs=1e-5)
        one = encoder.image(patches[..., 20])[0]
    assert readings.slices[2, 20] == pytest.approx((one / one.norm()).numpy(), abs=1e-5)
    assert readings.mean[2] == pytest.approx(readings.slices[2].mean(0), abs=1e-6)


def test_the_quick_version_runs(tmp_path, monkeypatch):
    """On fewer volumes, one seed standing for both, and one clustering for the other."""
    plan = replace(
        joint._QUICK,
        epochs=3,
        learn=range(20),
        test=range(40, 44),
        runs=(("none", "untrained"), ("swav", "slices alone"), ("swav", "joint")),
    )
    monkeypatch.setattr(joint, "_QUICK", plan)
    monkeypatch.setattr(joint, "_SLICE_DRAWS", 1)
    seen = []

    def cells(cell, grid):
        first = [cell(p) for p in grid if p["seed"] == 0]
        seen.append(first)
        return first * 2  # the grid goes through all arms for one seed, then for the next

    outcome = joint._experiment(Setting(cells, tmp_path, data_folder(), quick=True))
    assert len(outcome.parts) == 2
    runs, (simple,) = seen
    assert [sorted(r["losses"]) for r in runs] == [[], ["intra"], ["inter", "intra", "mask"]]
    assert all(0.25 <= r["slices"] <= 1 for r in runs)
    assert len({r["joined_few"] for r in runs}) == 3  # no arm is another's encoder
    assert simple["sides"] != simple["boxes"]
