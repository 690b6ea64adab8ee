"""Intervals and paired tests, against numbers worked out by hand."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tacit.errors import UsageError
from tacit.evaluation.statistics import compare_paired, mean_interval


def test_students_interval_by_hand():
    # mean 2, standard error 1 / sqrt(3) = 0.5773503, t(2; 0.975) = 4.3026527
    interval = mean_interval([1.0, 2.0, 3.0])
    assert (interval.mean, interval.n, interval.method) == (2.0, 3, "t")
    assert interval.low == pytest.approx(2 - 4.3026527 * 0.57735027, abs=1e-6)
    assert interval.high == pytest.approx(2 + 4.3026527 * 0.57735027, abs=1e-6)


def test_many_values_are_bootstrapped_and_agree_with_the_normal_interval():
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    interval = mean_interval(values)
    assert interval.method == "bootstrap"
    half = 1.959964 * values.std(ddof=1) / 20
    assert interval.low == pytest.approx(values.mean() - half, abs=0.02)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.02)
    assert mean_interval(values) == interval  # the same draws each time
    assert mean_interval(values, seed=1) != interval


def test_the_bootstrap_of_skewed_values_is_skewed():
    values = np.random.default_rng(1).exponential(1.0, 30)
    interval = mean_interval(values, method="bootstrap")
    assert interval.high - interval.mean > interval.mean - interval.low > 0


def test_coverage_of_few_values_is_why_auto_takes_t():
    draw = np.random.default_rng(2).normal(size=(300, 5))
    covered = {
        method: np.mean([(i := mean_interval(x, method=method)).low < 0 < i.high for x in draw])
        for method in ("t", "bootstrap")
    }
    assert covered["t"] == pytest.approx(0.95, abs=0.03)
    assert 0.75 < covered["bootstrap"] < 0.90


def test_confidence_widens_the_interval():
    values = [1.0, 2.0, 4.0]
    assert mean_interval(values, confidence=0.99).low < mean_interval(values).low


def exact_p(difference: np.ndarray) -> float:
    """Share of the 2^n sign patterns whose mean is as far from 0 as the one seen; the slow way."""
    means = [np.mean(difference * signs) for signs in itertools.product((1, -1), repeat=len(difference))]
    seen = difference.mean()
    return min(
        1.0, 2 * min(np.mean(np.array(means) >= seen - 1e-12), np.mean(np.array(means) <= seen + 1e-12))
    )


def test_three_gains_cannot_be_surer_than_a_quarter():
    result = compare_paired([3.0, 4.0, 5.0], [1.0, 3.0, 2.0])
    assert result.difference.mean == pytest.approx(2.0)
    assert result.permutation == pytest.approx(0.25)
    assert result.wilcoxon == pytest.approx(0.25)


def test_one_sided_tests_look_one_way():
    a, b = [3.0, 4.0, 5.0, 7.0], [1.0, 3.0, 2.0, 3.0]
    assert compare_paired(a, b, alternative="greater").permutation == pytest.approx(1 / 16)
    assert compare_paired(a, b, alternative="less").permutation == pytest.approx(1.0)
    assert compare_paired(a, b, alternative="greater").wilcoxon == pytest.approx(1 / 16)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(-50, 50), min_size=3, max_size=8))
def test_permutation_is_the_exact_share_of_sign_patterns(values):
    difference = np.array(values, float)
    if difference.any():
        found = compare_paired(difference, np.zeros(len(values))).permutation
        assert found == pytest.approx(exact_p(difference), abs=1e-9)


def test_pairs_matter_and_not_the_spread_between_them():
    base = np.array([10.0, 60.0, 30.0, 90.0, 50.0, 20.0])
    result = compare_paired(base + np.array([1.0, 1.1, 0.9, 1.0, 1.2, 0.8]), base)
    assert result.permutation == pytest.approx(2 / 64)
    assert 0.8 < result.difference.low < result.difference.high < 1.2


def test_no_difference_at_all():
    result = compare_paired([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert (result.permutation, result.wilcoxon, result.difference.low) == (1.0, 1.0, 0.0)


@pytest.mark.parametrize("values", [[1.0], [], [1.0, float("nan")], [1.0, float("inf")]])
def test_too_little_or_broken(values):
    with pytest.raises(UsageError, match="two finite values"):
        mean_interval(values)


def test_unequal_lengths():
    with pytest.raises(UsageError, match="equally many, not 2 and 3"):
        compare_paired([1.0, 2.0], [1.0, 2.0, 3.0])
