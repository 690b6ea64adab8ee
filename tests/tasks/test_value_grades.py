"""Values: their grades, and the interval around a prediction."""

import json
import warnings

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from tacit.errors import UsageError
from tacit.tasks.values.calibration import half_width
from tacit.tasks.values.grading import grade_values

NAN = float("nan")


def predictions(n, seed=0, noise=0.5):
    draw = np.random.default_rng(seed)
    truth = draw.normal(60, 1, n)
    return truth, truth + noise * draw.normal(size=n)


def intervals(grades):
    return [x for e in (grades.mae, grades.r2, grades.pearson) for x in (e.low, e.high)]


def test_numbers_by_hand():
    # errors 1, 0, -1, 2; squares 6; the truth is 5 around its mean 2.5
    grades = grade_values(np.array([1.0, 2, 3, 4]), np.array([2.0, 2, 2, 6]))
    assert grades.count == 4
    assert grades.groups is None
    assert grades.mae.value == pytest.approx(1.0)
    assert grades.rmse == pytest.approx(1.5**0.5)
    assert grades.r2.value == pytest.approx(1 - 6 / 5)
    # predictions are -1, -1, -1, 3 around 3: squares 12, products 1.5 + 0.5 - 0.5 + 4.5 = 6
    assert grades.pearson.value == pytest.approx(6 / (5 * 12) ** 0.5)


def test_perfect_predictions_and_the_mean():
    truth, _ = predictions(50)
    perfect = grade_values(truth, truth)
    assert (perfect.r2.value, perfect.r2.low, perfect.r2.high) == (1, 1, 1)
    assert intervals(perfect) == pytest.approx([0, 0, 1, 1, 1, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mean = grade_values(truth, np.full(50, truth.mean()))
        assert mean.r2.value == pytest.approx(0, abs=1e-12)
        assert np.isnan([mean.pearson.value, mean.pearson.low, mean.pearson.high]).all()
        same = grade_values(np.full(9, 0.1), truth[:9])
        assert np.isnan([same.r2.value, same.r2.low, same.pearson.value]).all()
        assert same.mae.value == pytest.approx(np.abs(truth[:9] - 0.1).mean())


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e9])
def test_values_are_those_of_the_libraries(scale):
    truth, predicted = (scale * x for x in predictions(200))
    grades = grade_values(torch.from_numpy(truth), torch.from_numpy(predicted))
    assert grades.mae.value == pytest.approx(mean_absolute_error(truth, predicted), rel=1e-9, abs=0)
    assert grades.rmse == pytest.approx(root_mean_squared_error(truth, predicted), rel=1e-9, abs=0)
    assert grades.r2.value == pytest.approx(r2_score(truth, predicted))
    assert grades.pearson.value == pytest.approx(stats.pearsonr(truth, predicted).statistic)


def test_intervals_are_those_of_a_slow_bootstrap():
    truth, predicted = predictions(80)
    grades = grade_values(truth, predicted)
    draw = np.random.default_rng(1)
    scores = []
    for _ in range(2000):
        index = draw.integers(0, 80, 80)
        t, p = truth[index], predicted[index]
        scores.append([mean_absolute_error(t, p), r2_score(t, p), np.corrcoef(t, p)[0, 1]])
    low, high = np.quantile(scores, [0.025, 0.975], axis=0)
    expected = np.stack([low, high], 1)
    width = (high - low)[:, None]
    # the two draws differ by chance: quantiles of 2000 by about 2 % of the width
    assert (np.abs(np.reshape(intervals(grades), (3, 2)) - expected) < 0.1 * width).all()
    for e in (grades.mae, grades.r2, grades.pearson):
        assert e.low < e.value < e.high


def test_the_same_seed_gives_the_same_interval_and_no_global_state_counts():
    truth, predicted = predictions(30)
    first = grade_values(truth, predicted)
    np.random.seed(5)  # noqa: NPY002  # a global state that must not matter
    assert grade_values(truth, predicted) == first
    assert intervals(grade_values(truth, predicted, seed=1)) != intervals(first)


def test_one_sample_per_group_is_no_group():
    truth, predicted = predictions(40)
    plain = grade_values(truth, predicted)
    grouped = grade_values(truth, predicted, groups=np.arange(40) + 7)
    assert grouped.groups == 40
    assert intervals(grouped) == pytest.approx(intervals(plain))


def test_repeated_samples_of_a_group_do_not_narrow_the_interval():
    truth, predicted = predictions(40)
    plain = grade_values(truth, predicted)
    many = np.repeat(truth, 10), np.repeat(predicted, 10)
    grouped = grade_values(*many, groups=np.repeat(np.arange(40), 10))
    assert (grouped.count, grouped.groups) == (400, 40)
    assert intervals(grouped) == pytest.approx(intervals(plain))
    careless = grade_values(*many)
    assert careless.mae.high - careless.mae.low < 0.5 * (plain.mae.high - plain.mae.low)


def test_one_group_has_no_interval():
    truth, predicted = predictions(5)
    grades = grade_values(truth, predicted, groups=np.zeros(5, np.int64))
    assert np.isnan(intervals(grades)).all()
    assert grades.r2.value == pytest.approx(r2_score(truth, predicted))
    alone = grade_values(truth[:1], predicted[:1])
    assert np.isnan([alone.r2.value, alone.mae.low]).all()
    assert alone.mae.value == pytest.approx(abs(truth[0] - predicted[0]))


