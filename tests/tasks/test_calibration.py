"""Temperature scaling: the closed form of an easy case, known temperatures, and what has no minimum."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from tacit.errors import UsageError
from tacit.tasks.classes.calibration import HIGHEST, LOWEST, PRIOR, calibrated, fit_temperature
from tacit.tasks.classes.grading import grade


def sampled(temperature, n=20_000, classes=5, seed=0):
    """Logits, and labels that are drawn from softmax(logits / temperature)."""
    draw = torch.Generator().manual_seed(seed)
    logits = 2 * temperature * torch.randn(n, classes, generator=draw, dtype=torch.float64)
    labels = torch.multinomial((logits / temperature).softmax(1), 1, generator=draw)[:, 0]
    return logits, labels


def test_three_of_four_in_closed_form():
    # equal logits (2, 0), right three times of four: the best probability is 3/4, so 2 / T = ln 3
    logits = torch.tensor([[2.0, 0.0]]).expand(4, 2)
    assert fit_temperature(logits, torch.tensor([0, 0, 0, 1])) == pytest.approx(2 / math.log(3), rel=1e-5)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_a_known_temperature_is_found(temperature):
    logits, labels = sampled(temperature)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(temperature, rel=0.03)
    after = grade(labels, calibrated(logits, found)).ece
    assert after < 0.015
    if temperature != 1:
        assert after < grade(labels, logits.softmax(1)).ece / 4


def test_arrays_and_half_precision_are_taken():
    logits, labels = sampled(2.0, 500)
    found = fit_temperature(logits, labels)
    assert fit_temperature(logits.numpy(), labels.numpy()) == found
    assert fit_temperature(logits.half().requires_grad_(), labels) == pytest.approx(found, rel=1e-2)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.floats(0.01, 100))
def test_never_worse_than_doing_nothing_nor_than_any_other(seed, n, scale):
    draw = np.random.default_rng(seed)
    logits = torch.from_numpy(scale * draw.normal(size=(n, 3)))
    labels = torch.from_numpy(draw.integers(0, 3, n))

    def loss(temperature):
        return F.cross_entropy(logits / temperature, labels).item()

    found = fit_temperature(logits, labels)
    assert LOWEST <= found <= HIGHEST
    assert loss(found) <= loss(1.0)
    grid = np.geomspace(LOWEST, HIGHEST, 200)
    assert loss(found) <= min(map(loss, grid)) + 1e-9


def test_the_bounds_are_reached_where_there_is_no_minimum():
    logits = torch.tensor([[1.0, 0.0, -1.0], [0.0, 0.5, 0.2]])
    assert fit_temperature(logits, torch.tensor([0, 1])) == LOWEST
    assert fit_temperature(logits[:1], torch.tensor([0])) == LOWEST
    assert fit_temperature(logits, torch.tensor([2, 0])) == HIGHEST


def test_few_right_answers_give_no_certainty():
    logits = torch.tensor([[3.0, 0.0], [0.0, 3.0], [3.0, 0.0], [0.0, 3.0]])
    labels = torch.tensor([0, 1, 0, 1])
    assert fit_temperature(logits, labels) == LOWEST
    found = fit_temperature(logits, labels, prior=PRIOR)
    # where the derivatives by log T of 4 log(1 + exp(-3 / T)) and of (log T / PRIOR)^2 / 2 cancel
    margin = 3 / found
    assert 4 * margin / (1 + math.exp(margin)) + math.log(found) / PRIOR**2 == pytest.approx(0, abs=1e-4)
    assert 0.5 < found < 1
    # and few wrong answers give no despair
    assert fit_temperature(logits[:1], 1 - labels[:1]) == HIGHEST
    assert 1 < fit_temperature(logits[:1], 1 - labels[:1], prior=PRIOR) < 2.5


def test_many_samples_need_no_prior():
    logits, labels = sampled(2.0)
    with_prior = fit_temperature(logits, labels, prior=PRIOR)
    assert with_prior == pytest.approx(fit_temperature(logits, labels), rel=5e-3)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.floats(0.01, 100))
def test_with_a_prior_no_other_temperature_is_more_probable(seed, n, scale):
    draw = np.random.default_rng(seed)
    logits = torch.from_numpy(scale * draw.normal(size=(n, 3)))
    labels = torch.from_numpy(draw.integers(0, 3, n))

    def unlikely(temperature):
        loss = F.cross_entropy(logits / temperature, labels, reduction="sum").item()
        return loss + (math.log(temperature) / PRIOR) ** 2 / 2

    found = unlikely(fit_temperature(logits, labels, prior=PRIOR))
    assert found <= min(map(unlikely, np.geomspace(LOWEST, HIGHEST, 200))) + 1e-6


def test_what_cannot_be_bettered_is_left_alone():
    assert fit_temperature(torch.full((6, 4), 3.0), torch.tensor([0, 1, 2, 3, 0, 1])) == 1.0
    assert fit_temperature(1000 * torch.eye(3), torch.arange(3)) == 1.0  # no loss at all, as at any other


def test_probabilities_by_hand():
    # (ln 9, 0) / 2 = (ln 3, 0)
    rows = calibrated(torch.tensor([[math.log(9), 0.0], [0.0, 0.0]]), 2.0)
    assert rows.tolist() == [pytest.approx([0.75, 0.25]), pytest.approx([0.5, 0.5])]
    assert calibrated(torch.ones(2, 3, 4, dtype=torch.float16), 0.1).dtype == torch.float32
    assert calibrated(torch.ones(2, 3, 4).double(), 0.1).shape == (2, 3, 4)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(LOWEST, HIGHEST))
def test_the_most_probable_class_stays(seed, temperature):
    logits = torch.from_numpy(np.random.default_rng(seed).normal(size=(20, 5)) * 10).float()
    rows = calibrated(logits, temperature)
    most = rows.gather(1, logits.argmax(1, keepdim=True))[:, 0]
    assert torch.equal(most, rows.amax(1))
    assert rows.sum(1).tolist() == pytest.approx([1] * 20, abs=1e-5)
    change = most - logits.softmax(1).amax(1)
    assert (change >= -1e-6).all() if temperature <= 1 else (change <= 1e-6).all()


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), "one held-out sample at least"),
        (torch.zeros(2, 3), torch.tensor([0]), r"not \(2, 3\) and \(1,\)"),
        (torch.zeros(2, 3), torch.tensor([0, -1]), "unlabelled samples"),
        (torch.zeros(2, 3), torch.tensor([0, 3]), r"0 \.\. 2"),
        (torch.zeros(2, 3), torch.tensor([0.0, 1.0]), "whole numbers"),
        (torch.full((2, 3), float("nan")), torch.tensor([0, 1]), "NaN or infinite"),
    ],
)
def test_what_is_wrong_is_one_line(logits, labels, message):
    with pytest.raises(UsageError, match=message):
        fit_temperature(logits, labels)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_wrong_temperatures(temperature):
    with pytest.raises(UsageError, match="above 0"):
        calibrated(torch.zeros(1, 2), temperature)
