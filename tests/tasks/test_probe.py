"""Which samples a probe uses for what, and what it compares."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tacit.data.image.store import Images
from tacit.data.source import Source, Spec
from tacit.encoders.card import card_of
from tacit.encoders.zoo import build_encoder
from tacit.errors import UsageError
from tacit.rng import Rng
from tacit.tasks import probe as module
from tacit.tasks.online import OnlineProbe
from tacit.tasks.probe import probe, probe_split


def source(labels, **splits):
    count = len(labels)
    made = Source(Spec("image", (1, 8, 8), ("a", "b")), [str(i) for i in range(count)], np.array(labels))
    made.splits = {name: np.array(index) for name, index in splits.items()}
    return made


LABELS = [0, 1] * 50


def test_no_split_of_its_own_is_60_20_20_stratified_and_disjoint():
    parts, how = probe_split(source(LABELS), seed=3)
    assert {name: len(index) for name, index in parts.items()} == {"train": 60, "validation": 20, "test": 20}
    assert sorted(np.concatenate(list(parts.values()))) == list(range(100))
    assert all(np.mean(np.array(LABELS)[index]) == 0.5 for index in parts.values())
    assert "seed 3" in how
    again, other = probe_split(source(LABELS), seed=3)[0], probe_split(source(LABELS), seed=4)[0]
    assert np.array_equal(parts["test"], again["test"])
    assert not np.array_equal(parts["test"], other["test"])


def test_the_datas_own_split_is_used_as_it_is():
    own = {"train": range(60), "val": range(60, 80), "test": range(80, 100)}
    parts, how = probe_split(source(LABELS, **own), seed=0)
    assert [list(parts[name]) for name in ("train", "validation", "test")] == [
        list(index) for index in own.values()
    ]
    assert how == "the data's own"


def test_validation_comes_out_of_train_and_never_out_of_test():
    parts, _ = probe_split(source(LABELS, train=range(80), test=range(80, 100)), seed=0)
    assert list(parts["test"]) == list(range(80, 100))
    assert sorted([*parts["train"], *parts["validation"]]) == list(range(80))
    assert len(parts["validation"]) == 16


@pytest.mark.parametrize("splits", [{"val": range(50), "test": range(50, 100)}, {"test": range(100)}])
def test_data_without_a_training_part_are_split_anew(splits):
    assert len(probe_split(source(LABELS, **splits), seed=0)[0]["train"]) == 60


def test_unlabelled_samples_are_in_no_part():
    labels = [-1, 0, 1, -1] * 25
    parts, _ = probe_split(source(labels), seed=0)
    assert (np.array(labels)[np.concatenate(list(parts.values()))] >= 0).all()


def grouped(groups, labels, **splits):
    made = source(labels, **splits)
    made.groups = np.array(groups)
    return made


def test_no_group_is_in_two_parts():
    groups = np.repeat(np.arange(20), 5)
    made = grouped(groups, np.repeat([0, 1] * 10, 5))
    for seed in range(5):
        parts, how = probe_split(made, seed)
        owners = [set(groups[index]) for index in parts.values()]
        assert sorted(map(len, owners)) == [4, 4, 12]
        assert len(set.union(*owners)) == 20
        assert all(set(made.labels[index]) == {0, 1} for index in parts.values())
        assert "whole groups" in how


def test_validation_comes_out_of_train_by_groups():
    groups = np.repeat(np.arange(20), 5)
    made = grouped(groups, np.repeat([0, 1] * 10, 5), train=range(80), test=range(80, 100))
    parts, how = probe_split(made, 0)
    assert not set(groups[parts["train"]]) & set(groups[parts["validation"]])
    assert "whole groups" in how


def test_too_few_groups_are_refused():
    with pytest.raises(UsageError, match=r"the 2 groups of the data leave .* label more groups"):
        probe_split(grouped([0] * 10 + [1] * 10, [0, 1] * 10), 0)


def test_the_online_probe_keeps_groups_apart():
    groups = np.repeat(np.arange(10), 10)
    made = grouped(groups, [0, 1] * 50)
    online = OnlineProbe(made, np.arange(100), Rng.of(0))
    assert not set(groups[online.bank]) & set(groups[online.queries])
    assert len(online.queries) == 20


def test_what_a_picture_of_a_group_gives_away_is_of_no_use():
    """Pictures of a group look alike, classes are a coin per group: split by pictures, a probe gets all."""
    draw = np.random.default_rng(0)
    looks, coin = draw.integers(0, 256, (40, 8, 8)), np.arange(40) % 2
    pixels = np.repeat(looks, 10, 0) + draw.integers(-5, 6, (400, 8, 8))
    groups = np.repeat(np.arange(40), 10)
    made = Images(
        pixels.clip(0, 255).astype(np.uint8)[:, None], np.full((400, 2), 8), [str(i) for i in range(400)]
    )
    made.labels = np.repeat(coin, 10)
    made.spec = replace(made.spec, classes=("sick", "well"))
    leaking = probe("random:tacit/convnet", made, quiet=True, device="cpu")["raw pixels"].linear
    made.groups = groups
    report = probe("random:tacit/convnet", made, quiet=True, device="cpu")
    honest = report["raw pixels"].linear
    assert leaking.accuracy == 1.0
    assert honest.accuracy < 0.8
    assert honest.high - honest.low > 0.2  # of 8 groups, not of 80 pictures
    assert report.protocol["groups"] == {"train": 24, "validation": 8, "test": 8}
    assert "80 test samples of 8 groups" in str(report)


@pytest.mark.parametrize(
    ("labels", "message"),
    [([-1] * 9, "no labels"), ([0] * 9, "one class only"), ([0] * 9 + [1] * 2, "class 'b' has 2")],
)
def test_too_few_labels(labels, message):
    with pytest.raises(UsageError, match=message):
        probe_split(source(labels), seed=0)


def test_the_online_probe_watches_validation_and_never_test():
    made = source([0, 1] * 50, train=range(60), val=range(60, 80), test=range(80, 100))
    online = OnlineProbe(made, made.splits["train"], Rng.of(0))
    assert list(online.bank) == list(range(60))
    assert list(online.queries) == list(range(60, 80))
    assert set(online.health) <= set(range(60))
    made.splits.pop("val")
    online = OnlineProbe(made, made.splits["train"], Rng.of(0))
    assert sorted([*online.bank, *online.queries]) == list(range(60))


def test_the_online_probe_keeps_the_encoders_mode():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 1, 16, 16), dtype=np.uint8)
    made = Images(pixels, np.full((40, 2), 16), [str(i) for i in range(40)])
    made.labels = np.array([0, 1] * 20)
    encoder = build_encoder("tacit/convnet", channels=1, size=16).train()
    before = encoder.layers[1].running_mean.clone()
    values = OnlineProbe(made, np.arange(40), Rng.of(0)).measure(encoder, torch.device("cpu"))
    assert encoder.training
    assert torch.equal(encoder.layers[1].running_mean, before)
    assert values.keys() == {"effective_rank", "feature_std", "knn"}


def test_the_twin_sees_what_the_learned_encoder_sees(labelled_folder, tmp_path, monkeypatch):
    import timm
    from safetensors.torch import save_file

    save_file(timm.create_model("resnet10t").state_dict(), tmp_path / "w.safetensors")
    cards = []
    real = module.encoder_features
    monkeypatch.setattr(
        module,
        "encoder_features",
        lambda encoder, device: cards.append(card_of(encoder)) or real(encoder, device),
    )
    spec = f"timm/resnet10t?weights={tmp_path / 'w.safetensors'}"
    report = probe(spec, labelled_folder, device="cpu")
    assert [result.representation for result in report.results] == ["learned", "random twin", "raw pixels"]
    learned, twin = cards
    assert learned.form == twin.form
    assert report["learned"].linear.accuracy >= 0.5
