"""Alice: pairs of crops, their masks, the miner's state, and wrong use."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from patients import FakeVolume, Patients
from small_alice import LATER, PATCH, RNG, batch_of, make, rows_of
from torch import nn

from tacit.batch import Batch, Samples
from tacit.data.source import Sample, Source, Spec
from tacit.encoders.card import attach_card
from tacit.errors import UsageError
from tacit.methods.distillation.alice.alice import Alice
from tacit.rng import Rng


@pytest.fixture(scope="module")
def source() -> Patients:
    return Patients(5)


@pytest.fixture
def ready(source):
    def build(**options) -> tuple[Alice, Batch]:
        method = make(**options)
        method.prepare(source)
        method.begin(source, progress=False)
        return method, batch_of(method, source)

    return build


@pytest.mark.parametrize("miner", ["anatomy", "same", "random"])
def test_a_cut_is_two_crops_around_two_places(source, miner):
    method = make(miner=miner, miner_steps=1, memory=3)
    method.prepare(source)
    method.begin(source, progress=False)
    keys = set()
    for i in range(5):
        for step in range(4):
            cut = method.cut(source[i], Rng.of(0)("cut", step, i).numpy())
            again = method.cut(source[i], Rng.of(0)("cut", step, i).numpy())
            assert torch.equal(cut.data, again.data)
            assert torch.equal(cut.extra["key"], again.extra["key"])
            assert cut.data.shape == cut.extra["key"].shape == (1, *PATCH)
            key = int(cut.extra["key_index"])
            keys.add((key - i) % 5)
            for crop, at, volume in (
                (cut.data, cut.extra["query_centre"], source.volumes[i]),
                (cut.extra["key"], cut.extra["key_centre"], source.volumes[key]),
            ):
                assert crop[0, 8, 8, 8] == volume.voxels[(0, *at)]
                assert volume.voxels[(0, *at)] > 0 or crop is cut.extra["key"]
            assert cut.extra["score"].ndim == 0
            assert -1 <= cut.extra["score"] <= 1
    assert keys == ({0} if miner == "same" else {1, 2, 3, 4})


def test_the_memory_is_other_volumes_of_a_part_of_the_source(source):
    """Positions in a subset are not the samples' numbers."""
    part = source.subset(np.array([4, 2, 1]))
    method = make(memory=2)
    method.prepare(part)
    for i in range(3):
        found = {int(method.cut(part[i], Rng.of(k)("cut").numpy()).extra["key_index"]) for k in range(20)}
        assert found == {4, 2, 1} - {part[i].index}
    alone = make()
    alone.prepare(source.subset(np.array([3])))
    assert int(alone.cut(source[3], Rng.of(0).numpy()).extra["key_index"]) == 3


def test_volumes_smaller_than_the_patch_are_padded():
    method = make(inside=True)
    source = Patients(2)
    for volume in source.volumes:
        volume.voxels = torch.rand(1, 7, 9, 30) + 0.1
    method.prepare(source)
    cut = method.cut(source[0], Rng.of(0).numpy())
    assert cut.data.shape == (1, *PATCH)
    assert (cut.data > 0).sum() == 7 * 9 * 16


def test_masks_hide_twelve_of_sixteen_columns_of_each_crop_anew(ready):
    method, batch = ready()
    views = method.views(batch, RNG, LATER)
    assert torch.equal(views.clean, torch.cat([batch.unlabelled.data, batch.unlabelled.extra["key"]]))
    assert views.taught is views.clean
    assert views.hidden.shape == (6, 1, *PATCH)
    assert torch.equal(views.hidden, views.hidden[..., :1].expand_as(views.hidden))
    columns = views.hidden[:, 0, ::4, ::4, 0].flatten(1)
    assert columns.sum(1).tolist() == [12] * 6
    assert len({tuple(c) for c in columns.tolist()}) > 3
    assert not torch.equal(columns[:3], columns[3:])
    assert not views.masked[views.hidden.expand_as(views.masked)].any()
    seen = ~views.hidden.expand_as(views.masked)
    assert torch.equal(views.masked[seen], views.clean[seen])
    part = rows_of(batch, slice(1, 2))
    assert torch.equal(method.views(part, RNG, LATER).hidden, views.hidden[[1, 4]])
    assert not torch.equal(method.views(batch, Rng.of(0)("views", 1), LATER).hidden, views.hidden)
    cubes = make(mask_shape="cube").views(batch, RNG, LATER).hidden
    assert not torch.equal(cubes, cubes[..., :1].expand_as(cubes))


