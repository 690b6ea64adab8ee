"""Values on frozen features, and on held-out labels while a method learns."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from torch import nn

import tacit
from tacit.data.image.store import Images
from tacit.data.open import open_source
from tacit.data.source import Source, Spec
from tacit.encoders.card import attach_card
from tacit.errors import UsageError
from tacit.rng import Rng
from tacit.tasks.base import Network
from tacit.tasks.held_out import network_outputs
from tacit.tasks.values.online import ValueProbe
from tacit.tasks.values.probe import PROBING, measure, probe_split
from tacit.tasks.values.regressor import ValueHead

CPU = torch.device("cpu")


class Numbers(Source):
    """Samples whose data are their features."""

    def __init__(self, features, values, groups=None, **splits):
        values = np.asarray(values, np.float64)
        count = len(values)
        super().__init__(
            Spec("image", (1, 8, 8), target="value"),
            [str(i) for i in range(count)],
            np.where(np.isnan(values), -1, 0),
            {name: np.array(index) for name, index in splits.items()},
        )
        self.values, self.groups = values, groups
        self.features = torch.as_tensor(np.asarray(features, np.float32))

    def batch(self, index):
        at = torch.as_tensor(np.asarray(index))
        return SimpleNamespace(data=self.features[at], to=lambda device: self.batch(index))


def plain(values, groups=None, **splits):
    return Numbers(np.zeros((len(values), 1)), values, groups, **splits)


def results(source, seed=0):
    split, _ = probe_split(source, seed)
    (found,) = measure([("features", lambda samples: samples.data)], source, split)
    return found, split


DRAW = np.random.default_rng(0)


def test_features_that_are_the_value_know_it_and_noise_does_not():
    values = DRAW.normal(40, 12, 200)
    found, _ = results(Numbers(values[:, None], values))
    assert found.r2.value == pytest.approx(1, abs=1e-6)
    assert found.pearson.value == pytest.approx(1, abs=1e-6)
    assert found.mae.value < 0.01
    found, _ = results(Numbers(DRAW.normal(size=(200, 20)), values))
    assert -0.3 < found.r2.value < 0.15
    assert found.penalty >= 0.1


def test_the_probe_is_ridge_regression_with_the_penalty_of_the_validation_part():
    features = DRAW.normal(size=(100, 8))
    values = features[:, 0] + 0.3 * DRAW.normal(size=100)
    found, split = results(Numbers(features, values))
    both = np.concatenate([split["train"], split["validation"]])
    x = features.astype(np.float32).astype(np.float64)
    x = (x - x[both].mean(0)) / x[both].std(0)
    plainly = Ridge(found.penalty * len(both)).fit(x[both], values[both])
    test = split["test"]
    assert found.r2.value == pytest.approx(r2_score(values[test], plainly.predict(x[test])), abs=1e-6)
    assert found.r2.low < found.r2.value < found.r2.high


def test_the_split_is_60_20_20_over_small_and_large_values():
    values = np.append(DRAW.exponential(size=100), np.full(20, np.nan))
    parts, how = probe_split(plain(values), seed=3)
    assert {name: len(index) for name, index in parts.items()} == {"train": 60, "validation": 20, "test": 20}
    assert sorted(np.concatenate(list(parts.values()))) == list(range(100))
    ranks = np.argsort(np.argsort(values[:100])) // 10
    assert (np.bincount(ranks[parts["test"]], minlength=10) == 2).all()
    assert "seed 3" in how
    again, other = probe_split(plain(values), seed=3)[0], probe_split(plain(values), seed=4)[0]
    assert np.array_equal(parts["test"], again["test"])
    assert not np.array_equal(parts["test"], other["test"])


@pytest.mark.parametrize("own", [{}, {"train": range(80), "test": range(80, 100)}])
def test_groups_stay_whole(own):
    groups = np.arange(100) // 4
    parts, how = probe_split(plain(DRAW.normal(size=100), groups, **own), seed=0)
    for a, b in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not set(groups[parts[a]]) & set(groups[parts[b]])
    assert "whole groups" in how


def test_the_datas_own_split_is_used_as_it_is():
    own = {"train": range(60), "val": range(60, 80), "test": range(80, 100)}
    parts, how = probe_split(plain(np.arange(100.0), **own), seed=0)
    assert [list(parts[n]) for n in ("train", "validation", "test")] == [list(i) for i in own.values()]
    assert how == "the data's own"
    own.pop("val")
    parts, _ = probe_split(plain(np.arange(100.0), **own), seed=0)
    assert sorted([*parts["train"], *parts["validation"]]) == list(range(60))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (plain(np.arange(9.0)), "have 9 value.s. to split, and a probe needs 10"),
        (plain(np.full(30, 2.0)), "all 18 values of the train part are 2"),
        (plain(np.arange(30.0), np.zeros(30, int)), "needs 2: label more groups"),
        (plain(np.arange(9.0), train=range(6), val=[6, 7], test=[8]), "the test part has 1 value"),
    ],
)
def test_too_few_values(source, message):
    with pytest.raises(UsageError, match=message) as caught:
        probe_split(source, seed=0)
    assert "\n" not in str(caught.value)


def test_intervals_are_over_groups():
    groups = np.arange(200) // 10
    value = np.repeat(DRAW.normal(size=20), 10)
    source = Numbers((value + DRAW.normal(size=200))[:, None], value, groups)
    with_groups, split = results(source)
    source.groups = None
    (without,) = measure([("features", lambda samples: samples.data)], source, split)
    assert with_groups.r2.value == pytest.approx(without.r2.value)
    assert with_groups.r2.high - with_groups.r2.low > without.r2.high - without.r2.low


def test_two_columns_have_two_reports():
    a, b = PROBING.labels(plain(np.arange(10.0))), PROBING.labels(plain(np.arange(10.0)[::-1]))
    assert a["values"]["mean"] == b["values"]["mean"]
    assert a != b


@pytest.fixture(scope="module")
def bright(labelled_folder, tmp_path_factory):
    """A CSV with the mean brightness of each of the 80 photographs."""
    path = tmp_path_factory.mktemp("bright") / "bright.csv"
    files = sorted(labelled_folder.rglob("*.png"))
    rows = [f"{p.relative_to(labelled_folder)},{np.asarray(Image.open(p)).mean()}" for p in files]
    path.write_text("\n".join(["file,brightness", *rows]))
    return path


def test_the_public_function(labelled_folder, bright, tmp_path):
    report = tacit.probe(
        "random:tacit/convnet?width=8",
        labelled_folder,
        values=bright,
        column="brightness",
        device="cpu",
        out=str(tmp_path / "report.json"),
    )
    assert [result.representation for result in report.results] == ["random", "raw pixels"]
    assert report["raw pixels"].r2.value > 0.9
    read = json.loads((tmp_path / "report.json").read_text())
    assert read["protocol"]["test"] == 16
    assert read["protocol"]["groups"] is None
    assert read["results"][1]["r2"].keys() == {"value", "low", "high"}
    text = str(report)
    assert text.splitlines()[0].split() == ["R2", "MAE", "Pearson", "r"]
    assert "60/20/20 over quantiles" in text
    assert max(map(len, text.splitlines()[:3])) < 110


def test_raw_pixels_that_are_better_are_said(labelled_folder, bright):
    blind = attach_card(Blind(), channels=3, size=24, num_features=2)
    report = tacit.probe(blind, labelled_folder, values=bright, device="cpu")
    assert "warning: raw pixels are better than what was learned (R2 " in str(report)


class Blind(nn.Module):
    def forward(self, x):
        return torch.zeros(len(x), 2)


def test_masks_are_refused_with_the_way_on(labelled_folder):
    masked = open_source(labelled_folder)
    masked.spec = replace(masked.spec, target="mask")
    with pytest.raises(
        UsageError, match="a probe needs classes or values, and the data have masks"
    ) as caught:
        tacit.probe("random:tacit/convnet", masked, device="cpu")
    assert "tacit fit supervised-segmentation --encoder random:tacit/convnet" in str(caught.value)


class Reader(nn.Module):
    """An encoder whose feature is the mean of the image, through BatchNorm or not."""

    def __init__(self, norm):
        super().__init__()
        self.norm = nn.BatchNorm1d(1, affine=False) if norm else nn.Identity()
        self.dummy = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return self.norm(x.flatten(1).mean(1, keepdim=True)) + 0 * self.dummy


@pytest.fixture
def pictures():
    pixels = DRAW.integers(0, 200, (80, 1, 1, 1)) + DRAW.integers(0, 20, (80, 1, 8, 8))
    made = Images(pixels.astype(np.uint8), np.full((80, 2), 8), [str(i) for i in range(80)])
    made.values = pixels.mean((1, 2, 3)) * 2 + 100
    made.labels = np.zeros(80, np.int64)
    return made


def watched(pictures, norm, scale):
    encoder = attach_card(Reader(norm), channels=1, size=8, num_features=1)
    linear = nn.Linear(1, 1)
    nn.init.ones_(linear.weight)
    nn.init.zeros_(linear.bias)
    mean, std = scale
    head = ValueHead(linear, mean=mean, scale=std)
    method = SimpleNamespace(encoder=encoder, head=head, network=Network(encoder, head))
    return ValueProbe(pictures, np.arange(60), Rng.of(0), np.arange(60, 80), np.arange(40), method), method


def test_held_out_values_are_rated_together(pictures):
    probe, method = watched(pictures, False, (355.0, 255.0))
    outputs = network_outputs(method.network, pictures, np.arange(60, 80), CPU)
    assert outputs.shape == (20, 1)
    values = probe.measure(method.encoder, CPU)
    assert values["r2"] == pytest.approx(r2_score(pictures.values[60:], outputs[:, 0]))
    assert "evaluation_mode" not in values
    assert {"effective_rank", "feature_std"} < values.keys()


def test_undefined_scores_are_left_out(pictures):
    probe, method = watched(pictures, False, (355.0, 255.0))
    pictures.values[60:] = 3
    assert "r2" not in probe.measure(method.encoder, CPU)
    probe, method = watched(pictures, False, (float("nan"), 1.0))
    assert "r2" not in probe.measure(method.encoder, CPU)


def test_statistics_that_do_not_fit_are_estimated_again(pictures):
    learned = pictures.values[:40]
    probe, method = watched(pictures, True, (float(learned.mean()), float(learned.std())))
    method.encoder.norm.running_mean += 5
    before = probe.modes(CPU)
    assert before.training > 0.99
    assert before.evaluation == 0
    assert before.pictures == 10
    assert before.apart
    first, after = probe.settle(CPU)
    assert first == before
    assert after.evaluation > 0.95
    assert not after.apart
