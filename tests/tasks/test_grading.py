"""Measures of graded predictions, by hand; and the bootstrap, against what it must give exactly."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from torchmetrics.functional.classification import multiclass_calibration_error

from tacit.errors import UsageError
from tacit.tasks.classes import grading
from tacit.tasks.classes.grading import bootstrap_grades, grade


@pytest.fixture(autouse=True)
def _warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def sure(predicted, confidence, classes):
    """Rows that predict these classes with these probabilities; the rest is shared by the others."""
    confidence = np.broadcast_to(np.asarray(confidence, float), (len(predicted),))
    rows = np.repeat((1 - confidence)[:, None] / (classes - 1), classes, 1)
    rows[np.arange(len(predicted)), predicted] = confidence
    return rows


def random_case(seed, n=40, classes=5):
    draw = np.random.default_rng(seed)
    return draw.integers(0, classes, n), draw.dirichlet(np.full(classes, 0.4), n)


def test_by_hand():
    # true 0 0 1 2, predicted 0 1 1 0: squared distances sum to 5; by chance
    # (2*2*1 + 1*2*1 + 1*2*4 + 1*2*1) / 4 = 4. Each confidence has its own bin: gaps .1, .78, .3, .62.
    truth, probability = np.array([0, 0, 1, 2]), sure([0, 1, 1, 0], [0.9, 0.78, 0.7, 0.62], 3)
    found = grade(truth, probability)
    assert found.accuracy == 0.5
    assert found.balanced_accuracy == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert found.kappa == pytest.approx(1 - 5 / 4)
    assert found.mae == 0.75
    assert found.ece == pytest.approx((0.1 + 0.78 + 0.3 + 0.62) / 4)
    assert found.n == 4
    assert grade(torch.from_numpy(truth), torch.from_numpy(probability)) == found


def test_classes_without_an_order():
    # disagreement 2 of 4; by chance (2*2 + 1*2 + 1*2 + 1*2) / 4 = 2.5
    found = grade(np.array([0, 0, 1, 2]), sure([0, 1, 1, 0], 0.8, 3), ordinal=False)
    assert found.kappa == pytest.approx(1 - 2 / 2.5)
    assert np.isnan(found.mae)
    assert found.accuracy == 0.5


def test_grades_that_do_not_occur_keep_their_distance():
    # true 0 1 4 4, predicted 0 0 4 1: 1 + 9 = 10; by chance (1 + 16 + 2 + 9 + 64 + 18) / 4 = 27.5
    found = grade(np.array([0, 1, 4, 4]), sure([0, 0, 4, 1], 0.9, 5))
    assert found.kappa == pytest.approx(1 - 10 / 27.5)
    assert found.balanced_accuracy == pytest.approx((1 + 0 + 0.5) / 3)


def test_calibration_error_of_a_shared_bin():
    # .95 right and .97 wrong lie in (14/15, 1]: |1 + 0 - .95 - .97| / 2; over-confidence cancels in a bin
    assert grade(np.array([0, 1]), sure([0, 0], [0.95, 0.97], 2)).ece == pytest.approx(0.46)


def test_calibration_error_of_certainty():
    # a probability of 1 is in the last bin like one of .95: |0 + 1 - 1 - .95| / 2
    truth, probability = np.array([1, 0]), sure([0, 0], [1.0, 0.95], 2)
    assert grade(truth, probability).ece == pytest.approx(0.475)
    assert grade(np.array([0, 1]), np.eye(2)).ece == 0
    assert grade(np.array([1, 0]), np.eye(2)).ece == 1


@pytest.mark.parametrize("seed", range(5))
def test_calibration_error_is_that_of_torchmetrics_where_nothing_is_certain(seed):
    truth, probability = random_case(seed, 300)
    arguments = torch.from_numpy(probability), torch.from_numpy(truth)
    theirs = multiclass_calibration_error(*arguments, num_classes=5, n_bins=15, norm="l1")
    assert grade(truth, probability).ece == pytest.approx(theirs.item(), abs=1e-6)  # they compute in float32


@pytest.mark.parametrize(
    ("truth", "predicted", "kappa", "balanced"),
    [
        ([2, 2, 2], [2, 2, 2], np.nan, 1.0),
        ([2, 2, 2], [2, 0, 2], 0.0, 2 / 3),
        ([0, 1, 3], [3, 3, 3], 0.0, 1 / 3),
        # distances 0 1 1; by chance (0 + 2 * 4 + 1 + 2 * 1 + 9 + 2 * 1) / 3
        ([0, 1, 3], [0, 2, 2], 1 - 2 / (22 / 3), 1 / 3),
        ([3], [0], 0.0, 0.0),
    ],
)
def test_classes_that_do_not_occur(truth, predicted, kappa, balanced):
    found = grade(np.array(truth), sure(predicted, 0.9, 4))
    assert found.kappa == pytest.approx(kappa, nan_ok=True)
    assert found.balanced_accuracy == pytest.approx(balanced)
    bounds = bootstrap_grades(np.array(truth), sure(predicted, 0.9, 4), resamples=20)
    assert bounds["kappa"].value == pytest.approx(kappa, nan_ok=True)
    assert np.isnan(bounds["kappa"].low) == np.isnan(kappa)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(2, 6), st.booleans())
def test_resamples_that_are_the_data_score_as_the_data(seed, n, classes, ordinal):
    # one group is drawn as a whole, so that the hand-written measures must be those of `grade`
    truth, probability = random_case(seed, n, classes)
    found = bootstrap_grades(truth, probability, ordinal=ordinal, resamples=2, groups=np.zeros(n))
    value = grade(truth, probability, ordinal=ordinal)
    assert list(found) == ["accuracy", "balanced_accuracy", "kappa", "mae", "ece"]
    for name, (middle, low, high) in found.items():
        assert middle == pytest.approx(getattr(value, name), nan_ok=True)
        assert (low, high) == (pytest.approx(middle, nan_ok=True),) * 2


def test_within_a_class_right_answers_are_binomial():
    truth, probability = np.full(100, 1), sure([1] * 80 + [0] * 20, 0.9, 2)
    found = bootstrap_grades(truth, probability, resamples=20_000)["accuracy"]
    assert found.value == 0.8
    assert (found.low, found.high) == (pytest.approx(0.72, abs=0.0101), pytest.approx(0.88, abs=0.0101))
    assert binom.ppf([0.025, 0.975], 100, 0.8).tolist() == [72, 88]
    narrow = bootstrap_grades(truth, probability, resamples=20_000, confidence=0.5)["accuracy"]
    expected = binom.ppf([0.25, 0.75], 100, 0.8) / 100
    assert narrow[1:] == pytest.approx(tuple(expected), abs=0.0101)


def test_every_resample_has_the_classes_counts():
    truth = np.array([2, 0, 1, 2, 0, 2, 2])
    counts = np.concatenate(list(grading._counts(truth, 500, 64, np.random.default_rng(0))))
    for k, size in enumerate(np.bincount(truth)):
        assert (counts[:, truth == k].sum(1) == size).all()
    assert counts.mean(0) == pytest.approx(np.ones(7), abs=0.15)
    # one sample of a class: always there
    assert (counts[:, 2] == 1).all()


def test_blocks_and_later_resamples_change_no_draw(monkeypatch):
    truth, probability = random_case(1)
    whole = bootstrap_grades(truth, probability, resamples=50)
    monkeypatch.setattr(grading, "_ROOM", 7 * len(truth))
    assert bootstrap_grades(truth, probability, resamples=50) == whole
    assert bootstrap_grades(truth, probability, resamples=50, seed=1) != whole
    few, many = (
        np.concatenate(list(grading._counts(truth, n, 3, np.random.default_rng(0)))) for n in (4, 40)
    )
    np.testing.assert_array_equal(few, many[:4])


def test_groups_are_drawn_whole():
    # patient a all right, b all wrong: resamples are aa, ab, ba, bb
    truth, probability = np.array([0, 1, 0, 1]), sure([0, 1, 1, 0], 0.9, 2)
    groups = np.array(["a", "a", "b", "b"])
    wide = bootstrap_grades(truth, probability, groups=groups)["accuracy"]
    assert wide == (0.5, 0.0, 1.0)
    narrow = bootstrap_grades(truth, probability, groups=groups, confidence=0.4)
    assert narrow["accuracy"] == (0.5, 0.5, 0.5)
    assert narrow["kappa"] == (0.0, 0.0, 0.0)


def test_forgetting_groups_makes_intervals_too_narrow():
    truth, probability = random_case(3, 60)
    nine = [np.repeat(x, 9, 0) for x in (truth, probability)]
    groups = np.repeat(np.arange(60), 9)
    width = {
        name: found["mae"].high - found["mae"].low
        for name, found in {
            "once": bootstrap_grades(truth, probability, groups=np.arange(60)),
            "grouped": bootstrap_grades(*nine, groups=torch.from_numpy(groups)),
            "forgotten": bootstrap_grades(*nine),
        }.items()
    }
    assert width["grouped"] == width["once"]  # copies add nothing
    assert width["forgotten"] < 0.45 * width["once"]  # about a third


def test_resamples_without_kappa_are_left_out():
    # groups of one class each: a resample of one group alone has no kappa
    truth, probability = np.array([0, 0, 1, 1]), sure([0, 0, 1, 1], 0.9, 2)
    found = bootstrap_grades(truth, probability, groups=truth)
    assert found["kappa"] == (1.0, 1.0, 1.0)
    assert found["balanced_accuracy"] == (1.0, 1.0, 1.0)


def test_half_precision_probabilities_are_taken():
    logits = torch.randn(50, 5, generator=torch.Generator().manual_seed(0)) * 4
    truth = torch.zeros(50, dtype=torch.int64)
    exact = grade(truth, logits.softmax(1))
    for dtype in (torch.float16, torch.bfloat16):
        assert grade(truth, logits.softmax(1).to(dtype)).ece == pytest.approx(exact.ece, abs=0.02)


@pytest.mark.parametrize(
    ("truth", "probability", "message"),
    [
        (np.zeros(0, int), np.zeros((0, 3)), "nothing to grade"),
        ([0, 1], np.eye(3), r"not \(2,\) and \(3, 3\)"),
        ([0, 0], np.ones((2, 1)), "two classes at least"),
        ([0, 3], np.full((2, 3), 1 / 3), r"0 \.\. 2, it goes from 0 to 3"),
        ([0, -1], np.full((2, 3), 1 / 3), "unlabelled samples"),
        ([0.0, 1.0], np.eye(2), "class numbers"),
        ([0, 1], np.array([[2.0, -1.0], [0.0, 1.0]]), "take the softmax"),
        ([0, 1], np.array([[0.5, 0.4], [0.0, 1.0]]), "take the softmax"),
        ([0, 1], np.array([[np.nan, 1.0], [0.0, 1.0]]), "take the softmax"),
    ],
)
def test_what_is_wrong_is_one_line(truth, probability, message):
    for measure in (grade, bootstrap_grades):
        with pytest.raises(UsageError, match=message) as caught:
            measure(np.asarray(truth), probability)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resamples": 1}, "resamples must be at least 2"),
        ({"confidence": 1.0}, "confidence must lie between 0 and 1"),
        ({"groups": np.zeros(3)}, r"groups must be one per sample, \(2,\)"),
    ],
)
def test_wrong_arguments_of_the_bootstrap(arguments, message):
    with pytest.raises(UsageError, match=message):
        bootstrap_grades(np.array([0, 1]), np.eye(2), **arguments)
