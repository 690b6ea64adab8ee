"""Multinomial logistic regression to its optimum: Newton's method, its steps found by conjugate gradients.

    objective(W, b) = mean over samples of -log softmax(W x + b)[y]  +  strength / 2 |W|^2

Written by hand because L-BFGS (scikit-learn's default, and torch's) needs thousands of evaluations where
the regularisation is weak and features are correlated: on 512 features of an untrained ResNet-18, 6,600 in
float64 to come within 1e-6 of the optimum at strength 1e-6, where this takes 1,900 products in float32 and a
dozen gradients in float64. Of scikit-learn's own Newton methods `newton-cg` has no preconditioner, and
`newton-cholesky` needs the matrix of all (K D)^2 second derivatives. To the optima of a sweep this was 6 to 7
times faster than the best of the first two (`benchmarks/probe.py`).

In numpy, because torch's BLAS (MKL) uses half of the vector width of AMD's processors: products took 1.5 to
2.3 times as long.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve

Array = np.ndarray[Any, np.dtype[Any]]

_GAIN = 3e-8
"""What a step is expected to gain, relative to the objective, when it is the last."""
_REST = 0.05
"""Conjugate gradients end where the preconditioned residual is this share of the first one. With both numbers
what remained was below 1e-8 on 180 random problems with outliers and correlated features (with 0.2 and 3e-7,
which saves a fifth of the products, up to 4e-5)."""
_STEPS, _PRODUCTS = 200, 5000
_ROWS = 8192  # that are brought to float64 at a time


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """Weights (K, D + 1), the bias last, the logits (N, K) that they give, both float64, and the objective.

    Of a direction, weights and logits are changes.
    """

    weight: Array
    logits: Array
    value: float = np.inf

    def __sub__(self, other: Point) -> Point:
        return Point(self.weight - other.weight, self.logits - other.logits)


class Logistic:
    """The samples to be fitted, for any number of strengths.

    x: (N, D) float32 or float64, finite, N at least 1. y: (N,) integers from 0, of which none is left out.
    """

    def __init__(self, x: Array, y: Array) -> None:
        self.basis: Array | None = None
        if x.shape[1] > len(x):  # the minimum lies in the space that the samples span
            self.basis, triangle = np.linalg.qr(x.T.astype(np.float64))
            x = triangle.T
        self.x = np.concatenate([x, np.ones((len(x), 1), x.dtype)], 1)
        self.narrow = self.x.astype(np.float32, copy=False)
        self.y, self.classes, self.rows = y, int(y.max()) + 1, np.arange(len(y))

    def point(self, weight: Array) -> Point:
        """Where a search begins. weight: (K, D + 1)."""
        weight = weight - weight.mean(0)  # the same probabilities from smaller weights
        if self.basis is not None:
            weight = np.concatenate([weight[:, :-1] @ self.basis, weight[:, -1:]], 1)
        return Point(weight, self._times(weight))

    def weight(self, point: Point) -> Array:
        """(K, D + 1) float64."""
        if self.basis is None:
            return point.weight
        return np.concatenate([point.weight[:, :-1] @ self.basis.T, point.weight[:, -1:]], 1)

    def solve(self, strength: float, past: Sequence[Point]) -> Point:
        """The minimum, to 1e-6 of its value, wherever the search begins.

        strength: above 0. past: one point at least, such as minima for other strengths, the nearest first.
            The search begins at the lowest point of the plane through them and 0.
        """
        ridge = np.append(np.full(self.x.shape[1] - 1, strength), 0.0)
        ways = [past[0], *(one - other for one, other in pairwise(past))]
        point = _Plane(self.y, past[0], ways, ridge).lowest()
        factor, products = None, 0
        for _ in range(_STEPS):
            p = _softmax(point.logits)
            gradient = self._gradient(p, point.weight, ridge)
            p = p.astype(np.float32)
            if factor is None or 4 * self.classes * products > self.x.shape[1]:  # it costs as much as they do
                factor = self._factor(p, ridge)
            step, products = self._newton(p, gradient, ridge, factor)
            gain = -0.5 * float(np.vdot(gradient, step))
            way = Point(step, self._times(step))
            found = _Plane(self.y, point, [way, point], ridge).lowest()
            if not found.value < point.value:
                return point
            point = found
            if gain <= _GAIN * point.value:
                return point
        warnings.warn(
            f"logistic regression has not reached its optimum at strength {strength:g}", stacklevel=2
        )
        return point

    def _times(self, weight: Array) -> Array:
        """(N, K) float64: what weights (K, D + 1) make of the samples."""
        blocks = (self.x[begin : begin + _ROWS] for begin in range(0, len(self.x), _ROWS))
        return np.concatenate([block.astype(np.float64, copy=False) @ weight.T for block in blocks])

    def _gradient(self, p: Array, weight: Array, ridge: Array) -> Array:
        """(K, D + 1) float64. p: (N, K) float64, the probabilities."""
        wrong = p.copy()
        wrong[self.rows, self.y] -= 1
        total = np.zeros_like(weight)
        for begin in range(0, len(p), _ROWS):
            block = self.x[begin : begin + _ROWS].astype(np.float64, copy=False)
            total += wrong[begin : begin + _ROWS].T @ block
        return total / len(p) + ridge * weight

    def _factor(self, p: Array, ridge: Array) -> tuple[Array, bool]:
        """Cholesky's factor of X' diag(w) X / N + ridge, which stands for each class's second derivatives.

        w is twice the mean of p (1 - p) over classes. One matrix serves all of them, and so keeps steps
        summing to 0 over classes: along other directions only the bias's missing penalty is felt.
        """
        w = np.einsum("nk,nk->n", p, 1 - p) * (2 / p.size)
        scaled = self.narrow * np.sqrt(w)[:, None]
        matrix = scaled.T @ scaled
        diagonal = np.einsum("dd->d", matrix)
        rounding = float(np.finfo(np.float32).eps * (diagonal.max() + ridge.max()))
        more = np.maximum(ridge, 1e-3 * rounding).astype(np.float32)
        while True:
            diagonal += more
            try:
                return cho_factor(matrix, lower=True, check_finite=False)
            except np.linalg.LinAlgError:
                more = np.full_like(more, rounding)
                rounding *= 10

    def _newton(
        self, p: Array, gradient: Array, ridge: Array, factor: tuple[Array, bool]
    ) -> tuple[Array, int]:
        """A step (K, D + 1) towards the minimum of the quadratic model, and the products that it took."""
        ridge = ridge.astype(np.float32)
        scale = float(np.abs(gradient).max()) or 1.0  # squares of small numbers would leave float32
        residual = (-gradient / scale).astype(np.float32)
        step, way = np.zeros_like(residual), np.zeros_like(residual)
        size, least, products = np.inf, 0.0, 0
        while products < _PRODUCTS:
            solved = cho_solve(factor, residual.T, check_finite=False).T
            last, size = size, float(np.vdot(residual, solved))
            if not size > least:
                break
            least = least or _REST**2 * size
            way = solved + size / last * way
            bent = self._bend(p, way, ridge)
            curve = float(np.vdot(way, bent))
            if not curve > 0:  # of a bias whose class is certain everywhere, to float32
                break
            amount = size / curve
            step += amount * way
            residual -= amount * bent
            products += 1
        return scale * step.astype(np.float64), products

    def _bend(self, p: Array, way: Array, ridge: Array) -> Array:
        """(K, D + 1) float32: the second derivatives times a direction."""
        along = self.narrow @ way.T
        along -= np.einsum("nk,nk->n", p, along)[:, None]
        along *= p
        along /= len(p)
        return along.T @ self.narrow + ridge * way


class _Plane:
    """The objective at a point plus amounts of directions; its logits are sums, too, and need no product."""

    def __init__(self, y: Array, point: Point, ways: Sequence[Point], ridge: Array) -> None:
        self.point, self.ways, self.rows, self.y = point, ways, np.arange(len(y)), y
        flat = np.stack([way.weight.ravel() for way in (*ways, point)]) * np.tile(
            np.sqrt(ridge), len(point.weight)
        )
        products = flat @ flat.T
        self.square, self.cross, self.rest = products[:-1, :-1], products[:-1, -1], products[-1, -1]
        self.right = np.stack([way.logits[self.rows, y].mean() for way in ways])

    def lowest(self) -> Point:
        """The minimum, by Newton's method."""
        amounts = np.zeros(len(self.ways))
        value, logits = self._value(amounts)
        first = value
        for _ in range(20):
            step, gain = self._step(amounts, logits)
            size = 1.0
            tried, there = self._value(amounts + step)
            while not tried < value and size > 1e-6:
                size /= 4
                tried, there = self._value(amounts + size * step)
            if not tried < value:
                break
            amounts, value, logits = amounts + size * step, tried, there
            if gain <= 1e-3 * (first - value):
                break
        weight = self.point.weight + sum(a * way.weight for a, way in zip(amounts, self.ways, strict=True))
        return Point(weight, logits, value)

    def _value(self, amounts: Array) -> tuple[float, Array]:
        logits = self.point.logits.copy()
        for amount, way in zip(amounts, self.ways, strict=True):
            logits += amount * way.logits
        top = logits.max(1)
        each = np.log(np.exp(logits - top[:, None]).sum(1)) + top - logits[self.rows, self.y]
        penalty = self.rest + 2 * amounts @ self.cross + amounts @ self.square @ amounts
        return float(each.mean() + 0.5 * penalty), logits

    def _step(self, amounts: Array, logits: Array) -> tuple[Array, float]:
        """Newton's step, and what it is expected to gain."""
        p = _softmax(logits)
        weighted = [p * way.logits for way in self.ways]
        means = np.stack([each.sum(1) for each in weighted])
        gradient = means.mean(1) - self.right + self.cross + self.square @ amounts
        second = [[np.vdot(one, way.logits) for way in self.ways] for one in weighted]
        bent = (np.array(second) - means @ means.T) / len(p) + self.square
        step = -np.linalg.lstsq(bent, gradient, rcond=1e-12)[0]
        return step, -0.5 * float(gradient @ step)


def _softmax(logits: Array) -> Array:
    p = logits - logits.max(1, keepdims=True)
    np.exp(p, out=p)
    p /= p.sum(1, keepdims=True)
    return p
