"""Mining pairs of places: where points lie, what crops show, and that others' same places are found."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from patients import FakeVolume, Patients

from tacit.encoders.anatomy import AnatomyMatcher
from tacit.methods.distillation.alice import anatomy_training as training
from tacit.methods.distillation.alice.boxes import crop, random_point
from tacit.methods.distillation.alice.mining import (
    AnatomyMiner,
    Candidate,
    RandomPairMiner,
    SameVolumeMiner,
    on_grid,
    to_grid,
    to_voxels,
)
from tacit.rng import Rng, seeded


def miner(steps: int = 0, **options) -> AnatomyMiner:
    with seeded(Rng.of(0)("matcher")):
        return AnatomyMiner(AnatomyMatcher(1, 16, 8).eval(), steps, **{"spacing": 0, "side": 24, **options})


@pytest.fixture(scope="module")
def source() -> Patients:
    return Patients(6)


@pytest.fixture(scope="module")
def taught(source) -> AnatomyMiner:
    found = miner(30)
    found.learn(source)
    return found


def candidates(source: Patients) -> list[Candidate]:
    return [Candidate(i, volume) for i, volume in enumerate(source.volumes)]


def test_points_are_in_the_body_and_before_the_far_end():
    volume = FakeVolume(torch.zeros(1, 50, 24, 60))
    volume.voxels[:, 30:, 10:, 20:] = 0.5
    points = np.array([random_point(volume, np.random.default_rng(k)) for k in range(200)])
    assert points.min(0).tolist() == [30, 10, 20]
    assert points.max(0).tolist() == [39, 17, 49]  # 10 voxels, a quarter of 24, 10 voxels


def test_a_little_body_is_found_and_air_is_given_up_on():
    volume = FakeVolume(torch.zeros(1, 30, 30, 30))
    volume.voxels[0, 11:13, 12, 13] = 0.1
    assert random_point(volume, np.random.default_rng(0)) in {(11, 12, 13), (12, 12, 13)}
    assert len(volume.reads) < 50
    volume.voxels.zero_()
    assert max(random_point(volume, np.random.default_rng(0))) < 23


def test_a_crop_shows_its_place_in_the_middle_and_nothing_outside():
    volume = FakeVolume(torch.rand(2, 20, 10, 30, generator=Rng.of(0).torch()) + 0.1)
    found = crop(volume, (1, 9, 15), (16, 16, 8))
    assert found.shape == (2, 16, 16, 8)
    assert torch.equal(found[:, 8, 8, 4], volume.voxels[:, 1, 9, 15])
    assert not found[:, :7].any()
    assert not found[:, :, 9:].any()
    assert found[:, 7:, :9].min() > 0
    moved = crop(volume, (1, 9, 15), (16, 16, 8), inside=True)
    assert torch.equal(moved[:, :, :10], volume.voxels[:, :16, :, 11:19]) or moved.amax((0, 2, 3)).min() > 0
    assert (moved > 0).sum() == 2 * 16 * 10 * 8  # all of the short axis, nothing lost on the others
    assert torch.equal(
        crop(volume, (10, 5, 15), (4, 4, 4), inside=True), crop(volume, (10, 5, 15), (4, 4, 4))
    )


@pytest.mark.parametrize("spacing", [0.0, 2.0])
def test_a_volume_matched_with_itself_gives_the_place_with_score_1(source, spacing):
    """On the volume's own voxels and resampled from 3 mm to 2 mm."""
    volume = FakeVolume(source.volumes[0].voxels, (3.0, 3.0, 2.0))
    me = Candidate(0, volume)
    for k in range(5):
        match = miner(spacing=spacing).mine(me, [me], np.random.default_rng(k))
        assert match.found == match.query
        assert match.score == pytest.approx(1.0, abs=1e-5)


def test_a_shifted_volume_gives_the_shifted_place(taught):
    whole = torch.zeros(1, 96, 96, 96)
    whole[:, 32:66, 32:66, 32:66] = crop(Patients(1, side=30).volumes[0], (17, 17, 17), (34, 34, 34))
    shifts = (0, 0, 0), (8, -8, 0)
    a, b = (Candidate(90 + i, FakeVolume(whole.roll(s, (1, 2, 3)))) for i, s in enumerate(shifts))
    for k in range(5):
        match = taught.mine(a, [b], np.random.default_rng(k))
        assert np.subtract(match.found, match.query).tolist() == [8, -8, 0]
        assert match.score == pytest.approx(1, abs=1e-3)


def test_grids_of_millimetres_and_back():
    volume = FakeVolume(torch.rand(1, 20, 10, 7), (1.0, 2.0, 5.0))
    assert on_grid(volume, 2.0).shape == (1, 10, 10, 18)  # 35 mm are 17.5 voxels
    points = torch.tensor([[0.0, 3.0, 6.0], [19, 9, 0]], dtype=torch.float64)
    grid = to_grid(points, volume, 2.0)
    torch.testing.assert_close(grid[:, :2], torch.tensor([[-0.25, 3.0], [9.25, 9.0]], dtype=torch.float64))
    torch.testing.assert_close(to_voxels(grid, volume, 2.0), points)
    assert torch.equal(on_grid(volume, 0.0), volume.voxels)


def distance(source: Patients, i: int, query, j: int, found) -> float:
    """How far a place is from where the same organ is in another patient."""
    true = np.array(query) - source.volumes[i].shift + source.volumes[j].shift
    return float(np.linalg.norm(true - np.array(found)))