def test_augmented_views_are_turned_alike_and_noisy_each_for_itself(ready):
    method, batch = ready(augment="rotate_noise")
    views = method.views(batch, RNG, LATER)
    plain = torch.cat([batch.unlabelled.data, batch.unlabelled.extra["key"]])
    assert (views.clean - plain).abs().mean() > 0.01
    torch.testing.assert_close(views.clean.sum(), plain.sum(), rtol=0.2, atol=0)
    noise = views.taught - views.clean
    assert noise.std().item() == pytest.approx(0.1, rel=0.05)
    seen = ~views.hidden.expand_as(noise)
    other = (views.masked - views.clean)[seen]
    assert other.std().item() == pytest.approx(0.1, rel=0.05)
    assert abs(torch.corrcoef(torch.stack([noise[seen], other]))[0, 1]) < 0.05
    torch.testing.assert_close(method.views(batch, RNG, LATER).clean, views.clean)


def test_the_miner_goes_with_the_state_and_stays_off_the_device(source):
    method, other = (make(miner="anatomy", miner_steps=s) for s in (2, 0))
    for each in (method, other):
        each.prepare(source)
        each.begin(source, progress=False)
    assert not torch.equal(method.miner.weights, other.miner.weights)
    other.load_state_dict(method.state_dict())
    assert torch.equal(method.miner.weights, other.miner.weights)
    assert not [n for n, _ in method.named_parameters() if "miner" in n]
    method.double()
    assert {p.dtype for p in method.miner.matcher.parameters()} == {torch.float32}
    copy = pickle.loads(pickle.dumps(method))  # as for the loader's processes
    cut = [m.cut(source[0], Rng.of(0)("cut").numpy()).extra["key"] for m in (method, copy)]
    assert torch.equal(*cut)


def test_the_score_is_shown(ready):
    method, batch = ready(miner="anatomy", miner_steps=1)
    method.views(batch, RNG, LATER)
    assert method.notes["score"].item() == pytest.approx(batch.unlabelled.extra["score"].mean().item())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"miner": "anatomic"}, "unknown miner 'anatomic'; did you mean 'anatomy'"),
        ({"teacher_source": "x"}, "unknown teacher_source 'x'"),
        ({"memory": 0}, "memory of at least 1"),
        ({"momentum": 1.1}, r"momenta must lie in \[0, 1\]"),
        ({"teacher_temperature": 0}, "must be above 0"),
        ({"prototypes": 12}, "cannot be split into 8 heads"),
    ],
)
def test_wrong_options_are_one_line(options, said):
    with pytest.raises(UsageError, match=said) as error:
        make(**options)
    assert "\n" not in str(error.value)


def test_wrong_data_and_encoders_are_one_line(source):
    method = make()
    with pytest.raises(UsageError, match="call prepare"):
        method.cut(source[0], Rng.of(0).numpy())
    method.prepare(source)
    with pytest.raises(UsageError, match="sample 'photo' is not one"):
        method.cut(Sample(torch.zeros(1, 4, 4), 0, name="photo"), Rng.of(0).numpy())
    with pytest.raises(UsageError, match="no key crops"):
        method.views(Batch(Samples(torch.zeros(1, 1, *PATCH), torch.zeros(1, dtype=torch.int64))), RNG, LATER)
    flat = attach_card(nn.Flatten(), channels=1, patch=PATCH, num_features=4)
    with pytest.raises(UsageError, match="tacit/vnet"):
        Alice(flat)
    assert FakeVolume(torch.zeros(1, 2, 3, 4)).shape == (2, 3, 4)
    assert Source(Spec("volume", (1, *PATCH)), ["a"]).spec.modality == Alice.modality
