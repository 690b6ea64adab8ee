"""Floors of values: what the labels give without learning."""

import copy

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score
from torch import nn

from tacit.data.open import open_source
from tacit.encoders.card import attach_card
from tacit.encoders.zoo import build_encoder
from tacit.rng import Rng, seeded
from tacit.tasks.names import PIXELS, START
from tacit.tasks.values.floors import MEAN, predict_floors


@pytest.fixture(scope="module")
def inked():
    """The digits, each with the ink of its upper half as its value, and how 100 of them are split."""
    source = open_source("digits", labels="none")
    pixels = source.batch(np.arange(len(source))).data.double()
    source.values = pixels[:, 0, :4].mean((1, 2)).numpy() + 5 * np.random.default_rng(0).normal(size=1797)
    source.labels = np.zeros(1797, np.int64)
    return source, np.arange(100), np.arange(300, 400)


def scores(source, learned, test, encoder):
    """R2 of each floor, by name."""
    found = predict_floors(source, learned, test, encoder, "cpu")
    return {name: r2_score(source.values[test], predicted) for name, predicted in found.items()}


def small():
    with seeded(Rng.of(0)("floors")):
        return build_encoder("tacit/convnet?width=8", channels=1, size=8)


def constant(value):
    class Constant(nn.Module):
        def forward(self, x):
            return torch.full((len(x), 4), value)

    return attach_card(Constant(), channels=1, size=8, num_features=4)


def test_the_mean_is_at_zero_and_pixels_know_their_ink(inked):
    source, learned, test = inked
    found = scores(source, learned, test, small())
    assert list(found) == [MEAN, PIXELS, START]
    truth = source.values[test]
    assert found[MEAN] == pytest.approx(r2_score(truth, np.full(100, source.values[learned].mean())))
    assert -0.1 < found[MEAN] <= 0
    assert found[PIXELS] > 0.5
    assert found[MEAN] < found[START] < 1


def test_values_of_the_test_samples_are_not_looked_at(inked):
    source, learned, test = inked
    other = copy.copy(source)
    other.values = source.values.copy()
    other.values[test] = np.nan
    first, again = (predict_floors(s, learned, test, small(), "cpu") for s in (source, other))
    for name, predicted in first.items():
        assert np.array_equal(predicted, again[name])


def test_noise_is_not_fitted(inked):
    source, learned, test = inked
    other = copy.copy(source)
    other.values = np.random.default_rng(1).normal(size=1797)
    found = scores(other, learned, test, small())
    assert found[PIXELS] > -0.3  # least squares on 64 pixels of 100 samples is below -1


def test_groups_are_left_out_as_a_whole(inked):
    # each group is one image repeated: leaving out single samples would find every one of them again
    source, _, test = inked
    draw = np.random.default_rng(0)
    learned = np.arange(40)
    other = source.subset(np.concatenate([np.repeat(learned, 5), test]))
    other.values = np.concatenate([np.repeat(draw.normal(size=40), 5), draw.normal(size=len(test))])
    rows, fresh = np.arange(200), np.arange(200, 300)
    careless = scores(other, rows, fresh, constant(1.0))
    other.groups = np.concatenate([np.repeat(learned, 5), np.arange(40, 140)])
    careful = scores(other, rows, fresh, constant(1.0))
    assert careless[PIXELS] < -0.5
    assert careful[PIXELS] > -0.2


def test_features_that_say_nothing(inked):
    source, learned, test = inked
    same = predict_floors(source, learned, test, constant(1.0), "cpu")
    assert np.array_equal(same[START], same[MEAN])
    assert list(predict_floors(source, learned, test, constant(float("nan")), "cpu")) == [MEAN, PIXELS]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_values_will_do(count, inked):
    source, learned, test = inked
    found = predict_floors(source, learned[:count], test, small(), "cpu")
    assert list(found) == [MEAN, PIXELS, START]
    assert all(np.isfinite(predicted).all() for predicted in found.values())


@pytest.mark.parametrize("training", [False, True])
def test_the_encoder_stays_as_it_is(training, inked):
    encoder = small().train(training)
    before, modes = copy.deepcopy(encoder.state_dict()), [m.training for m in encoder.modules()]
    predict_floors(*inked, encoder, "cpu")
    assert [m.training for m in encoder.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