def test_the_same_place_is_found_in_other_patients(source, taught):
    mined, drawn = [], []
    for k in range(30):
        rng = np.random.default_rng(k)
        i, j = (int(x) for x in rng.choice(6, 2, replace=False))
        query, memory = Candidate(i, source.volumes[i]), [Candidate(j, source.volumes[j])]
        for kind, far in ((taught, mined), (RandomPairMiner(), drawn)):
            match = kind.mine(query, memory, rng)
            assert match.key == 0
            assert -1 <= match.score <= 1
            far.append(distance(source, i, match.query, j, match.found))
    assert np.mean(drawn) > 8
    assert np.mean(mined) < 0.4 * np.mean(drawn)


def test_the_best_of_the_memory_is_taken(source, taught):
    others = candidates(source)[1:]
    match = taught.mine(candidates(source)[0], others, np.random.default_rng(0))
    alone = [taught.mine(candidates(source)[0], [o], np.random.default_rng(0)) for o in others]
    assert match.query == alone[0].query
    assert match.key == int(np.argmax([a.score for a in alone]))
    assert match.found == alone[match.key].found
    clone = Candidate(9, source.volumes[0])
    again = taught.mine(candidates(source)[0], [*others, clone], np.random.default_rng(0))
    assert (again.key, again.found) == (len(others), again.query)


def test_places_are_drawn_again_until_one_is_above_the_threshold(source, taught):
    query, memory = candidates(source)[0], candidates(source)[1:2]
    draws = np.random.default_rng(3)
    points = [random_point(query.volume, draws) for _ in range(101)]
    maps = taught.maps_of(query), taught.maps_of(memory[0])
    scores = taught.matcher.match(maps[0], torch.tensor(points, dtype=torch.float64), maps[1])[1].tolist()

    def mined(threshold: float):
        found = AnatomyMiner(taught.matcher, spacing=0, threshold=threshold)
        return found.mine(query, memory, np.random.default_rng(3))

    assert mined(-1).query == points[0]
    last = mined(1.1)
    assert last.query == points[100]
    assert last.score == pytest.approx(scores[100])
    bar = sorted(scores[:20])[-2]  # one of the first twenty passes
    first = next(i for i, s in enumerate(scores) if s > bar + 1e-6)
    assert mined(bar + 1e-6).query == points[first]


def test_remembered_maps_stay_within_their_room_and_change_nothing(source):
    plenty, little = miner(), miner(room=1)
    for k in range(4):
        query, *memory = candidates(source)
        assert plenty.mine(query, memory, np.random.default_rng(k)) == little.mine(
            query, memory, np.random.default_rng(k)
        )
    assert len(plenty._maps) == 6
    assert len(little._maps) == 1
    reads = len(source.volumes[5].reads)
    plenty.maps_of(candidates(source)[5])
    assert len(source.volumes[5].reads) == reads


def test_baselines_draw_within_one_volume_and_between_any_two(source):
    query, *memory = candidates(source)
    same = [SameVolumeMiner().mine(query, memory, np.random.default_rng(k)) for k in range(10)]
    assert {m.key for m in same} == {-1}
    assert all(m.query != m.found for m in same)
    pairs = [RandomPairMiner().mine(query, memory, np.random.default_rng(k)) for k in range(40)]
    assert {m.key for m in pairs} == set(range(5))


def test_learning_is_the_same_each_time_and_can_be_brought_back(source):
    first, second, other = miner(3), miner(3), miner(3, seed=1)
    for each in (first, second, other):
        state = torch.get_rng_state()
        each.learn(source)
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.weights, second.weights)
    assert not torch.equal(first.weights, other.weights)
    other.weights = first.weights
    query, *memory = candidates(source)
    assert first.mine(query, memory, np.random.default_rng(0)) == other.mine(
        query, memory, np.random.default_rng(0)
    )
    assert not any(p.requires_grad for p in first.matcher.parameters())
    assert not first.matcher.training


def test_views_show_the_places_that_they_say(source):
    """A volume whose voxels are their own coordinates, seen shifted and rescaled."""
    n = 60
    voxels = torch.stack(torch.meshgrid(*[torch.arange(n) / n] * 3, indexing="ij"))
    volume = FakeVolume(voxels, (1.0, 2.0, 2.0))
    scale, centre = 1.1, np.array([30.0, 28.0, 31.0])
    found = training.cube(volume, centre, scale * np.array([0.5, 1.0, 1.0]), 32)
    view = training.View(found, torch.tensor(centre / [0.5, 1, 1]).float(), scale)
    for stride in (2, 8):
        places = training.cell_places(view, stride)
        seen = torch.nn.functional.avg_pool3d(found, stride).flatten(2)[0].T * n
        torch.testing.assert_close(seen, places * torch.tensor([0.5, 1, 1]), atol=1e-3, rtol=0)
        cell, within = training.nearest_cell(view, places, stride)
        assert within.all()
        assert torch.equal(cell, torch.arange(len(places)))
        far = training.nearest_cell(view, places + torch.tensor([0.0, 40.0, 0.0]), stride)[1]
        assert not far.any()


@pytest.mark.parametrize("coarse", ["map", "global"])
def test_the_loss_falls(source, coarse):
    losses: list[float] = []
    original = training.matching_loss

    def watched(*args):
        loss = original(*args)
        losses.append(loss.item())
        return loss

    training.matching_loss = watched
    try:
        training.train_matcher(AnatomyMatcher(1, 8, 4, coarse=coarse), source, steps=20, spacing=0, side=16)
    finally:
        training.matching_loss = original
    assert np.mean(losses[-5:]) < np.mean(losses[:3]) - 0.3