def test_what_is_written_is_json_and_what_is_shown_a_table():
    grades = grade_values(np.array([1.0, 2, 3, 4]), np.full(4, 2.5), groups=np.array([0, 0, 1, 1]))
    found = json.loads(json.dumps(grades.as_dict(), allow_nan=False))
    assert found["pearson"] == {"value": None, "low": None, "high": None}
    assert found["mae"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert (found["count"], found["groups"]) == (4, 2)
    lines = str(grades).splitlines()
    assert len(lines) == 6
    assert lines[3].split() == ["MAE", "1", "1", "..", "1"]
    assert lines[-1] == "(4 values of 2 groups)"


@pytest.mark.parametrize(
    ("truth", "predicted", "options", "message"),
    [
        ([], [], {}, "nothing to grade"),
        ([1.0, 2], [1.0], {}, r"not \(2,\) and \(1,\)"),
        ([1.0, NAN], [1.0, 2], {}, "truth has NaN .*: leave out unlabelled samples"),
        ([1.0, 2], [1.0, float("inf")], {}, "predictions have NaN or infinite values"),
        ([1.0, 2], [1.0, 2], {"resamples": 1}, "at least 2, not 1"),
        ([1.0, 2], [1.0, 2], {"groups": np.zeros(3)}, r"one per sample, \(2,\), not \(3,\)"),
    ],
)
def test_what_cannot_be_graded_is_one_line(truth, predicted, options, message):
    with pytest.raises(UsageError, match=message):
        grade_values(np.array(truth), np.array(predicted), **options)


def test_half_widths_by_hand():
    truth = np.zeros(19)
    predicted = np.arange(1.0, 20) * np.resize([1, -1], 19)
    found = half_width(truth, predicted)
    assert (found.width, found.count, found.reason) == (18.0, 19, "")  # ceil(20 * 0.9) = 18
    assert half_width(truth[:9], predicted[:9]).width == 9.0
    assert half_width(truth[:10], predicted[:10]).width == 10.0  # ceil(9.9)
    assert half_width(truth, predicted, coverage=0.5).width == 10.0
    # 0.9 * 30 is a bit more than 27 in floating point
    assert half_width(np.zeros(29), np.arange(1.0, 30)).width == 27.0


def test_too_few_samples_give_no_width_and_the_reason():
    found = half_width(torch.zeros(8), torch.ones(8))
    assert found.width is None
    assert found.reason == "8 held-out samples are too few for 90 %: 9 are needed"
    assert half_width(np.zeros(0), np.zeros(0)).width is None
    grouped = half_width(np.zeros(80), np.ones(80), groups=np.repeat(np.arange(8), 10))
    assert grouped.reason == "8 held-out groups are too few for 90 %: 9 are needed"


def test_groups_share_the_weight_of_a_sample():
    residuals = np.arange(1.0, 20)
    plain = half_width(np.zeros(19), residuals)
    assert half_width(np.zeros(19), residuals, groups=residuals.astype(int)).width == plain.width
    many = np.repeat(residuals, 6)
    grouped = half_width(np.zeros(114), many, groups=many.astype(int))
    assert (grouped.width, grouped.count) == (plain.width, 19)
    # ten groups: nine of residual 0, one of 99 samples with residual 1: 9 / 11 < 0.9, so that the width is 1
    groups = np.concatenate([np.arange(9), np.full(99, 9)])
    assert half_width(np.zeros(108), (groups == 9).astype(float), groups=groups).width == 1.0


def covered(rng, groups, size, rounds=4000):
    """How often a further sample of a further group lies inside; residuals share a part in a group."""
    hits = 0
    for _ in range(rounds):
        common = rng.normal(size=groups + 1)
        number = np.repeat(np.arange(groups), size)
        residuals = common[number] + 0.3 * rng.standard_t(3, groups * size)
        width = half_width(np.zeros(groups * size), residuals, groups=number).width
        hits += abs(common[-1] + 0.3 * rng.standard_t(3)) <= width
    return hits / rounds


@pytest.mark.parametrize(("groups", "size", "most"), [(49, 1, 0.9 + 1 / 50), (19, 1, 0.95), (12, 4, 0.97)])
def test_the_interval_covers_what_it_promises(groups, size, most):
    share = covered(np.random.default_rng(0), groups, size)
    # standard error of 4000 rounds: 0.5 %; three of them
    assert 0.9 - 0.015 < share < most + 0.015


@pytest.mark.parametrize(
    ("truth", "predicted", "options", "message"),
    [
        (np.zeros(3), np.zeros(2), {}, r"not \(3,\) and \(2,\)"),
        (np.full(3, NAN), np.zeros(3), {}, "leave out unlabelled samples"),
        (np.zeros(3), np.zeros(3), {"coverage": 1.0}, "coverage must lie between 0 and 1"),
        (np.zeros(3), np.zeros(3), {"groups": np.zeros(2)}, "groups must be one per sample"),
    ],
)
def test_an_interval_that_cannot_be_found_is_one_line(truth, predicted, options, message):
    with pytest.raises(UsageError, match=message):
        half_width(truth, predicted, **options)
