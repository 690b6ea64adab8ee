"""The claims on volumes: their rules of decision, their data, and what Alice's first check counts."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from tacit.claims import alice, tracoco
from tacit.claims.base import Setting
from tacit.claims.hippocampus import open_hippocampus, write_hippocampus
from tacit.errors import UsageError

DATA = Path(os.environ.get("TACIT_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
WIGGLE = np.array([0.001, -0.001, 0.0])


def tracoco_outcome(**dice):
    plan = tracoco._FULL
    grid = [{"arm": arm, "seed": seed, "data": "x"} for seed in plan.seeds for arm in plan.arms]
    results = [
        {"dice": dice.get(p["arm"], 0.5) + WIGGLE[p["seed"] % 3] * (i % 3), "hd95": 2.0, "not_found": 1}
        for i, p in enumerate(grid)
    ]
    return tracoco._judge(plan, grid, results)


@pytest.mark.parametrize(
    ("dice", "verdict", "parts"),
    [
        ({"tracoco": 0.6}, "holds", ["holds", "holds", "holds"]),
        ({"tracoco": 0.6, "cbc": 0.6}, "does not hold", ["holds", "holds", "does not hold"]),
        ({"tracoco": 0.6, "cps": 0.7}, "does not hold", ["holds", "does not hold", "holds"]),
        ({"tracoco": 0.4}, "does not hold", ["does not hold"] * 3),
    ],
)
def test_the_verdict_on_tracoco_follows_the_fixed_rule(dice, verdict, parts):
    outcome = tracoco_outcome(**dice)
    assert [part.verdict for part in outcome.parts] == parts
    assert outcome.verdict == verdict
    (rows,) = outcome.tables.values()
    assert [row["arm"] for row in rows] == list(tracoco._ARMS)
    assert rows[0]["classes not found"] == "3"
    assert "gain over supervised [95 %]" not in rows[0]


def alice_outcome(mined, chance, **dice):
    plan = alice._FULL
    shares = [
        {"mined": mined + w, "random": chance, "relative": 0.5, "above the threshold": 0.6, "kept": 0.5}
        for w in WIGGLE
    ]
    grid = [{"arm": arm, "seed": seed, "data": "x"} for seed in plan.seeds for arm in plan.arms]
    results = [
        {"dice": dice.get(p["arm"].split()[0], 0.5) + WIGGLE[p["seed"] % 3] * (i % 3)}
        for i, p in enumerate(grid)
    ]
    return alice._judge(plan, shares, grid, results)


@pytest.mark.parametrize(
    ("shares", "dice", "parts"),
    [
        ((0.4, 0.1), {"alice": 0.6}, ["holds", "holds", "holds"]),
        ((0.2, 0.1), {"alice": 0.6}, ["does not hold", "holds", "holds"]),
        ((0.4, 0.1), {"alice": 0.6, "pairs": 0.6}, ["holds", "holds", "does not hold"]),
        ((0.4, 0.1), {"alice": 0.4}, ["holds", "does not hold", "does not hold"]),
    ],
)
def test_the_verdict_on_alice_follows_the_fixed_rule(shares, dice, parts):
    assert [part.verdict for part in alice_outcome(*shares, **dice).parts] == parts


class Known:
    """Volumes whose masks are known; a miner that finds every place where it is told."""

    threshold, spacing = 0.7, 0.0

    def __init__(self, masks, moved):
        self.masks, self.moved = masks, moved
        self.matcher = self

    def volume(self, i):
        return KnownVolume(self.masks[i])

    def maps_of(self, candidate):
        return None

    def match(self, mine, points, theirs):
        scores = torch.where(points[:, 0] < 6, 0.9, 0.1)
        return points + torch.tensor(self.moved), scores


class KnownVolume:
    """A mask of which every voxel is no air."""

    spacing = (1.0, 1.0, 1.0)

    def __init__(self, mask):
        self.mask, self.shape = torch.from_numpy(mask), mask.shape

    def read(self, start, size):
        return torch.ones(1, *size)

    def read_mask(self, start, size):
        return self.mask


@pytest.mark.parametrize("moved", [0.0, 3.0])
def test_a_place_is_right_where_the_other_mask_has_its_label(moved):
    mask = np.zeros((12, 8, 8), np.int64)
    mask[:6, :4, :4], mask[6:, :4, :4] = 1, 2
    other = np.roll(mask, 3, axis=0)
    known = Known([mask, other], (moved, 0.0, 0.0))
    found = {name: [] for name in ("mined", "above the threshold", "relative", "random")}
    alice._look_up(known, known, 0, 1, 40, np.random.default_rng(0), found)
    assert len(found["mined"]) == 80
    # moved by as much as the other mask is, all but the places that wrap around are right
    share = np.mean(found["mined"])
    assert share > 0.7 if moved else share < 0.6
    assert len(found["above the threshold"]) == 40
    assert np.mean(found["relative"]) < 0.6
    assert np.mean(found["random"]) < 0.3


def test_the_volumes_are_absent_in_one_line(tmp_path):
    for claim in (tracoco, alice):
        with pytest.raises(UsageError, match="needs the data set msd_hippocampus"):
            claim._experiment(Setting(None, tmp_path, None, True))


@pytest.mark.skipif(not (DATA / "msd_hippocampus").is_dir(), reason=f"no hippocampus volumes in {DATA}")
def test_the_volumes_keep_their_masks_and_splits(tmp_path):
    folder = write_hippocampus(Setting(None, tmp_path, DATA, True), "test", range(3), range(258, 260))
    source = open_hippocampus(folder)
    assert {name: len(part) for name, part in source.splits.items()} == {"train": 3, "test": 2}
    assert source.spec.classes == ("background", "1", "2")
    volume = source.volume(int(source.splits["train"][0]))
    assert volume.shape == (35, 51, 35)
    mask = volume.read_mask((0, 0, 0), volume.shape)
    assert sorted(mask.unique().tolist()) == [0, 1, 2]
