"""The linear probe for values: ridge regression on frozen features, its penalty swept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh
from sklearn.linear_model import Ridge
from torch import Tensor

from tacit.errors import UsageError

PENALTIES = tuple(10.0**e for e in range(4, -7, -1))
"""From strong to weak (our choice). The mean squares of D standardised features sum to D, so that with a
thousand features or fewer the strongest gives little more than the mean; the weakest is nearly least
squares."""
_EQUAL = 1e-9  # relative difference of errors that is rounding

Part = tuple[Tensor | np.ndarray, Tensor | np.ndarray]
"""Features (N, D) and values (N,)."""


@dataclass(frozen=True, slots=True)
class LinearRegressor:
    """Weights on features that are standardised as its training features were; all float64."""

    weight: np.ndarray  # (D,)
    bias: float
    mean: np.ndarray  # (D,)
    std: np.ndarray  # (D,)

    def predict(self, features: Tensor | np.ndarray) -> np.ndarray:
        """(N, D) -> (N,) float64."""
        standardised: np.ndarray = (_array(features) - self.mean) / self.std
        return np.asarray(standardised @ self.weight + self.bias)


@dataclass(frozen=True, slots=True)
class RidgeSweep:
    """A probe with the penalty that was best on validation data, and how each one did."""

    regressor: LinearRegressor
    penalty: float
    validation: dict[float, float]  # mean squared error by penalty


def fit_ridge(
    features: Tensor | np.ndarray, values: Tensor | np.ndarray, penalties: Sequence[float] = PENALTIES
) -> list[LinearRegressor]:
    """Minimise mean squared error + penalty |w|^2 on standardised features, for each penalty.

    features: (N, D), N at least 1. values: (N,). penalties: above 0. The bias is not penalised.

    One eigendecomposition, of the smaller of the D x D and the N x N products, serves several penalties.
    scikit-learn's `Ridge` factorises again for each: on one core, 11 penalties took it 37 s for 10,000 x
    4,096 features, and this 20 s (1.2 and 0.9 s for 4,000 x 1,024). A single penalty is left to `Ridge`.

    Raises:
        UsageError: nothing to learn from, shapes that do not fit, NaN, infinite numbers, or a penalty that is
            not above 0.
    """
    x, y = _checked(features, values)
    if not penalties or min(penalties) <= 0:
        raise UsageError(f"penalties must be above 0, not {list(penalties)}")
    mean, std = x.mean(0), x.std(0)
    std = np.where(std > 1e-6 * (1 + np.abs(mean)), std, 1.0)  # rounding is no variation
    x = (x - mean) / std
    bias, n = float(y.mean()), len(x)
    if len(penalties) == 1:
        model = Ridge(penalties[0] * n, fit_intercept=False).fit(x, y - bias)
        return [LinearRegressor(model.coef_, bias, mean, std)]
    tall = n >= x.shape[1]
    spread, directions = eigh((x.T @ x if tall else x @ x.T) / n, overwrite_a=True, check_finite=False)
    target = directions.T @ (x.T @ (y - bias) if tall else y - bias) / n
    shares = target / (spread.clip(0) + np.array(penalties)[:, None])  # (P, min(N, D))
    weights = shares @ directions.T
    weights = weights if tall else weights @ x
    return [LinearRegressor(weight, bias, mean, std) for weight in weights]


def sweep_ridge(train: Part, validation: Part, penalties: Sequence[float] = PENALTIES) -> RidgeSweep:
    """Choose the penalty on validation data (the strongest of equals), then fit on both parts together.

    train, validation: (features (N, D), values (N,)), one sample at least each. Features are standardised by
    the part that is fitted.

    Raises:
        UsageError: as `fit_ridge`.
    """
    train, validation = _checked(*train), _checked(*validation)
    errors = {
        penalty: float(np.square(regressor.predict(validation[0]) - validation[1]).mean())
        for penalty, regressor in zip(penalties, fit_ridge(*train, penalties), strict=True)
    }
    least = min(errors.values())
    best = max(penalty for penalty, error in errors.items() if error <= least * (1 + _EQUAL))
    x, y = (np.concatenate(parts) for parts in zip(train, validation, strict=True))
    return RidgeSweep(fit_ridge(x, y, [best])[0], best, errors)


def _checked(features: Tensor | np.ndarray, values: Tensor | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = _array(features), _array(values)
    if x.ndim != 2 or y.shape != x.shape[:1] or not x.size:
        raise UsageError(
            f"ridge regression needs features (N, D) and values (N,), not {x.shape} and {y.shape}"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise UsageError("features or values have NaN or infinite numbers; leave out unlabelled samples")
    return x, y


def _array(x: Tensor | np.ndarray) -> np.ndarray:
    return x.detach().cpu().double().numpy() if isinstance(x, Tensor) else np.asarray(x, np.float64)
