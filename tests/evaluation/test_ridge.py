import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from tacit.errors import UsageError
from tacit.evaluation.ridge import PENALTIES, fit_ridge, sweep_ridge


def data(n, d, noise=0.5, seed=0, weights=0):
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(n, d)) * draw.uniform(0.1, 10, d) + draw.normal(size=d)
    w = np.random.default_rng(weights).normal(size=d)
    return x, (x - 1) @ w / d + 40 + noise * draw.normal(size=n)


def test_one_feature_by_hand():
    # standardised: -1, 1; centred values: -2, 2. w = mean(x y) / (mean(x x) + penalty) = 2 / (1 + 1)
    (regressor,) = fit_ridge(np.array([[10.0], [30.0]]), np.array([5.0, 9.0]), [1.0])
    assert regressor.weight == pytest.approx([1.0])
    assert regressor.predict(np.array([[10.0], [30.0], [50.0]])) == pytest.approx([6, 8, 10])
    both = fit_ridge(np.array([[10.0], [30.0]]), np.array([5.0, 9.0]), [1.0, 3.0])
    assert [r.weight[0] for r in both] == pytest.approx([1.0, 0.5])


@pytest.mark.parametrize(("n", "d"), [(60, 7), (20, 20), (15, 40)])
def test_it_is_the_solution_of_the_normal_equations(n, d):
    x, y = data(n, d)
    z = StandardScaler().fit_transform(x)
    for penalty, regressor in zip(PENALTIES, fit_ridge(x, y), strict=True):
        slow = np.linalg.solve(z.T @ z / n + penalty * np.eye(d), z.T @ (y - y.mean()) / n)
        np.testing.assert_allclose(regressor.weight, slow, rtol=1e-6, atol=1e-7)
        plain = Ridge(alpha=penalty * n).fit(z, y)
        np.testing.assert_allclose(regressor.predict(x), plain.predict(z), rtol=1e-7)
        (alone,) = fit_ridge(x, y, [penalty])
        np.testing.assert_allclose(regressor.predict(x), alone.predict(x), rtol=1e-7)


@pytest.mark.parametrize("penalties", [[1e12], [1e12, 1e13]])
def test_an_endless_penalty_gives_the_mean(penalties):
    x, y = data(30, 4)
    for regressor in fit_ridge(x, y, penalties):
        np.testing.assert_allclose(regressor.predict(x), y.mean(), rtol=1e-9)


def test_a_faint_penalty_is_least_squares():
    x, y = data(50, 3)
    exact, *_ = np.linalg.lstsq(np.column_stack([x, np.ones(50)]), y, rcond=None)
    regressor = fit_ridge(x, y, [1e-10, 1.0])[0]
    np.testing.assert_allclose(regressor.predict(x), x @ exact[:3] + exact[3], rtol=1e-8)


def test_units_of_features_and_values_do_not_matter():
    x, y = data(50, 5)
    fresh = data(9, 5, seed=2)[0]
    first = sweep_ridge((x[:30], y[:30]), (x[30:], y[30:]))
    scale, shift = np.array([1e-3, 1, 1e4, 2, 7]), np.array([5, 0, -3, 1e3, 1])
    other = x * scale + shift
    again = sweep_ridge((other[:30], 1e3 * y[:30] - 7), (other[30:], 1e3 * y[30:] - 7))
    assert first.penalty == again.penalty
    expected = 1e3 * first.regressor.predict(fresh) - 7
    np.testing.assert_allclose(again.regressor.predict(fresh * scale + shift), expected, rtol=1e-7)


def test_the_penalty_is_chosen_on_validation_and_both_parts_are_fitted():
    (x, y), (v, w) = data(40, 30, noise=2), data(25, 30, noise=2, seed=1)
    sweep = sweep_ridge((x, y), (v, w))
    errors = {p: np.mean((r.predict(v) - w) ** 2) for p, r in zip(PENALTIES, fit_ridge(x, y), strict=True)}
    assert sweep.validation == pytest.approx(errors)
    assert sweep.penalty == min(errors, key=errors.__getitem__)
    assert sweep.penalty not in (PENALTIES[0], PENALTIES[-1])
    z = StandardScaler().fit(both := np.concatenate([x, v]))
    plain = Ridge(alpha=65 * sweep.penalty).fit(z.transform(both), np.concatenate([y, w]))
    np.testing.assert_allclose(sweep.regressor.predict(v), plain.predict(z.transform(v)), rtol=1e-9)


def test_of_equals_the_strongest_is_taken():
    x, y = np.ones((6, 3)), np.arange(6.0)  # features that tell nothing: every penalty gives the mean
    sweep = sweep_ridge((x, y), (x, y))
    assert sweep.penalty == max(PENALTIES)
    np.testing.assert_allclose(sweep.regressor.predict(x), 2.5)
    assert sweep_ridge((x, y), (x, y), penalties=[0.1, 3.0, 2.0]).penalty == 3.0


def test_one_sample_to_validate_with_is_enough_and_tensors_are_taken():
    x, y = data(20, 4)
    features, values = torch.from_numpy(x).float(), torch.from_numpy(y).float()
    sweep = sweep_ridge((features[:19], values[:19]), (features[19:], values[19:]))
    found = sweep.regressor.predict(features.bfloat16())
    assert found.dtype == np.float64
    assert np.isfinite(found).all()


@pytest.mark.parametrize(
    ("features", "values", "penalties", "message"),
    [
        (np.ones((3, 2)), np.ones(2), [1.0], r"features \(N, D\) and values \(N,\), not \(3, 2\) and \(2,\)"),
        (np.ones((0, 2)), np.ones(0), [1.0], r"not \(0, 2\)"),
        (np.array([[np.nan], [1.0]]), np.ones(2), [1.0], "NaN or infinite"),
        (np.ones((2, 1)), np.array([np.nan, 1]), [1.0], "leave out unlabelled samples"),
        (np.ones((2, 1)), np.ones(2), [0.0, 1.0], "penalties must be above 0"),
        (np.ones((2, 1)), np.ones(2), [], "penalties must be above 0"),
    ],
)
def test_what_is_wrong_is_one_line(features, values, penalties, message):
    with pytest.raises(UsageError, match=message):
        fit_ridge(features, values, penalties)
